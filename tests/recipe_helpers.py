"""The smallest recipe, and a value of one by its dotted key."""

from finetune.core.config import Recipe

DATA = "data:\n  train: [a.jsonl]\n  valid: [b.jsonl]\n  test: [c.jsonl]\n"


def value(found: Recipe, key: str) -> object:
    for part in key.split("."):
        found = getattr(found, part)
    return found
