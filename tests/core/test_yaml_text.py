"""YAML from somebody else: bounded time and memory, and a message with the line."""

import time
from pathlib import Path

import pytest

from finetune.core.errors import RecipeError
from finetune.core.recipe import load_recipe
from finetune.core.yaml_text import MAX_BYTES, MAX_DEPTH, read_yaml


def bomb(first: str, item: str, opening: str, closing: str) -> str:
    """Each of 30 lines repeats the line before it ten times."""
    lines = [f"a0: &a0 {first}"]
    for n in range(1, 30):
        repeated = ", ".join(item.format(k=k, alias=f"*a{n - 1}") for k in range(10))
        lines.append(f"a{n}: &a{n} {opening}{repeated}{closing}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb("[x]", "{alias}", "[", "]"), r":\d+: .*more than 20000 values"),
        (bomb("{x: 1}", "k{k}: {alias}", "{", "}"), r":\d+: .*20000 values"),
        ("name: a\ndata: &d\n  train: *d\n", r":\d: .*contains itself"),
        ("data:\n  test: &d [*d]\n", ":2: .*contains itself"),
        ("x: 1\na: " + "[" * 5000 + "]" * 5000, ":2: .*more than 10 levels"),
        ("x: 1\n\na: " + "{a: " * 20, ":3: .*more than 10 levels"),
        ("- " * 500, ":1: .*more than 10 levels"),
        ("x: 1\nname: !!python/object/apply:os.system [ls]\n", ":2: .*the tag .*os.system.* remove it"),
        ("x: 1\nname: !!binary AAAA\n", ":2: .*the tag"),
        ("x: 1\n? [a, b]\n: 1\n", ":2: a key must be plain text"),
        ("# " + "x" * MAX_BYTES, "larger than 1 MB"),
    ],
)
def test_yaml_without_end_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    started = time.perf_counter()
    with pytest.raises(RecipeError, match=f"r.yaml{message}" if message[0] == ":" else message):
        load_recipe(path)
    assert time.perf_counter() - started < 5


def test_plain_yaml_passes_with_aliases_and_to_the_largest_depth(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: &a [1, 2]\nb: *a\nc: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "\nd: !!str 5\n")
    assert read_yaml(path) is not None
    path.write_text("c: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(RecipeError, match="levels deep"):
        read_yaml(path)


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null"])
def test_a_device_is_not_read(tmp_path: Path, target: str) -> None:
    (tmp_path / "r.yaml").symlink_to(target)
    with pytest.raises(RecipeError, match="not a regular file"):
        read_yaml(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=" + "9" * 5000, r"^--set train.epochs=9+ \.\.\.: train.epochs: .*9 \.\.\.$"),
        ("x" * 100_000 + "=1", "unknown key 'x{100} ...'"),
        ("parts.lora.alpha=inf", "parts.lora.alpha: Input should be a finite number"),
        ("decode.max_entropy=nan", "decode.max_entropy"),
        ("name=a\0b", "folder name"),
        ("name=" + "n" * 300, "at most 100 characters"),
        ("model.instruction=" + "a" * 20_000, "at most 10000 characters"),
    ],
)
def test_absurd_overrides_are_refused_in_a_short_message(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("model: {base: x}\ndata: {train: [a], valid: [b], test: [c]}\n")
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path, [override])
    assert len(str(caught.value)) < 600
