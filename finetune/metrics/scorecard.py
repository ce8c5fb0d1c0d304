"""All that is computed from references and hypotheses of one set of clips, as plain values for a report.

Nothing here decodes: the same functions score a run's models and anybody's file of hypotheses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from finetune.metrics.alignment import align, confusions, count_errors, count_words
from finetune.metrics.groups import GroupTable, group_table, in_bins
from finetune.metrics.hallucination import flags, unsaid
from finetune.metrics.mapsswe import mapsswe
from finetune.metrics.significance import bootstrap_wer, choose_blocks, paired_difference
from finetune.metrics.terms import count_terms, summarize
from finetune.metrics.translation import translation_scores
from finetune.metrics.wer import changed_by_normalizer, error_rate, errors_per_utterance, score
from finetune.metrics.words import by_frequency, entities, numeral_errors, style

CONFUSIONS = 100
BINS = {
    "duration": ((1.0, 2.0, 5.0, 10.0, 20.0), "s"),
    "bandwidth": ((3600.0, 5500.0), "Hz"),
    "snr": ((5.0, 15.0, 25.0), "dB"),
}


@dataclass(frozen=True)
class Clip:
    """What a score needs to know of an utterance. `columns` are those of the manifest, as text, and `measures` what
    was measured of its audio, by a name in `BINS`. `target_language` is "" unless the text is a translation."""

    id: str
    text: str
    duration: float
    speaker: str
    recording: str
    instruction: str
    keywords: tuple[str, ...] = ()
    target_language: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SystemOutput:
    """A hypothesis, the seconds it took (0 is unknown), and whether it was cut off by the limit of tokens."""

    text: str
    seconds: float
    truncated: bool


@dataclass(frozen=True)
class ScoringOptions:
    """How to count: normalizer preset, bootstrap, the terms of the domain, which of these training had (`seen`), and
    how often it had each word."""

    preset: str
    replicas: int
    seed: int
    terms: tuple[str, ...]
    seen: frozenset[str]
    trained: Mapping[str, int]


def units_of(clips: Sequence[Clip]) -> dict[str, list[str]]:
    """What the bootstrap may draw, for `significance.choose_blocks`."""
    return {
        "speaker": [clip.speaker for clip in clips],
        "recording": [clip.recording for clip in clips],
        "utterance": [clip.id for clip in clips],
    }


def flags_of(clips: Sequence[Clip], heard: Sequence[SystemOutput], preset: str) -> list[tuple[str, ...]]:
    """Of each hypothesis, which flags of `hallucination.FLAGS` it has."""
    return [
        flags(
            clip.text,
            item.text,
            duration=clip.duration,
            instruction=clip.instruction,
            keywords=clip.keywords,
            truncated=item.truncated,
            preset=preset,
        )
        for clip, item in zip(clips, heard, strict=True)
    ]


def scorecard(
    clips: Sequence[Clip], heard: Sequence[SystemOutput], setting: ScoringOptions
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One system on one set: its scores, and the lists behind them. Rates are fractions; counts stand beside them.

    Raises:
        DataError: no clips, or not one hypothesis for each.
    """
    preset = setting.preset
    references, hypotheses = [clip.text for clip in clips], [item.text for item in heard]
    counts = score(references, hypotheses, preset)
    rows, flagged = align(references, hypotheses, preset), flags_of(clips, heard, preset)
    errors, words = [count_errors(edits) for edits in rows], [count_words(edits) for edits in rows]
    blocks = choose_blocks(units_of(clips))
    kept = [index for index, found in enumerate(flagged) if not found]
    audio, seconds = sum(clip.duration for clip in clips), sum(item.seconds for item in heard)
    raw = score(references, hypotheses, "none")
    entry = {
        **asdict(counts),
        "interval": asdict(bootstrap_wer(errors, words, blocks.names, setting.replicas, setting.seed)),
        "blocks": {"unit": blocks.unit, "note": blocks.note},
        "normalizer": preset,
        "raw_wer": raw.wer,
        "raw_cer": raw.cer,
        "utterances": len(clips),
        "utterances_wrong": sum(count > 0 for count in errors),
        "prompted": {"utterances": sum(bool(clip.keywords) for clip in clips), "said": _told(clips, preset)},
        "truncated": sum(item.truncated for item in heard),
        "empty_hypotheses": sum(not item.text.strip() for item in heard),
        "flags": {name: sum(name in found for found in flagged) for name in sorted({*sum(flagged, ())})},
        "without_flagged": {
            "utterances": len(kept),
            "wer": error_rate(sum(errors[i] for i in kept), sum(words[i] for i in kept)),
        },
        "frequency": [asdict(row) for row in by_frequency(rows, setting.trained, preset)],
        "entities": [asdict(row) for row in entities(references, hypotheses, preset)],
        "numerals": asdict(numeral_errors(rows)),
        "style": asdict(style(references, hypotheses)),
        "audio_seconds": round(audio, 3),
        "seconds": round(seconds, 3),
        "rtfx": round(audio / seconds, 2) if seconds else None,
    }
    details: dict[str, Any] = {
        "confusions": [asdict(row) for row in confusions(rows, CONFUSIONS)],
        "normalizer_changes": [
            {"id": clips[index].id, "side": side, "text": texts[index]}
            for side, texts in (("reference", references), ("hypothesis", hypotheses))
            for index in changed_by_normalizer(texts, preset)
        ],
    }
    if setting.terms:
        entry["terms"], details["terms"] = _terms(references, hypotheses, blocks.names, setting)
    if languages := {clip.target_language for clip in clips if clip.target_language}:
        entry["translation"] = {}
        for language in sorted(languages):
            chosen = [i for i, clip in enumerate(clips) if clip.target_language == language]
            entry["translation"][language] = asdict(
                translation_scores([references[i] for i in chosen], [hypotheses[i] for i in chosen], language)
            )
    return entry, details


