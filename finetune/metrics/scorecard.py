"""Computes all scores of one set of utterances, for the models of a run and for hypotheses in a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from finetune.core.languages import row_language
from finetune.metrics.alignment import align, confusions, count_errors, count_words
from finetune.metrics.blocks import Blocks, choose_blocks
from finetune.metrics.chrf import chrf, chrf_counts, chrf_error
from finetune.metrics.groups import GroupTable, group_table, in_bins
from finetune.metrics.hallucination import false_keywords, flags
from finetune.metrics.mapsswe import Mapsswe, mapsswe
from finetune.metrics.score_intervals import score_difference, share_interval, with_unit
from finetune.metrics.scores import (
    BlockUnit,
    Comparison,
    Details,
    EmptyReferences,
    NormalizerChange,
    PromptedKeywords,
    Scorecard,
    Scores,
    SubsetWer,
    TermRow,
    TermsBySeen,
    TermScores,
)
from finetune.metrics.significance import bootstrap_wer, paired_difference
from finetune.metrics.terms import TermCounts, TermRecall, count_terms, summarize
from finetune.metrics.translation import TranslationScores, translation_scores
from finetune.metrics.wer import changed_by_normalizer, errors_per_utterance, score
from finetune.metrics.words import by_frequency, entities, numeral_errors, style

EMPTY_IDS = 20  # ids of utterances with words and an empty reference
CONFUSIONS = 100  # rows in the list of confusions
BINS = {  # by measure, the edges of the bins and the unit
    "duration": ((1.0, 2.0, 5.0, 10.0, 20.0), "s"),
    "bandwidth": ((3600.0, 5500.0), "Hz"),
    "snr": ((5.0, 15.0, 25.0), "dB"),
}


@dataclass(frozen=True)
class Clip:
    """The part of an utterance that scoring needs.

    Attributes:
        duration: seconds.
        keywords: keywords of the clip's prompt.
        target_language: language of the reference if it is a translation, else "".
        language: language of the speech; "" is unknown.
        columns: columns of the manifest, as text.
        measures: measured properties of the audio, by name in `BINS`.
    """

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
    language: str = ""

    @property
    def text_language(self) -> str:
        """The two-letter code of the language of the reference; "" if it is not known."""
        return row_language(self.target_language or self.language)


@dataclass(frozen=True)
class SystemOutput:
    """A hypothesis, the seconds of its recognition (0 is unknown), and whether it reached the limit of tokens."""

    text: str
    seconds: float
    truncated: bool


@dataclass(frozen=True)
class ScoringOptions:
    """Options of the scores.

    Attributes:
        preset: normalizer, a name in `NORMALIZERS`.
        replicas: number of bootstrap replicas.
        seed: seed of the bootstrap.
        terms: terms of the domain.
        seen: the terms that occur in the training texts.
        trained: number of occurrences of each word in the training texts.
    """

    preset: str
    replicas: int
    seed: int
    terms: tuple[str, ...]
    seen: frozenset[str]
    trained: Mapping[str, int]


def units_of(clips: Sequence[Clip]) -> dict[str, list[str]]:
    """The units that the bootstrap can resample, for `significance.choose_blocks`."""
    return {
        "speaker": [clip.speaker for clip in clips],
        "recording": [clip.recording for clip in clips],
        "utterance": [clip.id for clip in clips],
    }


def flags_of(clips: Sequence[Clip], outputs: Sequence[SystemOutput], preset: str) -> list[tuple[str, ...]]:
    """The flags of each hypothesis (`hallucination.FLAGS`)."""
    return [
        flags(
            clip.text,
            output.text,
            duration=clip.duration,
            instruction=clip.instruction,
            keywords=clip.keywords,
            truncated=output.truncated,
            preset=preset,
            language=clip.text_language,
        )
        for clip, output in zip(clips, outputs, strict=True)
    ]


def scorecard(clips: Sequence[Clip], outputs: Sequence[SystemOutput], options: ScoringOptions) -> Scorecard:
    """Scores one system on one set. Every word of a hypothesis whose reference is empty is an insertion.

    Raises:
        DataError: there are no clips, or `outputs` has another length.
    """
    preset = options.preset
    references, hypotheses = [clip.text for clip in clips], [output.text for output in outputs]
    counts = score(references, hypotheses, preset)
    rows, flagged = align(references, hypotheses, preset), flags_of(clips, outputs, preset)
    errors, words = [count_errors(edits) for edits in rows], [count_words(edits) for edits in rows]
    blocks = choose_blocks(units_of(clips))
    unflagged = [index for index, names in enumerate(flagged) if not names]
    audio, seconds = sum(clip.duration for clip in clips), sum(output.seconds for output in outputs)
    raw = score(references, hypotheses, "none")
    term_counts = count_terms(references, hypotheses, list(options.terms), preset) if options.terms else None
    scores = Scores(
        **vars(counts),
        interval=with_unit(bootstrap_wer(errors, words, blocks.names, options.replicas, options.seed), blocks.unit),
        blocks=BlockUnit(blocks.unit, blocks.note, blocks.scope, blocks.speakers),
        normalizer=preset,
        raw_wer=raw.wer,
        raw_cer=raw.cer,
        utterances=len(clips),
        utterances_wrong=sum(count > 0 for count in errors),
        prompted=_prompted_keywords(clips, preset),
        truncated=sum(output.truncated for output in outputs),
        empty_hypotheses=sum(not output.text.strip() for output in outputs),
        flags={name: sum(name in names for names in flagged) for name in sorted({*sum(flagged, ())})},
        without_flagged=SubsetWer.of(unflagged, errors, words),
        frequency=by_frequency(rows, options.trained, preset),
        entities=entities(references, hypotheses, preset, [clip.text_language for clip in clips]),
        numerals=numeral_errors(rows, [clip.text_language for clip in clips]),
        style=style(references, hypotheses),
        audio_seconds=round(audio, 3),
        seconds=round(seconds, 3),
        rtfx=round(audio / seconds, 2) if seconds else None,
        terms=term_scores(term_counts, blocks, options) if term_counts else None,
        translation=_translation(clips, hypotheses),
        empty_references=_empty_references(clips, errors, words),
        chrf=_chrf(clips, hypotheses),
    )
    details = Details(
        confusions(rows, CONFUSIONS),
        _normalizer_changes(clips, references, "reference", preset)
        + _normalizer_changes(clips, hypotheses, "hypothesis", preset),
        _term_rows(term_counts.rows(), options) if term_counts else [],
    )
    return Scorecard(scores, details)


def _empty_references(clips: Sequence[Clip], errors: Sequence[int], words: Sequence[int]) -> EmptyReferences:
    """Counts insertions on utterances without reference words."""
    empty = [index for index, count in enumerate(words) if not count]
    wrong = [index for index in empty if errors[index]]
    ids = [clips[index].id for index in wrong[:EMPTY_IDS]]
    return EmptyReferences(len(empty), len(wrong), sum(errors[index] for index in wrong), ids)


def _prompted_keywords(clips: Sequence[Clip], preset: str) -> PromptedKeywords:
    return PromptedKeywords(
        sum(bool(clip.keywords) for clip in clips),
        sum(bool(false_keywords("", clip.text, clip.keywords, preset)) for clip in clips),
    )


def _normalizer_changes(
    clips: Sequence[Clip], texts: list[str], side: Literal["reference", "hypothesis"], preset: str
) -> list[NormalizerChange]:
    return [NormalizerChange(clips[i].id, side, texts[i]) for i in changed_by_normalizer(texts, preset)]


def term_scores(counts: TermCounts, blocks: Blocks, options: ScoringOptions) -> TermsBySeen:
    """Recall of terms in the training texts and of other terms; intervals come from the fraction of missed terms."""

    def summary(seen: bool) -> TermScores:
        chosen = [row for row in counts.rows() if (row.term in options.seen) == seen]
        total = summarize(chosen)
        if not total.support:
            return TermScores(**vars(total))
        misses = counts.misses(row.term for row in chosen)
        missed = with_unit(share_interval(*misses, blocks.names, options.replicas, options.seed), blocks.unit)
        return TermScores(**vars(total), low=max(0.0, 1 - missed.high), high=1 - missed.low, note=missed.note)

    return TermsBySeen(summary(True), summary(False))


def _term_rows(rows: Sequence[TermRecall], options: ScoringOptions) -> list[TermRow]:
    return [TermRow(**vars(row), seen=row.term in options.seen) for row in rows if row.support or row.false_alarms]


def _translation(clips: Sequence[Clip], hypotheses: Sequence[str]) -> dict[str, TranslationScores]:
    scored = {i: clip.target_language for i, clip in enumerate(clips) if clip.target_language and clip.text.strip()}
    members = {lang: [i for i, name in scored.items() if name == lang] for lang in sorted({*scored.values()})}
    return {
        language: translation_scores([clips[i].text for i in chosen], [hypotheses[i] for i in chosen], language)
        for language, chosen in members.items()
    }


def _chrf(clips: Sequence[Clip], hypotheses: Sequence[str]) -> float | None:
    """chrF of a set of translations; None with transcriptions."""
    if not all(clip.target_language for clip in clips):
        return None
    return 1.0 - chrf_error([chrf_counts(clip.text, text) for clip, text in zip(clips, hypotheses, strict=True)])


def comparison(
    clips: Sequence[Clip], first: Sequence[SystemOutput], second: Sequence[SystemOutput], options: ScoringOptions
) -> Comparison:
    """Compares the second system with the first on one set: the sign-flip test, and MAPSSWE as a second test.

    A set of translations is compared by 1 - chrF.
    """
    if all(clip.target_language for clip in clips):
        return _translation_comparison(clips, first, second, options)
    references = [clip.text for clip in clips]
    rows = [align(references, [output.text for output in outputs], options.preset) for outputs in (first, second)]
    errors = [[count_errors(edits) for edits in aligned] for aligned in rows]
    words = [count_words(edits) for edits in rows[0]]
    blocks = choose_blocks(units_of(clips))
    pair = paired_difference(errors[0], errors[1], words, blocks.names, options.replicas, options.seed)
    pair = with_unit(pair, blocks.unit)
    return Comparison(**vars(pair), mapsswe=mapsswe(rows[0], rows[1]), scope=blocks.scope, speakers=blocks.speakers)


def _translation_comparison(
    clips: Sequence[Clip], first: Sequence[SystemOutput], second: Sequence[SystemOutput], options: ScoringOptions
) -> Comparison:
    """Compares 1 - chrF; a translation without a reference is not scored, and is no block either."""
    chosen = [index for index, clip in enumerate(clips) if clip.text.strip()]
    scored = chosen or range(len(clips))
    blocks = choose_blocks(units_of([clips[index] for index in scored]))
    counts = [[chrf_counts(clips[index].text, outputs[index].text) for index in scored] for outputs in (first, second)]
    pair = score_difference(counts[0], counts[1], blocks.names, chrf, options.replicas, options.seed)
    pair = with_unit(pair, blocks.unit)
    return Comparison(
        difference=-pair.difference,
        low=-pair.high,
        high=-pair.low,
        probability_better=pair.probability_better,
        p_value=pair.p_value,
        detectable=pair.detectable,
        blocks=pair.blocks,
        note=pair.note if chosen else "no translation has a reference, so nothing was scored",
        mapsswe=Mapsswe(0, 0.0, None, None, "not defined for translations"),
        scope=blocks.scope,
        speakers=blocks.speakers,
        metric="1 - chrF",
    )


def group_tables(
    clips: Sequence[Clip],
    outputs: Mapping[str, Sequence[SystemOutput]],
    columns: Sequence[str],
    options: ScoringOptions,
) -> list[GroupTable]:
    """A table for each column that a clip has, and for each measure that all clips have.

    Args:
        clips: the set.
        outputs: outputs of each system.
        columns: columns of the manifest.
        options: scoring options.
    """
    references = [clip.text for clip in clips]
    pairs = {
        system: errors_per_utterance(references, [item.text for item in items], options.preset)
        for system, items in outputs.items()
    }
    errors = {system: [count for count, _ in column] for system, column in pairs.items()}
    words = [count for _, count in next(iter(pairs.values()))]
    named = {column: [clip.columns.get(column, "") for clip in clips] for column in columns}
    split = {column: (names, sorted({*names} - {""})) for column, names in named.items() if any(names)}
    for measure, (edges, unit) in BINS.items():
        if all(measure in clip.measures for clip in clips):
            split[measure] = in_bins([clip.measures[measure] for clip in clips], edges, unit)
    return [
        group_table(column, names, order, errors, words, units_of(clips), options.replicas, options.seed)
        for column, (names, order) in split.items()
    ]
