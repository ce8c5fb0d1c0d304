"""Tables of a report with the base and the adapted model side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.core.wording import count
from finetune.data.style import StyleFile
from finetune.metrics.alignment import Confusion
from finetune.metrics.results import EvaluationResults, TaskResult
from finetune.metrics.scores import Comparison, TermRow
from finetune.metrics.significance import PairedDifference
from finetune.metrics.task_scores import TaskScore
from finetune.metrics.words import EntityRecall

MAX_CONFUSIONS = 40


@dataclass(frozen=True)
class TermComparison:
    """One term: occurrences in the references (`support`), hits and false alarms of both models."""

    term: str
    seen: bool
    as_written: bool
    support: int
    base: int
    adapted: int
    false_base: int
    false_adapted: int


@dataclass(frozen=True)
class EntityComparison:
    """One kind of entity: occurrences in the references (`support`), and hits of both models."""

    kind: str
    support: int
    base: int
    adapted: int


@dataclass(frozen=True)
class ConfusionComparison:
    """One error of the adapted model; `base` is a dash if it is not in the base's list of errors."""

    reference: str
    hypothesis: str
    adapted: int
    base: str


@dataclass(frozen=True)
class StyleRow:
    """A feature of transcripts or a rule of `data.text`: the number of transcripts by split, and an example."""

    name: str
    counts: list[int]
    example: str


@dataclass(frozen=True)
class TaskRow:
    """One score of one task and language of a split; `wrong_*` counts texts in another language by that language."""

    split: str
    task: str
    clips: int
    metric: str
    base: TaskScore
    adapted: TaskScore
    difference: PairedDifference
    wrong_base: str
    wrong_adapted: str


@dataclass(frozen=True)
class Scale:
    """Positions of zero, of a difference and of its interval on a line from 0 to 100."""

    zero: float
    value: float
    left: float
    width: float


def terms(base: Sequence[TermRow], adapted: Sequence[TermRow]) -> list[TermComparison]:
    """One row for each term; the terms that the adapted model misses most often are first."""
    base_rows, adapted_rows = ({row.term: row for row in rows} for rows in (base, adapted))
    rows = []
    for term, row in {**base_rows, **adapted_rows}.items():
        base_row, adapted_row = base_rows.get(term), adapted_rows.get(term)
        rows.append(
            TermComparison(
                term=term,
                seen=row.seen,
                as_written=row.as_written,
                support=row.support,
                base=base_row.hits if base_row else 0,
                adapted=adapted_row.hits if adapted_row else 0,
                false_base=base_row.false_alarms if base_row else 0,
                false_adapted=adapted_row.false_alarms if adapted_row else 0,
            )
        )
    return sorted(rows, key=lambda row: (row.adapted - row.support, -row.support, row.term))


def entities(base: Sequence[EntityRecall], adapted: Sequence[EntityRecall]) -> list[EntityComparison]:
    """One row for each kind that occurs in the references."""
    hits = {row.kind: row.hits for row in adapted}
    return [EntityComparison(row.kind, row.support, row.hits, hits[row.kind]) for row in base if row.support]


def tasks(results: Mapping[str, Sequence[TaskResult]]) -> list[TaskRow]:
    """One row for each score of each task and language, by split."""
    return [
        TaskRow(
            split,
            result.base.name,
            result.base.clips,
            metric,
            result.base.scores[metric],
            result.adapted.scores[metric],
            difference,
            _languages(result.base.wrong_language),
            _languages(result.adapted.wrong_language),
        )
        for split, entries in results.items()
        for result in entries
        for metric, difference in result.differences.items()
    ]


def task_notes(results: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    """What limits the scores by task: few blocks, and translations without a reference; each once."""
    entries = [(f"{split}, {entry.base.name}", entry) for split, rows in results.items() for entry in rows]
    notes = [f"{name}: {item.note}" for name, entry in entries for item in entry.differences.values() if item.note]
    unscored = [(name, entry.base.empty_references) for name, entry in entries]
    notes += [f"{name}: not scored, because the reference is empty: {number}" for name, number in unscored if number]
    return list(dict.fromkeys(notes))


def interval_units(results: EvaluationResults) -> str:
    """What intervals and tests are over: 40 speakers; with the sets, if these differ."""
    sets: dict[str, list[str]] = {}
    for name, difference in results.differences.items():
        sets.setdefault(count(difference.blocks, results.scores[name].adapted.blocks.unit), []).append(name)
    if len(sets) == 1:
        return next(iter(sets))
    return "; ".join(f"{unit} ({', '.join(names)})" for unit, names in sets.items())


def interval_notes(results: EvaluationResults) -> list[tuple[str, str, str]]:
    """Set, system, and what limits the interval of its WER."""
    return [
        (name, system, scores.interval.note)
        for name, both in results.scores.items()
        for system, scores in both.items()
        if scores.interval.note and scores.chrf is None and not scores.without_words
    ]


def _languages(counts: Mapping[str, int]) -> str:
    return " ".join(f"{count} {language}" for language, count in counts.items()) or "0"


def transcripts(style: StyleFile) -> list[StyleRow]:
    """The rules that changed a transcript, then the features of the transcripts, each with its first example."""
    cells: dict[str, dict[str, int]] = {}
    examples: dict[str, str] = {}
    for split, entry in style.splits.items():
        for use in entry.rules:
            cells.setdefault(f"changed by {use.rule}", {})[split] = use.rows
            for change in use.examples[:1]:
                examples.setdefault(f"changed by {use.rule}", f"{change.before} → {change.after}")
        for left in entry.numbers_left:
            cells.setdefault(f"numbers left: {left.reason}", {})[split] = left.rows
            examples.setdefault(f"numbers left: {left.reason}", left.examples[0].after)
        for feature in entry.features:
            cells.setdefault(feature.feature, {})[split] = feature.rows
            examples.setdefault(feature.feature, feature.examples[0].text)
    return [
        StyleRow(name, [counts.get(split, 0) for split in style.splits], examples.get(name, ""))
        for name, counts in cells.items()
    ]


def confusions(base: Sequence[Confusion], adapted: Sequence[Confusion]) -> list[ConfusionComparison]:
    """The most frequent errors of the adapted model."""
    counts = {(row.reference, row.hypothesis): str(row.count) for row in base}
    return [
        ConfusionComparison(row.reference, row.hypothesis, row.count, counts.get((row.reference, row.hypothesis), "–"))
        for row in adapted[:MAX_CONFUSIONS]
    ]


def scale(difference: Comparison) -> Scale:
    """Places a difference and its interval on a line that includes zero."""
    low, high = min(difference.low, 0.0), max(difference.high, 0.0)
    margin = 0.08 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def position(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return Scale(
        zero=position(0.0),
        value=position(difference.difference),
        left=position(difference.low),
        width=round(position(difference.high) - position(difference.low), 2),
    )
