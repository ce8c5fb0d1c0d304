"""Scores a split by task and language: WER or CER of transcriptions, BLEU and chrF of translations."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from finetune.core.extras import require
from finetune.data.manifest import Utterance
from finetune.data.normalizer_choice import normalizer_for
from finetune.evaluation.scoring_sets import by_task
from finetune.evaluation.utterances import clip_of
from finetune.metrics.results import SYSTEMS, TaskResult
from finetune.metrics.scorecard import Clip, ScoringOptions, SystemOutput
from finetune.metrics.task_scores import TaskScores, task_differences, task_scores

log = logging.getLogger(__name__)
Part = tuple[list[Clip], list[int], ScoringOptions]  # clips of one task, their indices, and how they are scored


def require_translation_scorer(utterances: Sequence[Utterance]) -> None:
    """Raises MissingExtraError before any work if there are translations and sacrebleu is not installed."""
    if any(item.is_translation for item in utterances):
        require("sacrebleu.metrics", extra="st")


def compare_tasks(
    name: str, utterances: Sequence[Utterance], outputs: Mapping[str, Sequence[SystemOutput]], options: ScoringOptions
) -> list[TaskResult]:
    """Scores base and adapted model by task and language; empty for one language without translations.

    Args:
        name: the split, for the log.
        utterances: its utterances.
        outputs: by system, one output for each utterance.
        options: how to score; the normalizer is chosen for each task.
    """
    results = []
    for clips, indices, scoring in _parts(utterances, options):
        base, adapted = ([outputs[system][i] for i in indices] for system in SYSTEMS)
        result = TaskResult(
            base=task_scores(clips, base, scoring),
            adapted=task_scores(clips, adapted, scoring),
            differences=task_differences(clips, base, adapted, scoring),
        )
        for system, scores in result.items():
            log.info("%-6s %-7s %s", name, system, task_line(scores))
        results.append(result)
    return results


def split_tasks(
    utterances: Sequence[Utterance], outputs: Sequence[SystemOutput], options: ScoringOptions
) -> list[TaskScores]:
    """Scores one system by task and language; empty for one language without translations."""
    return [
        task_scores(clips, [outputs[i] for i in indices], scoring)
        for clips, indices, scoring in _parts(utterances, options)
    ]


def _parts(utterances: Sequence[Utterance], options: ScoringOptions) -> Iterator[Part]:
    tasks = by_task(utterances)
    if len(tasks) == 1 and not any(target for _, target in tasks):
        return
    for indices in tasks.values():
        items = [utterances[i] for i in indices]
        clips = [clip_of(item, "", measure_audio=False) for item in items]
        yield clips, indices, replace(options, preset=normalizer_for(items, options.preset))


def task_line(scores: TaskScores) -> str:
    """One line: the task, its scores with intervals, and the number of texts in another language."""
    parts = [
        f"{metric} {100 * score.value:.1f}{' %' * (metric in ('WER', 'CER'))} (95 %: {100 * score.interval.low:.1f} to "
        f"{100 * score.interval.high:.1f})"
        for metric, score in scores.scores.items()
    ]
    if scores.wrong_language:
        languages = ", ".join(f"{count} {language}" for language, count in scores.wrong_language.items())
        parts.append(f"in another language: {languages}")
    if scores.empty_references:
        parts.append(f"not scored, because the reference is empty: {scores.empty_references}")
    return f"{scores.name}, clips {scores.clips}: {', '.join(parts)}"
