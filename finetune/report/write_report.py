"""Writes the report of a finished evaluation: `report/report.html`, and `summary.md` for a pull request."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError
from finetune.core.extras import require
from finetune.core.files import read_jsonl, write_text
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import RunDir, damage_is_an_error
from finetune.data.pseudo_labels import count_pseudo_labels
from finetune.data.splits import SPLITS
from finetune.data.style import read_style
from finetune.metrics.alignment import align
from finetune.metrics.hallucination import FLAGS
from finetune.metrics.normalizer import UNSPACED
from finetune.metrics.result_rows import SuspiciousReference, UtteranceResult
from finetune.metrics.results import EvaluationResults, read_results
from finetune.metrics.word_changes import word_changes
from finetune.report import charts
from finetune.report.advice import advise
from finetune.report.charts import ValidationPoint
from finetune.report.clip_lists import EMBEDDED_BYTES, clip_lists
from finetune.report.facts import Facts
from finetune.report.overlap import read_overlap
from finetune.report.page import Content, html, summary
from finetune.report.provenance import command, provenance_rows
from finetune.report.verdict import findings, known_speakers

log = logging.getLogger(__name__)

Record = dict[str, Any]  # a row of metrics.jsonl, or the record of a stage


@dataclass(frozen=True)
class ReportResult:
    """Path of the page, its size in bytes, and the time to write it in seconds."""

    page: str
    size: int
    seconds: float


def write_report(run: RunDir, embedded_bytes: int = EMBEDDED_BYTES) -> ReportResult:
    """Writes the report of a run from the files of its stages.

    Args:
        run: the run directory.
        embedded_bytes: limit of audio in the page; the audio of further clips is linked.

    Raises:
        CheckpointError: the run is not evaluated, a file of it is damaged, or its results have another schema.
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="report")
    started = time.monotonic()
    trained = run.done("train")
    if trained is None or run.done("evaluate") is None or not run.scores.is_file():
        raise CheckpointError(f"{run.root}: this run has not been evaluated; run `finetune evaluate RECIPE` first")
    results, (recipe, _) = read_results(run.scores), load_recipe(run.resolved)
    with damage_is_an_error(run.root, "run `finetune evaluate RECIPE` again"):
        content = _content(run, results, recipe, trained, embedded_bytes)
    page = html(content)
    write_text(run.page, page)
    write_text(run.digest, summary(content))
    log.info("report: %s", run.page)
    return ReportResult(str(run.page), len(page.encode()), round(time.monotonic() - started, 1))


def _content(run: RunDir, results: EvaluationResults, recipe: Recipe, trained: Record, embedded_bytes: int) -> Content:
    every_row = [UtteranceResult(**row) for row in read_jsonl(run.utterances)]
    rows = [row for row in every_row if row.set == "test"]
    suspicious = [SuspiciousReference(**row) for row in read_jsonl(run.suspicious)]
    records = read_jsonl(run.metrics) if run.metrics.is_file() else []
    overlap, preset = read_overlap(run), results.scores["test"].base.normalizer
    references = [row.text for row in rows]
    base, adapted = (
        align(references, texts, preset)
        for texts in ([row.pred_text_base for row in rows], [row.pred_text for row in rows])
    )
    pseudo = {split: number for split in SPLITS if (number := count_pseudo_labels(run.manifest(split)))}
    facts = Facts(results, recipe, _valid(records), overlap, sum(row.errors for row in rows if row.flags), pseudo)
    return Content(
        name=run.root.resolve().name,
        unit="character" if preset in UNSPACED else "word",
        findings=findings(results, overlap, recipe.train.max_canary_loss, known_speakers(rows)),
        advice=advise(facts),
        results=results,
        changes=word_changes(base, adapted),
        lists=clip_lists(every_row, suspicious, preset, run.report, embedded_bytes),
        transcripts=read_style(run.style),
        charts=_charts(results, records, trained),
        meanings=FLAGS,
        absent=_absent(results, recipe),
        provenance=provenance_rows(run, results, recipe, trained, pseudo),
        command=command(run, recipe),
        listed_terms=len(recipe.decode.terms),
    )


def _validations(records: Sequence[Record]) -> list[Record]:
    """Validation of the adapter, without interpolation towards the base."""
    return [row for row in records if row["kind"] == "valid" and row["alpha"] == 1.0]


def _valid(records: Sequence[Record]) -> list[tuple[int, float]]:
    return [(row["epoch"], row["wer"]) for row in _validations(records)]


def _charts(results: EvaluationResults, records: Sequence[Record], trained: Record) -> dict[str, charts.Chart]:
    plots: dict[str, charts.Chart] = {}
    metric = results.scores["test"].adapted.error_name
    for table in results.groups["test"]:
        if table.column == "duration" and sum(row.words > 0 for row in table.rows) > 1:
            plots["duration"] = charts.by_duration(table, metric)
    losses = [(row["step"], row["loss"]) for row in records if row["kind"] == "step" and row["loss"] is not None]
    if len(losses) > 1:
        start = ValidationPoint(0, trained["base_valid_wer"], trained["base_canary_wer"])
        later = [ValidationPoint(row["step"], row["wer"], row["canary_wer"]) for row in _validations(records)]
        plots["learning"] = charts.learning_curve(losses, [start, *later], _metrics(results))
    decoders, scores, decoder = results.decoders, results.scores["test"], results.settings.decoder
    audio = scores.adapted.audio_seconds
    timed = [
        (f"base, {decoder}", scores.base.seconds, scores.base.wer),
        ("adapted, greedy", decoders.greedy_seconds, decoders.greedy_wer),
        ("adapted, speculative", decoders.speculative_seconds, decoders.speculative_wer),
    ]
    if decoder in ("relaxed", "beam"):
        timed.append((f"adapted, {decoder}", scores.adapted.seconds, scores.adapted.wer))
    if scores.adapted.chrf is None and all(seconds for _, seconds, _ in timed):
        plots["speed"] = charts.speed([(name, audio / seconds, wer) for name, seconds, wer in timed], metric)
    return plots


def _metrics(results: EvaluationResults) -> tuple[str, str]:
    """Names of the error rates of valid, which has clips as test, and of the canary."""
    test = results.scores["test"].adapted
    canary = results.scores.get("canary", results.scores["test"]).adapted
    valid, other = ("error" if item.chrf is not None else item.error_name for item in (test, canary))
    return valid, other


def _absent(results: EvaluationResults, recipe: Recipe) -> list[tuple[str, str]]:
    """Title of each missing section, with the reason."""
    terms = results.scores["test"].adapted.terms
    support = terms.seen.support + terms.unseen.support if terms else 0
    no_terms = "no data.terms, and no column terms or keywords in test" if terms is None else "no term occurs in test"
    reasons = [
        ("General speech", "no data.canary", not recipe.data.canary),
        ("Terms", no_terms, not support),
        ("Keyword lists", "evaluate.keyword_lists is empty, or there are no terms", not results.keyword_lists),
        ("Clips without speech", "evaluate.probes is off", not results.probes),
        ("Suspicious references", "no reference disagrees with all models", not results.suspicious),
    ]
    return [(title, reason) for title, reason, missing in reasons if missing]
