"""A clip of a report: reference, base and adapted hypothesis in three aligned rows of words, each with its state."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

CORRECT, WRONG, MISSING, INSERTED, GAP = "correct", "wrong", "missing", "inserted", "gap"


class Cell(NamedTuple):
    """A word and one of the states above; a reference word is correct or a gap."""

    word: str
    state: str


@dataclass(frozen=True)
class Player:
    """Audio of a clip: a data URI, a path relative to the report, or "" with the `anchor` of a clip that has it."""

    source: str
    anchor: str = ""


@dataclass(frozen=True)
class ClipView:
    """One clip in a list.

    Attributes:
        anchor: id of its element in the page.
        facts: duration, speaker and errors, as text.
        direction: of the script of the reference, ltr or rtl.
        columns: aligned words of reference, base and adapted model, normalized.
        texts: (source, text), as written.
        flags: of the adapted model's hypothesis.
        player: None if the audio is missing.
    """

    id: str
    anchor: str
    facts: Sequence[str]
    direction: str
    columns: Sequence[tuple[Cell, Cell, Cell]]
    texts: Sequence[tuple[str, str]]
    flags: Sequence[str]
    player: Player | None


def direction(text: str) -> str:
    """`rtl` if the first letter belongs to a right-to-left script, else `ltr`."""
    letters = (unicodedata.bidirectional(char) for char in text)
    return "rtl" if next((kind for kind in letters if kind in ("L", "R", "AL")), "L") != "L" else "ltr"


def cells(column: tuple[str, str, str]) -> tuple[Cell, Cell, Cell]:
    """Adds the states to one column of a three-row alignment (reference, base, adapted; "" is no word)."""
    reference, base, adapted = column
    return Cell(reference, CORRECT if reference else GAP), _cell(reference, base), _cell(reference, adapted)


def _cell(reference: str, word: str) -> Cell:
    if not reference:
        return Cell(word, INSERTED if word else GAP)
    if not word:
        return Cell(word, MISSING)
    return Cell(word, CORRECT if word == reference else WRONG)
