"""Expands sentence templates: `[a|b|]` chooses one alternative, `{slot}` inserts a word or the result of a function."""

import random
import re
from collections.abc import Callable, Mapping, Sequence

Slot = Sequence[str] | Callable[[random.Random], str]
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def expand(template: str, slots: Mapping[str, Slot], rng: random.Random) -> str:
    """One random sentence of `template`: inner alternatives first, then the slots; a slot may hold a template.

    Raises:
        KeyError: an unknown slot.
    """
    while found := _CHOICE.search(template):
        template = template[: found.start()] + rng.choice(found[1].split("|")) + template[found.end() :]
    while found := re.search(r"\{(\w+)\}", template):
        slot = slots[found[1]]
        value = slot(rng) if callable(slot) else rng.choice(slot)
        template = template[: found.start()] + value + template[found.end() :]
    return _tidy(template)


def _tidy(text: str) -> str:
    text = re.sub(r"\s+([,.?!])", r"\1", " ".join(text.split()))
    return text[:1].upper() + text[1:]


def many(templates: Sequence[str], slots: Mapping[str, Slot], count: int, rng: random.Random) -> list[str]:
    """At most `count` different sentences, the templates in turn; fewer where they have fewer expansions."""
    found: dict[str, None] = {}
    for number in range(6 * count):
        if len(found) == count:
            break
        found[expand(templates[number % len(templates)], slots, rng)] = None
    return list(found)
