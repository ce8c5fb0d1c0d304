"""Runs a recipe from corpora to exported model: the stages in order, each skipped where it is done."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, MissingExtraError, RecipeError
from finetune.core.files import read_json, sha256_file, write_json
from finetune.core.run_dir import CHILD, RunDir
from finetune.training.launch import processes_for, train_on_all

if TYPE_CHECKING:
    from finetune.evaluation.score import ScoreResult

log = logging.getLogger(__name__)

STAGES = ("prepare", "train", "evaluate", "report", "export")
# What a stage reads besides the stages before it; a change there makes it run again.
READS = {
    "prepare": ("data",),
    "train": ("model", "augment", "parts", "train", "seed"),
    "evaluate": ("decode", "evaluate"),
    "report": (),
    "export": ("export",),
}
PEER_GONE = ("Connection closed by peer", "Connection reset by peer")  # so says gloo; NCCL waits to be ended


def run_recipe(recipe: Recipe, last: str) -> RunDir:
    """Runs the stages up to `last` ("export" is all) in `<runs>/<name>` and writes `summary.json` after all of them.

    Raises:
        RecipeError: there is nothing to train on.
        CheckpointError: the directory holds the run of another recipe, or another process works in it.
    """
    if not recipe.data.train:
        raise RecipeError("data.train: nothing to train on; `finetune score` takes a recipe that has data.test alone")
    run = RunDir(f"{recipe.runs}/{recipe.name}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return _train_together(recipe, run, last)
    with run.locked():
        run.claim(_own(recipe))
        write_json(run.resolved, recipe.model_dump(mode="json", exclude_none=True))
        inputs = _inputs(recipe)
        for stage in STAGES[: STAGES.index(last) + 1]:
            done = run.done(stage)
            if done is not None and done.get("inputs") == inputs[stage]:
                log.info("%s: done before", stage)
                continue
            log.info("%s ...", stage)
            run.marker(stage).unlink(missing_ok=True)
            processes = processes_for(recipe) if stage == "train" else 1
            if processes > 1:
                train_on_all(run, processes)
                continue
            try:
                result = asdict(_verb(stage)(recipe, run))
            except MissingExtraError as error:
                if stage != "report":
                    raise
                log.warning("report: skipped: %s; then: finetune report %s", error, run.root)
                continue
            run.finish(stage, {**result, "inputs": inputs[stage]})
        if last == STAGES[-1]:
            write_json(run.summary, summarize(run))
    return run


def score_recipe(recipe: Recipe) -> "ScoreResult":
    """Scores `model.base` on each corpus of `data.test` and keeps all in `<runs>/<name>/score`. Raises as above."""
    from finetune.evaluation.score import score

    run = RunDir(f"{recipe.runs}/{recipe.name}")
    with run.locked():
        run.claim(_own(recipe))
        return score(recipe, run)


def _train_together(recipe: Recipe, run: RunDir, last: str) -> RunDir:
    """One of several processes, started by `launch` or `accelerate launch`: they train; the rest is for one process."""
    if last != "train" or run.done("prepare") is None:
        raise CheckpointError(
            "several processes can only train: run `finetune prepare RECIPE` first, then "
            "`accelerate launch -m finetune train RECIPE`, then `finetune run RECIPE`"
        )
    main, inputs = os.environ.get("RANK", "0") == "0", _inputs(recipe)
    with run.locked() if main and CHILD not in os.environ else nullcontext():
        if main:
            run.claim(_own(recipe))
            done = run.done("prepare")
            if done is not None and done["inputs"] != inputs["prepare"]:
                raise CheckpointError("the corpora or the data section changed since `finetune prepare`; run it again")
        try:
            result = asdict(_verb("train")(recipe, run))
        except RuntimeError as error:
            if not any(words in str(error) for words in PEER_GONE):
                raise
            raise CheckpointError("another of the processes failed, and says why") from error
        if main:
            run.finish("train", {**result, "inputs": inputs["train"]})
    return run


def _own(recipe: Recipe) -> dict[str, Any]:
    """What makes a run directory this recipe's."""
    content = recipe.model_dump(mode="json")
    return {key: content[key] for stage in ("prepare", "train") for key in READS[stage]}


def _verb(stage: str) -> Callable[[Recipe, RunDir], Any]:
    """The stage's function; imported here, because training's imports take ten seconds that others need not pay."""
    if stage == "prepare":
        from finetune.data.prepare import prepare

        return prepare
    if stage == "train":
        from finetune.training.trainer import train

        return train
    if stage == "evaluate":
        from finetune.evaluation.evaluate import evaluate

        return evaluate
    if stage == "report":
        from finetune.report.write_report import write_report

        return lambda recipe, run: write_report(run)
    from finetune.export.export import export

    return export


def _inputs(recipe: Recipe) -> dict[str, str]:
    """By stage: a hash of all settings that it and the stages before it read, and of the corpora's files."""
    content, data = recipe.model_dump(mode="json"), recipe.data
    sources = [Path(source) for source in (*data.train, *data.replay, *data.valid, *data.test, *data.canary)]
    key = "".join(sha256_file(path) for path in sources if path.is_file())
    keys = {}
    for stage in STAGES:
        part = json.dumps([key, *(content[name] for name in READS[stage])], sort_keys=True)
        keys[stage] = key = hashlib.sha256(part.encode()).hexdigest()
    return keys


def summarize(run: RunDir) -> dict[str, Any]:
    """The figures of a finished run, from what its stages recorded; rates are fractions.

    Raises:
        CheckpointError: a stage has not finished.
    """
    records = {stage: run.done(stage) for stage in STAGES}
    missing = [stage for stage, record in records.items() if record is None and stage != "report"]
    if missing:
        raise CheckpointError(f"{run.root}: {missing[0]} has not finished")
    scores = read_json(run.scores)
    train, export = records["train"] or {}, records["export"] or {}
    return {
        **scores["scores"],
        "differences": scores["differences"],
        "decode": scores["decode"],
        "report": (records["report"] or {}).get("page"),
        "export": {key: export[key] for key in ("dir", "max_abs_logit_diff", "transcripts_equal", "dtype")},
        "seconds": {stage: (record or {}).get("seconds") for stage, record in records.items()},
        "parameters": {"total": train["total_parameters"], "trained": train["trained_parameters"]},
    }
