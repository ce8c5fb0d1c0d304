"""A finished evaluation as one page a person can act on: `report/report.html`, and `summary.md` for a pull request."""

import logging
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from finetune.core.errors import CheckpointError
from finetune.core.extras import require
from finetune.core.files import read_json, read_jsonl, sha256_file, write_text
from finetune.core.run_dir import SCHEMA, RunDir
from finetune.metrics.alignment import align
from finetune.metrics.hallucination import FLAGS
from finetune.metrics.normalizer import UNSPACED
from finetune.metrics.word_changes import word_changes
from finetune.report import charts, verdict
from finetune.report.advice import advise
from finetune.report.clip_lists import clip_lists
from finetune.report.facts import Facts
from finetune.report.page import Content, html, summary
from finetune.report.wording import count

log = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class ReportResult:
    """Where the page lies, and its size."""

    page: str
    size: int
    seconds: float


def write_report(run: RunDir) -> ReportResult:
    """Writes the report of a run from the files that its stages left.

    Raises:
        CheckpointError: the run has not been evaluated, or by another version.
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="report")
    started = time.monotonic()
    trained = run.done("train")
    if trained is None or run.done("evaluate") is None or not run.scores.is_file():
        raise CheckpointError(f"{run.root}: nothing to report yet; `finetune evaluate RECIPE` comes first")
    metrics = read_json(run.scores)
    if metrics["schema"] != SCHEMA:
        raise CheckpointError(
            f"{run.scores}: of another version (schema {metrics['schema']}, not {SCHEMA}); delete "
            f"{run.marker('evaluate')} and run the recipe again"
        )
    recipe, rows = read_json(run.resolved), [row for row in read_jsonl(run.utterances) if row["set"] == "test"]
    records = read_jsonl(run.metrics) if run.metrics.is_file() else []
    leaked = _leaked(run)
    facts = Facts(metrics, recipe, _valid(records), leaked, sum(row["errors"] for row in rows if row["flags"]))
    findings = [
        verdict.domain(metrics),
        verdict.forgetting(metrics, recipe["train"].get("max_canary_loss")),
        verdict.hallucination(metrics),
        verdict.leak(leaked, len({row["speaker"] for row in rows} - {""})),
    ]
    preset = metrics["settings"]["normalizer"]
    changes = word_changes(
        *(
            align([row["text"] for row in rows], [row[key] for row in rows], preset)
            for key in ("pred_text_base", "pred_text")
        )
    )
    command = shlex.join(["finetune", "run", str(run.resolved), "--set", f"name={recipe['name']}-again"])
    content = Content(
        name=run.root.resolve().name,
        unit="character" if preset in UNSPACED else "word",
        findings=findings,
        advice=advise(facts),
        sets=list(metrics["scores"]),
        metrics=metrics,
        changes=asdict(changes),
        lists=clip_lists(rows, read_jsonl(run.suspicious), preset, run.report),
        charts=_charts(metrics, records, trained),
        meanings=FLAGS,
        absent=_absent(metrics, recipe),
        provenance=_provenance(run, metrics, recipe, trained),
        command=command,
    )
    page = html(content)
    write_text(run.page, page)
    write_text(run.digest, summary(content))
    log.info("report: %s", run.page)
    return ReportResult(str(run.page), len(page.encode()), round(time.monotonic() - started, 1))


def _leaked(run: RunDir) -> dict[str, int]:
    """What the audit found test to have in common with train and replay."""
    found = read_json(run.problems)["test"]["warnings"]
    kinds = {"sentences": "sentence also in", "audio": "audio file also in", "speakers": "speaker also in"}
    named = {key: [problem for problem in found if problem["kind"].startswith(kind)] for key, kind in kinds.items()}
    clips = {key: len({problem["id"] for problem in named[key]}) for key in kinds}
    voices = {problem["detail"].partition(", as in ")[0] for problem in named["speakers"]}
    return {
        **clips,
        "speakers": len(voices),
        "clips": len({problem["id"] for key in ("sentences", "audio") for problem in named[key]}),
    }


def _valid(records: Iterable[Row]) -> list[tuple[int, float]]:
    return [(row["epoch"], row["wer"]) for row in records if row["kind"] == "valid" and row["alpha"] == 1.0]


def _charts(metrics: Mapping[str, Any], records: Sequence[Row], trained: Mapping[str, Any]) -> dict[str, charts.Chart]:
    found: dict[str, charts.Chart] = {}
    for table in metrics["groups"]["test"]:
        if table["column"] == "duration" and len(table["rows"]) > 1:
            found["duration"] = charts.by_duration(table)
    losses = [(row["step"], row["loss"]) for row in records if row["kind"] == "step" and row["loss"] is not None]
    if len(losses) > 1:
        before = {"step": 0, "wer": trained["base_valid_wer"], "canary_wer": trained["base_canary_wer"]}
        found["learning"] = charts.learning_curve(
            losses, [before, *(row for row in records if row["kind"] == "valid" and row["alpha"] == 1.0)]
        )
    decode, scores = metrics["decode"], metrics["scores"]["test"]
    audio = scores["adapted"]["audio_seconds"]
    timed = [
        (f"base, {metrics['settings']['decoder']}", scores["base"]["seconds"], scores["base"]["wer"]),
        *((f"adapted, {name}", decode[f"{name}_seconds"], decode[f"{name}_wer"]) for name in ("greedy", "speculative")),
    ]
    if metrics["settings"]["decoder"] == "relaxed":
        timed.append(("adapted, relaxed", scores["adapted"]["seconds"], scores["adapted"]["wer"]))
    if all(seconds for _, seconds, _ in timed):
        found["speed"] = charts.speed([(name, audio / seconds, wer) for name, seconds, wer in timed])
    return found


def _absent(metrics: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, test = recipe["data"], metrics["scores"]["test"]["adapted"]
    said = sum(test["terms"][kind]["support"] for kind in ("seen", "unseen")) if "terms" in test else 0
    reasons = [
        ("General speech", "data.canary names no manifest", not data.get("canary")),
        (
            "Terms",
            "there is neither data.terms nor a column of terms or keywords in test"
            if "terms" not in test
            else "none of the terms was said in test",
            not said,
        ),
        (
            "Keywords in the prompt",
            "evaluate.keyword_lists is empty, or there are no terms",
            not metrics["keyword_lists"],
        ),
        ("Clips without speech", "evaluate.probes is off", not metrics["probes"]),
        ("Suspicious references", "no reference stands alone against what was heard", not metrics["suspicious"]),
    ]
    return [(title, reason) for title, reason, missing in reasons if missing]


def _provenance(
    run: RunDir, metrics: Mapping[str, Any], recipe: Mapping[str, Any], trained: Mapping[str, Any]
) -> list[tuple[str, str]]:
    made, prepared, origin = metrics["provenance"], run.done("prepare") or {}, run.checkpoint / "origin.json"
    settings, model = metrics["settings"], recipe["model"]
    decode = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in recipe["decode"].items()
        if settings["decoder"] == "relaxed" or key not in ("max_entropy", "min_probability")
    )
    base = f", fingerprint {read_json(origin)['base']}" if origin.is_file() else ""
    best = sorted(run.best.glob("*.safetensors"))
    return [
        ("Base model", model["base"] + (f" at {model['revision']}" if model.get("revision") else "") + base),
        (
            "Adapter",
            f"epoch {trained['best_epoch']}, {100 * trained['best_alpha']:g} % of the way from the base, "
            f"{trained['trained_parameters']:,} of {trained['total_parameters']:,} parameters trained",
        ),
        *((f"SHA-256 of {path.name}", sha256_file(path)) for path in best),
        *(
            (
                f"SHA-256 of {split}.jsonl",
                f"{value} ({count(prepared['kept'][split], 'clip')}, {prepared['hours'][split]:.2f} h)",
            )
            for split, value in prepared.get("hashes", {}).items()
        ),
        ("Prompt", settings["instruction"]),
        ("Decoding", decode),
        ("Normalizer", settings["normalizer"]),
        ("Bootstrap", f"{settings['replicas']:,} replicas"),
        ("Weights", made["dtype"]),
        ("Machine", made["device"]),
        ("Seed", str(settings["seed"])),
        ("Toolkit", f"finetune {made['toolkit']}" + (f", commit {made['commit']}" if made["commit"] else "")),
        (
            "Libraries",
            ", ".join(
                [f"Python {made['python']}", *(f"{name} {version}" for name, version in made["libraries"].items())]
            ),
        ),
        ("Evaluated", made["made"]),
    ]
