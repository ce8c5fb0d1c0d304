"""What the trackers of a recipe receive after an evaluation: the scores, tables and clips of the report."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any

import numpy as np

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import read_jsonl
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.audio_state import has_bytes
from finetune.metrics.groups import GroupTable
from finetune.metrics.result_rows import SuspiciousReference, UtteranceResult
from finetune.metrics.results import SYSTEMS, EvaluationResults, read_results
from finetune.metrics.scorecard import BINS
from finetune.metrics.scores import Scores
from finetune.report import tables, verdict
from finetune.report.clip_lists import EMBEDDED_SECONDS, Row, choose_clips
from finetune.report.overlap import limited_to_speakers, read_overlap
from finetune.tracking.trackers import Cell, Sound, Table, TrackedResults, call_each, close_trackers, open_trackers

log = logging.getLogger(__name__)

MAX_SECONDS = 600.0  # of audio that is sent
LISTS = ("worst", "broken", "fixed", "unspoken", "language", "suspicious")  # in the order in which audio is sent


def track_results(recipe: Recipe, run: RunDir) -> None:
    """Sends the results of an evaluated run to the trackers of the recipe. A failure is a warning."""
    if not recipe.machine.trackers:
        return
    try:
        results, step = tracked_results(recipe, run), last_step(run)
    except Exception as error:
        log.warning("the trackers receive no results: %s", error)
        return
    settings = recipe.model_dump(mode="json")
    trackers = open_trackers(recipe.machine.trackers, run.root, recipe.name, settings, step)
    call_each(trackers, lambda tracker: tracker.log_results(results, step))
    close_trackers(trackers)


def last_step(run: RunDir) -> int:
    """The last optimizer step of the training."""
    rows = read_jsonl(run.metrics) if run.metrics.is_file() else []
    return max((row["step"] for row in rows if row["kind"] == "step"), default=0)


def tracked_results(recipe: Recipe, run: RunDir) -> TrackedResults:
    """The numbers and tables of a run; terms, transcripts and audio as `machine.tracker_samples` allows.

    Raises:
        CheckpointError: the results cannot be read.
    """
    results, samples = read_results(run.scores), recipe.machine.tracker_samples
    by_name = {
        "verdict": _verdict(limited_to_speakers(results, read_overlap(run)), recipe),
        "scores": _scores(results),
        "differences": _differences(results),
        **_groups(results.groups["test"], private=samples != "none"),
    }
    if rows := tables.tasks(results.tasks):
        by_name["tasks"] = Table(
            ("split", "task", "clips", "metric", "base", "adapted", "difference", "low", "high", "p"),
            [
                (
                    row.split,
                    row.task,
                    row.clips,
                    row.metric,
                    row.base.value,
                    row.adapted.value,
                    *_interval(row.difference),
                )
                for row in rows
            ],
        )
    sounds: list[Sound] = []
    if samples != "none":
        details = results.details["test"]
        by_name["terms"] = _records(tables.TermComparison, tables.terms(details.base.terms, details.adapted.terms))
        confusions = tables.confusions(details.base.confusions, details.adapted.confusions)
        by_name["confusions"] = _records(tables.ConfusionComparison, confusions)
        suspicious = [SuspiciousReference(**row) for row in read_jsonl(run.suspicious)]
        chosen = choose_clips([UtteranceResult(**row) for row in read_jsonl(run.utterances)], suspicious)
        clips = [(name, row) for name in LISTS for row in chosen[name]]
        by_name["clips"] = _clips(clips)
        sounds = list(_sounds(clips)) if samples == "audio" else []
    return TrackedResults(
        dict(_numbers(results, run.done("train") or {})),
        {key: table for key, table in by_name.items() if table.rows},
        sounds,
    )


def _numbers(results: EvaluationResults, trained: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each score with the ends of its interval; rates are fractions."""
    for split in ("valid", "canary"):
        for system, key in (("base", f"base_{split}_wer"), ("adapted", f"best_{split}_wer")):
            if trained.get(key) is not None:
                yield f"selection/{split}/{system}/wer", trained[key]
    for name, both in results.scores.items():
        prefix = f"results/{name.replace(': ', '/')}"
        for system, scores in both.items():
            for metric, (value, low, high) in _metrics(scores).items():
                yield from _with_ends(f"{prefix}/{system}/{metric}", value, low, high)
        difference = results.differences[name]
        yield from _with_ends(f"{prefix}/difference", difference.difference, difference.low, difference.high)
        yield f"{prefix}/p_value", difference.p_value
    for system, probes in (results.probes or {}).items():
        yield f"results/probes/{system}/clips_with_words", probes.with_output
        yield f"results/probes/{system}/words_per_minute", probes.words_per_minute


def _with_ends(name: str, value: float, low: float | None, high: float | None) -> Iterator[tuple[str, float]]:
    yield name, value
    if low is not None and high is not None:
        yield f"{name}_low", low
        yield f"{name}_high", high


