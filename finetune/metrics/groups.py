"""Word errors by group of utterances: who or what is heard worst, as far as the numbers allow to say so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from finetune.metrics.significance import (
    Interval,
    PairedDifference,
    bootstrap_wer,
    choose_blocks,
    holm,
    paired_difference,
)
from finetune.metrics.wer import error_rate

MIN_SPEAKERS = 5  # of a group, for it to be ranked; where a group is one speaker, or none are known, clips
MOST_GROUPS = 30
UNKNOWN = "(unknown)"


@dataclass(frozen=True)
class GroupRow:
    """One group. `wer` and `interval` by system; `difference` is the last system against the first, and `p_holm` its
    p value adjusted for the number of groups; `ranked` says whether it may be called best or worst, `unit` what the
    intervals draw, `note` which coarser units were too few."""

    name: str
    clips: int
    speakers: int
    words: int
    wer: dict[str, float]
    interval: dict[str, Interval]
    difference: PairedDifference | None
    p_holm: float | None
    ranked: bool
    unit: str
    note: str


@dataclass(frozen=True)
class GroupTable:
    """Rows in the order given; by system the worst ranked group, and its WER minus that of the best ranked one."""

    column: str
    rows: list[GroupRow]
    worst: dict[str, str]
    gap: dict[str, float]
    note: str


def group_table(
    column: str,
    names: Sequence[str],
    order: Sequence[str],
    errors: Mapping[str, Sequence[int]],
    words: Sequence[int],
    units: Mapping[str, Sequence[str]],
    replicas: int,
    seed: int,
) -> GroupTable:
    """Splits utterances by `names` and scores each group.

    Args:
        column: what the names are of, such as `accent`.
        names: group of each utterance; "" is unknown.
        order: all names, in the order of the rows; the unknown come last.
        errors: by system, word errors of each utterance.
        words: reference words of each utterance.
        units: what the bootstrap may draw, speakers first (`significance.choose_blocks`, asked for each group).
        replicas, seed: of the bootstrap.
    """
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name or UNKNOWN, []).append(index)
    largest = sorted(members, key=lambda name: -sum(words[i] for i in members[name]))[:MOST_GROUPS]
    systems = list(errors)
    rows, by_clips = [], False
    for name in (name for name in [*order, UNKNOWN] if name in largest):
        chosen = members[name]
        counts = {system: [column[i] for i in chosen] for system, column in errors.items()}
        below, voices = [words[i] for i in chosen], {units["speaker"][i] for i in chosen}
        blocks = choose_blocks({unit: [column[i] for i in chosen] for unit, column in units.items()})
        few = "" in voices or column == "speaker"
        by_clips |= few
        rows.append(
            GroupRow(
                name,
                len(chosen),
                len(voices - {""}),
                sum(below),
                {system: error_rate(sum(count), sum(below)) for system, count in counts.items()},
                {system: bootstrap_wer(count, below, blocks.names, replicas, seed) for system, count in counts.items()},
                paired_difference(counts[systems[0]], counts[systems[-1]], below, blocks.names, replicas, seed)
                if len(systems) > 1
                else None,
                None,
                name != UNKNOWN and (len(chosen) if few else len(voices)) >= MIN_SPEAKERS,
                blocks.unit,
                blocks.note,
            )
        )
    rows = _adjusted(rows)
    ranked = [row for row in rows if row.ranked]
    notes = [f"the {len(members) - len(largest)} smallest groups are left out"] if len(members) > len(largest) else []
    if by_clips:
        notes.append("ranked by clips, of which a group needs five: this says nothing of other speakers")
    if len(ranked) < 2:
        wanted = "clips" if by_clips else "speakers"
        return GroupTable(
            column, rows, {}, {}, "; ".join([*notes, f"no ranking: fewer than two groups have {MIN_SPEAKERS} {wanted}"])
        )
    worst = {system: max(ranked, key=lambda row: row.wer[system]) for system in errors}
    gap = {system: worst[system].wer[system] - min(row.wer[system] for row in ranked) for system in errors}
    return GroupTable(column, rows, {system: row.name for system, row in worst.items()}, gap, "; ".join(notes))


def in_bins(values: Sequence[float], edges: Sequence[float], unit: str) -> tuple[list[str], list[str]]:
    """The name of each value's bin, such as "2 to 5 s", and all names in order."""
    names = [
        f"below {edges[0]:g} {unit}",
        *(f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)),
        f"{edges[-1]:g} {unit} and more",
    ]
    return [names[sum(value >= edge for edge in edges)] for value in values], names


def _adjusted(rows: list[GroupRow]) -> list[GroupRow]:
    tested = [row.difference.p_value for row in rows if row.difference is not None]
    adjusted = iter(holm(tested))
    return [GroupRow(**{**vars(row), "p_holm": next(adjusted) if row.difference is not None else None}) for row in rows]
