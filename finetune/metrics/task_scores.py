"""Scores of the clips of one task and language: WER or CER of transcriptions, BLEU and chrF of translations.

A set with several tasks or languages has one entry for each of them, because their scores must not be averaged.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from finetune.metrics.blocks import choose_blocks
from finetune.metrics.chrf import chrf, chrf_counts
from finetune.metrics.hallucination import written_language
from finetune.metrics.normalizer import UNSPACED
from finetune.metrics.score_intervals import Statistic, score_difference, score_interval, with_unit
from finetune.metrics.scorecard import Clip, ScoringOptions, SystemOutput, units_of
from finetune.metrics.scores import BlockUnit
from finetune.metrics.significance import Interval, PairedDifference, bootstrap_wer, paired_difference
from finetune.metrics.translation import bleu, bleu_counts, translation_scores
from finetune.metrics.wer import character_distances, error_rate, errors_per_utterance, normalized

Task = Literal["transcribe", "translate"]
Metric = Literal["WER", "CER", "BLEU", "chrF"]
_STATISTICS: dict[Metric, Statistic] = {"BLEU": bleu, "chrF": chrf}  # the others are errors over length


@dataclass(frozen=True)
class TaskScore:
    """A score as a fraction, with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class TaskScores:
    """Scores of one system on the clips of one task and language.

    Attributes:
        task: transcribe or translate.
        language: language of the speech; "" is unknown.
        target_language: language of the text of a translation, else "".
        clips: number of clips that are scored.
        empty_references: clips of a translation without a reference; they are not scored.
        empty_hypotheses: scored clips without text.
        wrong_language: by language (or script), hypotheses that are certainly not written in the language of the text.
        normalizer: the preset of WER and CER; "" for translations, which are scored as written.
        blocks: the unit of the intervals.
        scores: WER and CER; CER alone for text without spaces; BLEU and chrF for translations.
        signatures: of BLEU and chrF, as sacrebleu states them.
    """

    task: Task
    language: str
    target_language: str
    clips: int
    empty_references: int
    empty_hypotheses: int
    wrong_language: dict[str, int]
    normalizer: str
    blocks: BlockUnit
    scores: dict[Metric, TaskScore]
    signatures: dict[Metric, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as `transcribe es` or `translate es-en`."""
        return task_name(self.language, self.target_language)


def task_name(language: str, target_language: str) -> str:
    """The name of a task: `transcribe es`, `translate es-en`; `transcribe` alone if the language is not known."""
    if target_language:
        return f"translate {language}-{target_language}" if language else f"translate to {target_language}"
    return f"transcribe {language}".strip()


def task_scores(clips: Sequence[Clip], outputs: Sequence[SystemOutput], options: ScoringOptions) -> TaskScores:
    """Scores one system on clips that all have the task and the languages of the first clip.

    Translations with an empty reference are not scored; the result counts them.

    Args:
        clips: the clips; at least one.
        outputs: one output for each clip.
        options: the normalizer of WER and CER, and the settings of the bootstrap.

    Raises:
        MissingExtraError: the clips are translations, and sacrebleu is not installed.
    """
    first, chosen = clips[0], _scored(clips)
    items, hypotheses = [clips[i] for i in chosen], [outputs[i].text for i in chosen]
    blocks = choose_blocks(units_of(items or clips))
    scores: dict[Metric, TaskScore] = {}
    for metric, counts in _counts(items, hypotheses, options.preset).items():
        if metric in _STATISTICS:
            value, interval = score_interval(counts, blocks.names, _STATISTICS[metric], options.replicas, options.seed)
        else:
            errors, lengths = ([row[column] for row in counts] for column in (0, 1))
            value = error_rate(sum(errors), sum(lengths))
            interval = bootstrap_wer(errors, lengths, blocks.names, options.replicas, options.seed)
            if metric == "CER":  # clips with nearly equal rates can give an interval without an upper end
                worst = max(map(error_rate, errors, lengths))
                interval = replace(interval, high=min(interval.high, max(1.0, worst)))
        scores[metric] = TaskScore(value, with_unit(interval, blocks.unit))
    written = (
        written_language(item.text, text, item.text_language) for item, text in zip(items, hypotheses, strict=True)
    )
    return TaskScores(
        task="translate" if first.target_language else "transcribe",
        language=first.language,
        target_language=first.target_language,
        clips=len(items),
        empty_references=len(clips) - len(items),
        empty_hypotheses=sum(not text.strip() for text in hypotheses),
        wrong_language=dict(Counter(filter(None, written)).most_common()),
        normalizer="" if first.target_language else options.preset,
        blocks=BlockUnit(blocks.unit, blocks.note, blocks.scope, blocks.speakers),
        scores=scores,
        signatures=_signatures(items, hypotheses),
    )


def task_differences(
    clips: Sequence[Clip], first: Sequence[SystemOutput], second: Sequence[SystemOutput], options: ScoringOptions
) -> dict[Metric, PairedDifference]:
    """For each score of `task_scores`, the second system minus the first; lower WER and CER, higher BLEU and chrF win.

    The interval of BLEU and chrF is a paired bootstrap, the p-value is that of exchanged outputs (`score_intervals`).
    """
    chosen = _scored(clips)
    items, seed = [clips[i] for i in chosen], options.seed
    blocks = choose_blocks(units_of(items or clips))
    a, b = (_counts(items, [outputs[i].text for i in chosen], options.preset) for outputs in (first, second))
    differences: dict[Metric, PairedDifference] = {}
    for metric in a:
        if metric in _STATISTICS:
            pair = score_difference(a[metric], b[metric], blocks.names, _STATISTICS[metric], options.replicas, seed)
        else:
            errors_a, errors_b = ([row[0] for row in counts[metric]] for counts in (a, b))
            lengths = [row[1] for row in a[metric]]
            pair = paired_difference(errors_a, errors_b, lengths, blocks.names, options.replicas, seed)
        differences[metric] = with_unit(pair, blocks.unit)
    return differences


def _scored(clips: Sequence[Clip]) -> list[int]:
    """Indices of the clips without translations whose reference is empty."""
    return [index for index, clip in enumerate(clips) if clip.text.strip() or not clip.target_language]


def _counts(clips: Sequence[Clip], hypotheses: list[str], preset: str) -> dict[Metric, list[list[int]]]:
    """By metric, the counts of each clip, of whose sums the metric is a function; empty without clips."""
    references = [clip.text for clip in clips]
    if not clips:
        return {}
    if clips[0].target_language:
        return {
            "BLEU": bleu_counts(references, hypotheses, clips[0].text_language),
            "chrF": list(map(chrf_counts, references, hypotheses)),
        }
    words = list(map(list, errors_per_utterance(references, hypotheses, preset)))
    if preset in UNSPACED:
        return {"CER": words}
    refs, hyps = normalized(references, hypotheses, preset)
    chars = [[errors, len(text)] for errors, text in zip(character_distances(refs, hyps), refs, strict=True)]
    return {"WER": words, "CER": chars}


def _signatures(clips: Sequence[Clip], hypotheses: list[str]) -> dict[Metric, str]:
    if not clips or not clips[0].target_language:
        return {}
    totals = translation_scores([clip.text for clip in clips], hypotheses, clips[0].text_language)
    return {"BLEU": totals.bleu_signature, "chrF": totals.chrf_signature}
