"""Blocks: the unit whose variation a test measures, and the speakers for whom its result holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

MIN_BLOCKS = 10

Scope = Literal["other speakers", "these speakers", "unknown speakers"]


@dataclass(frozen=True)
class Blocks:
    """The blocks of a test.

    Attributes:
        unit: such as `speaker`.
        names: the block of each utterance.
        note: the coarser units with too few blocks.
        scope: for whom a result holds (`scope_text`).
        speakers: number of known speakers.
    """

    unit: str
    names: tuple[str, ...]
    note: str
    scope: Scope
    speakers: int


def choose_blocks(units: Mapping[str, Sequence[str]]) -> Blocks:
    """Selects the coarsest unit with `MIN_BLOCKS` blocks; the note names the coarser units with fewer.

    A result holds for other speakers only if the blocks are speakers, or if each utterance has its own speaker.

    Args:
        units: by unit, coarsest first, the block of each utterance ("" if unknown); the last unit, utterances,
            is used if no other has enough blocks.
    """
    *coarse, last = units
    speakers = units.get("speaker", ())
    known, total = len({*speakers} - {""}), len(units[last])
    scope: Scope = "unknown speakers" if not speakers or "" in speakers else "these speakers"
    notes: list[str] = []
    for unit in coarse:
        names, count = units[unit], len(set(units[unit]))
        if "" in names or count == total:
            continue  # unknown, or not coarser than utterances
        if count >= MIN_BLOCKS:
            return Blocks(unit, tuple(names), "; ".join(notes), "other speakers" if unit == "speaker" else scope, known)
        notes.append(f"only {count} {unit}{'s' * (count > 1)}: the interval does not apply to others")
    if known == total and "" not in speakers and total >= MIN_BLOCKS:
        scope = "other speakers"
    return Blocks(last, tuple(units[last]), "; ".join(notes), scope, known)


def scope_text(scope: Scope, speakers: int) -> str:
    """The speakers for whom a result holds, as text after it; "" for other speakers like those of the test.

    >>> "better" + scope_text("these speakers", 4)
    'better on these 4 speakers; other speakers not shown'
    """
    if scope == "other speakers":
        return ""
    if scope == "unknown speakers":
        return " on these clips; other speakers not shown (speakers are unknown)"
    these = f"these {speakers} speakers" if speakers > 1 else "this speaker"
    return f" on {these}; other speakers not shown"
