"""A clip as a report shows it: three rows of words, one above the other, each with what became of it."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

RIGHT, WRONG, MISSING, ADDED, GAP = "right", "wrong", "missing", "added", "gap"


class Cell(NamedTuple):
    """A word, and one of the states above; what was said is always right or a gap."""

    word: str
    state: str


@dataclass(frozen=True)
class Player:
    """Audio of a clip: a data URI, a path relative to the report, or "" with `anchor` of the clip that has it."""

    source: str
    anchor: str = ""


@dataclass(frozen=True)
class Shown:
    """`rows` are what was said, what the base heard and what the adapted model heard, as scored; `texts` the same as
    written, and what else was heard, by who heard it. `direction` is that of what was said, ltr or rtl."""

    id: str
    anchor: str
    facts: Sequence[str]
    direction: str
    columns: Sequence[tuple[Cell, Cell, Cell]]
    texts: Sequence[tuple[str, str]]
    flags: Sequence[str]
    player: Player | None


def direction(text: str) -> str:
    """rtl where the first letter is of a script that is written so."""
    letters = (unicodedata.bidirectional(char) for char in text)
    return "rtl" if next((kind for kind in letters if kind in ("L", "R", "AL")), "L") != "L" else "ltr"


def cells(column: tuple[str, str, str]) -> tuple[Cell, Cell, Cell]:
    """One place of a three-row alignment (what was said, base, adapted; "" is nothing) with its states."""
    said = column[0]
    heard = [
        Cell(
            word,
            RIGHT if said and word == said else WRONG if said and word else MISSING if said else ADDED if word else GAP,
        )
        for word in column[1:]
    ]
    return Cell(said, RIGHT if said else GAP), heard[0], heard[1]