def _metrics(scores: Scores) -> dict[str, tuple[float, float | None, float | None]]:
    """By metric: the value and its interval."""
    metrics: dict[str, tuple[float, float | None, float | None]] = {}
    if scores.chrf is None:
        metrics["wer"] = (scores.wer, scores.interval.low, scores.interval.high)
        metrics["cer"] = (scores.cer, None, None)
    else:
        metrics["chrf"] = (scores.chrf, None, None)
    for kind in ("seen", "unseen"):
        terms = getattr(scores.terms, kind, None)
        if terms is not None and terms.recall is not None:
            metrics[f"term_recall_{kind}"] = (terms.recall, terms.low, terms.high)
    if scores.rtfx is not None:
        metrics["rtfx"] = (scores.rtfx, None, None)
    return metrics


def _verdict(results: EvaluationResults, recipe: Recipe) -> Table:
    findings = [
        verdict.domain(results),
        verdict.translation(results),
        verdict.forgetting(results, recipe.train.max_canary_loss),
        verdict.hallucination(results),
    ]
    return Table(
        ("subject", "verdict", "detail", "caveat"),
        [(item.subject, item.headline, item.detail, item.caveat) for item in findings if item],
    )


def _scores(results: EvaluationResults) -> Table:
    return Table(
        ("set", "system", "clips", "words", "metric", "value", "low", "high"),
        [
            (name, system, scores.utterances, scores.reference_words, metric, *values)
            for name, both in results.scores.items()
            for system, scores in both.items()
            for metric, values in _metrics(scores).items()
        ],
    )


def _differences(results: EvaluationResults) -> Table:
    return Table(
        ("set", "metric", "difference", "low", "high", "p", "p (Holm)", "holds for"),
        [(name, row.metric, *_interval(row), row.p_holm, row.scope) for name, row in results.differences.items()],
    )


def _interval(row: Any) -> tuple[float, float, float, float]:
    return row.difference, row.low, row.high, row.p_value


def _groups(group_tables: Sequence[GroupTable], private: bool) -> dict[str, Table]:
    """WER by group. The names of groups of a manifest's column, such as speakers, are private."""
    columns = ("group", "clips", "words", "base", "base low", "base high", "adapted", "adapted low", "adapted high")

    def cells(row: Any) -> Iterator[Cell]:
        yield from (row.name, row.clips, row.words)
        for system in SYSTEMS:
            yield from (row.wer[system], row.interval[system].low, row.interval[system].high)

    return {
        f"groups/{table.column}": Table(columns, [tuple(cells(row)) for row in table.rows])
        for table in group_tables
        if private or table.column in BINS
    }


def _records(kind: Any, rows: Sequence[Any]) -> Table:
    """Dataclasses as a table with the names of their fields."""
    return Table([item.name.replace("_", " ") for item in fields(kind)], [astuple(row) for row in rows])


def _clips(clips: Sequence[tuple[str, Row]]) -> Table:
    columns = (
        "list",
        "id",
        "seconds",
        "words",
        "errors base",
        "errors adapted",
        "reference",
        "base",
        "adapted",
        "flags",
    )
    return Table(columns, [_clip(name, row) for name, row in clips])


def _clip(name: str, row: Row) -> tuple[Cell, ...]:
    texts = (row.text, row.pred_text_base, row.pred_text)
    if isinstance(row, SuspiciousReference):
        return (name, row.id, row.duration, None, None, None, *texts, f"suspicion {row.suspicion:.2f}")
    return (name, row.id, row.duration, row.words, row.errors_base, row.errors, *texts, ", ".join(row.flags))


def _sounds(clips: Sequence[tuple[str, Row]]) -> Iterator[Sound]:
    """The audio of the clips, once each, up to `MAX_SECONDS`; what is missing or too long is named in the log."""
    sent, left, left_out = set[tuple[str, float, int | None]](), MAX_SECONDS, 0
    for name, row in clips:
        key = (row.audio_filepath, row.offset, row.channel)
        if key in sent:
            continue
        sent.add(key)
        if row.duration > min(left, EMBEDDED_SECONDS) or not has_bytes(row.audio_filepath):
            left_out += 1
            continue
        try:
            samples = load_audio(row.audio_filepath, row.offset, row.duration, row.channel)
        except DataError as error:
            log.warning("the trackers have no audio for clip %s: %s", row.id, error)
            continue
        left -= row.duration
        pcm = np.round(samples.clip(-1, 1) * (2**15 - 1)).astype(np.int16)
        yield Sound(f"{name}: {row.id}", row.text, pcm, SAMPLE_RATE)
    if left_out:
        log.info(
            "trackers: %s sent without audio: it is missing, longer than %g s, or more than %g s in all",
            count(left_out, "clip"),
            EMBEDDED_SECONDS,
            MAX_SECONDS,
        )
