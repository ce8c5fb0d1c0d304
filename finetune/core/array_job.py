"""Splits work between the jobs of an array, such as `sbatch --array=1-16`: job 3 of 16 does every 16th block."""

import re
from dataclasses import dataclass

from finetune.core.errors import RecipeError


@dataclass(frozen=True)
class Shard:
    """One of `count` jobs; `number` is 1 to `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, block: int) -> bool:
        """Whether this job does a block; blocks are numbered from 0. Neighbouring blocks have different jobs."""
        return block % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """`3/16` as a Shard.

    Raises:
        RecipeError: the text has another form, or the number is not 1 to the count.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None:
        raise RecipeError(f"--shard {text}: write NUMBER/COUNT, such as 3/16 for the third of 16 jobs")
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count:
        hint = f"; submit the jobs with --array=1-{count}" if number == 0 and count else ""
        raise RecipeError(f"--shard {text}: the number must be 1 to {count or 'the count'}{hint}")
    return Shard(number, count)