def _told(clips: Sequence[Clip], preset: str) -> int:
    """Clips whose prompt holds a keyword that is said in them."""
    return sum(bool(unsaid("", clip.text, clip.keywords, preset)) for clip in clips)


def _terms(
    references: list[str], hypotheses: list[str], blocks: Sequence[str], setting: ScoringOptions
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Recall by whether training had the term, with the interval of the share missed, and one row a term."""
    counts = count_terms(references, hypotheses, list(setting.terms), setting.preset)
    rows, found = counts.rows(), {}
    for kind in ("seen", "unseen"):
        chosen = [row for row in rows if (row.term in setting.seen) == (kind == "seen")]
        summary = asdict(summarize(chosen))
        if summary["support"]:
            missed = bootstrap_wer(*counts.misses(row.term for row in chosen), blocks, setting.replicas, setting.seed)
            summary |= {"low": max(0.0, 1 - missed.high), "high": 1 - missed.low, "note": missed.note}
        found[kind] = summary
    return found, [{**asdict(row), "seen": row.term in setting.seen} for row in rows if row.support or row.false_alarms]


def comparison(
    clips: Sequence[Clip], first: Sequence[SystemOutput], second: Sequence[SystemOutput], setting: ScoringOptions
) -> dict[str, Any]:
    """The second system against the first on one set: the block bootstrap, and MAPSSWE for a second opinion."""
    references = [clip.text for clip in clips]
    rows = [align(references, [item.text for item in heard], setting.preset) for heard in (first, second)]
    errors = [[count_errors(edits) for edits in aligned] for aligned in rows]
    words = [count_words(edits) for edits in rows[0]]
    blocks = choose_blocks(units_of(clips)).names
    pair = paired_difference(errors[0], errors[1], words, blocks, setting.replicas, setting.seed)
    return {**asdict(pair), "mapsswe": asdict(mapsswe(rows[0], rows[1]))}


def group_tables(
    clips: Sequence[Clip], heard: Mapping[str, Sequence[SystemOutput]], columns: Sequence[str], setting: ScoringOptions
) -> list[GroupTable]:
    """By each column that some clip has, and by bins of each measure that all clips have."""
    references = [clip.text for clip in clips]
    pairs = {
        system: errors_per_utterance(references, [item.text for item in items], setting.preset)
        for system, items in heard.items()
    }
    errors = {system: [count for count, _ in column] for system, column in pairs.items()}
    words = [count for _, count in next(iter(pairs.values()))]
    named = {column: [clip.columns.get(column, "") for clip in clips] for column in columns}
    split = {column: (names, sorted({*names} - {""})) for column, names in named.items() if any(names)}
    for measure, (edges, unit) in BINS.items():
        if all(measure in clip.measures for clip in clips):
            split[measure] = in_bins([clip.measures[measure] for clip in clips], edges, unit)
    return [
        group_table(column, names, order, errors, words, units_of(clips), setting.replicas, setting.seed)
        for column, (names, order) in split.items()
    ]
