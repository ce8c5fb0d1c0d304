"""The jobs of an array share all blocks, and a wrong number is an error that names the right ones."""

import pytest

from finetune.core.array_job import Shard, parse_shard
from finetune.core.errors import RecipeError


@pytest.mark.parametrize("count", [1, 3, 16])
def test_each_block_has_one_job(count: int) -> None:
    shards = [parse_shard(f"{number}/{count}") for number in range(1, count + 1)]
    for block in range(50):
        assert sum(shard.has(block) for shard in shards) == 1
    assert Shard(1, count).has(0) and str(Shard(1, count)) == f"1/{count}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "write NUMBER/COUNT"),
        ("a/b", "write NUMBER/COUNT"),
        ("-1/4", "write NUMBER/COUNT"),
        ("1/4/2", "write NUMBER/COUNT"),
        ("0/16", "must be 1 to 16; submit the jobs with --array=1-16"),
        ("17/16", "must be 1 to 16$"),
        ("0/0", "must be 1 to the count"),
    ],
)
def test_wrong_shards(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=f"--shard {text}: .*{message}"):
        parse_shard(text)
