"""Word errors by group of utterances: WER of each group, and the worst group if there are enough speakers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from finetune.metrics.blocks import choose_blocks
from finetune.metrics.significance import Interval, PairedDifference, bootstrap_wer, holm, paired_difference
from finetune.metrics.wer import error_rate

MIN_SPEAKERS = 5  # of a ranked group; clips instead, if a group is one speaker or speakers are unknown
MAX_GROUPS = 30
UNKNOWN = "(unknown)"


@dataclass(frozen=True)
class GroupRow:
    """One group of utterances.

    Attributes:
        wer: by system.
        interval: by system.
        difference: the last system against the first; None for one system.
        p_holm: p-value of `difference`, adjusted for the number of groups.
        ranked: whether the group has words and enough speakers to be the best or the worst.
        unit: the unit that the bootstrap resamples.
        note: names the coarser units with too few blocks.
    """

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
    """All groups of one column.

    `worst` is the worst ranked group by system, and `gap` its WER minus the WER of the best ranked group; both are
    empty if fewer than two groups are ranked.
    """

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
        column: the name of the column, such as `accent`.
        names: group of each utterance; "" is unknown.
        order: all names, in the order of the rows; the unknown group is last.
        errors: by system, word errors of each utterance.
        words: reference words of each utterance.
        units: units that the bootstrap can resample (`significance.choose_blocks`, called for each group).
        replicas: number of bootstrap replicas.
        seed: seed of the bootstrap.
    """
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name or UNKNOWN, []).append(index)
    largest = sorted(members, key=lambda name: -sum(words[i] for i in members[name]))[:MAX_GROUPS]
    shown = {name: members[name] for name in [*order, UNKNOWN] if name in largest}
    speakers = {name: {units["speaker"][i] for i in chosen} for name, chosen in shown.items()}
    by_clips = {name for name in shown if "" in speakers[name] or column == "speaker"}
    rows = []
    for name, chosen in shown.items():
        count = len(chosen) if name in by_clips else len(speakers[name])
        row = _group_row(name, chosen, errors, words, units, replicas, seed)
        rows.append(replace(row, ranked=name != UNKNOWN and count >= MIN_SPEAKERS and row.words > 0))
    notes = [f"the {len(members) - len(largest)} smallest groups are omitted"] if len(members) > len(largest) else []
    if by_clips:
        notes.append(f"ranked by clips ({MIN_SPEAKERS} or more in a group): no conclusion about other speakers")
    return _ranked_table(column, _adjust_p_values(rows), list(errors), notes, "clips" if by_clips else "speakers")


def _group_row(
    name: str,
    chosen: Sequence[int],
    errors: Mapping[str, Sequence[int]],
    words: Sequence[int],
    units: Mapping[str, Sequence[str]],
    replicas: int,
    seed: int,
) -> GroupRow:
    """Scores the utterances `chosen`, without the ranking and without the adjusted p-value."""
    counts = {system: [column[i] for i in chosen] for system, column in errors.items()}
    group_words, speakers = [words[i] for i in chosen], {units["speaker"][i] for i in chosen}
    blocks = choose_blocks({unit: [column[i] for i in chosen] for unit, column in units.items()})
    base_counts, *other_counts = counts.values()
    return GroupRow(
        name=name,
        clips=len(chosen),
        speakers=len(speakers - {""}),
        words=sum(group_words),
        wer={system: error_rate(sum(count), sum(group_words)) for system, count in counts.items()},
        interval={
            system: bootstrap_wer(count, group_words, blocks.names, replicas, seed) for system, count in counts.items()
        },
        difference=paired_difference(base_counts, other_counts[-1], group_words, blocks.names, replicas, seed)
        if other_counts
        else None,
        p_holm=None,
        ranked=False,
        unit=blocks.unit,
        note=blocks.note,
    )


def _adjust_p_values(rows: Sequence[GroupRow]) -> list[GroupRow]:
    adjusted = iter(holm([row.difference.p_value for row in rows if row.difference is not None]))
    return [replace(row, p_holm=next(adjusted)) if row.difference is not None else row for row in rows]


def _ranked_table(column: str, rows: list[GroupRow], systems: list[str], notes: list[str], unit: str) -> GroupTable:
    ranked = [row for row in rows if row.ranked]
    if len(ranked) < 2:
        notes = [*notes, f"not ranked: fewer than two groups have {MIN_SPEAKERS} {unit}"]
        return GroupTable(column, rows, {}, {}, "; ".join(notes))
    worst = {system: max(ranked, key=lambda row: row.wer[system]) for system in systems}
    gap = {system: row.wer[system] - min(group.wer[system] for group in ranked) for system, row in worst.items()}
    return GroupTable(column, rows, {system: row.name for system, row in worst.items()}, gap, "; ".join(notes))


def in_bins(values: Sequence[float], edges: Sequence[float], unit: str) -> tuple[list[str], list[str]]:
    """The name of each value's bin, such as "2 to 5 s", and all names in order."""
    names = [
        f"below {edges[0]:g} {unit}",
        *(f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)),
        f"{edges[-1]:g} {unit} and more",
    ]
    return [names[sum(value >= edge for edge in edges)] for value in values], names
