"""Runs the stages of a recipe in order, from corpora to exported model; completed stages are skipped."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.core.config import Recipe
from finetune.core.defaults import without_new_defaults
from finetune.core.errors import CheckpointError, MissingExtraError, RecipeError
from finetune.core.recipe import save_recipe
from finetune.core.run_dir import CHILD, RunDir
from finetune.data.corpus_state import corpus_state
from finetune.data.effects.sources import check_augmentation
from finetune.data.splits import SCORED_SPLITS, SPLITS
from finetune.metrics.keyword_terms import sampling_inputs
from finetune.metrics.results import ExportSummary, ParameterCounts, RunSummary, read_results, write_model
from finetune.training.finished import BASE, base_weights, require_best, require_same_base
from finetune.training.launch import PATIENCE, agree_with_main_rank, is_elastic, processes_for, train_on_all, world_size

log = logging.getLogger(__name__)

Check = Callable[[Recipe, RunDir, int], None]  # of a prepared training, with the number of its processes
CORPORA = "corpora"  # in the record of `prepare`, the state of the files of each split
PEER_GONE = ("Connection closed by peer", "Connection reset by peer")  # messages of gloo when another rank has failed


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: As in `<name>.done.json`.
        reads: Sections of the recipe that it reads, in addition to those of earlier stages; a change in them reruns it.
        run: Runs the stage; returns a dataclass, which is recorded.
        optional: Skipped with a warning if its extra is not installed.
    """

    name: str
    reads: tuple[str, ...]
    run: Callable[[Recipe, RunDir], Any]
    optional: bool = False


# The imports are inside these functions because the imports for training take ten seconds.
def _prepare(recipe: Recipe, run: RunDir) -> Any:
    from finetune.data.prepare import prepare

    return prepare(with_long_clips_cut(recipe, run), run)


def with_long_clips_cut(recipe: Recipe, run: RunDir) -> Recipe:
    """The recipe for `prepare`."""
    if recipe.data.too_long == "drop":
        return recipe
    from finetune.curation.long_clips import segment_long

    return segment_long(recipe, run)


def _train(recipe: Recipe, run: RunDir) -> Any:
    from finetune.training.trainer import train

    return train(recipe, run)


def _evaluate(recipe: Recipe, run: RunDir) -> Any:
    from finetune.evaluation.evaluate import evaluate
    from finetune.evaluation.shared_decoding import SharedDecoding
    from finetune.training.corpus import manifests_of
    from finetune.training.launch import processes_for

    manifests_of(recipe, run, SCORED_SPLITS)  # a set whose manifest was deleted would be left out without a word
    require_best(run)
    with SharedDecoding(processes_for(recipe)) as backend:
        return evaluate(recipe, run, backend)


def _report(recipe: Recipe, run: RunDir) -> Any:
    from finetune.report.write_report import write_report

    return write_report(run)


def _export(recipe: Recipe, run: RunDir) -> Any:
    from finetune.exporting.export import export

    require_best(run)
    return export(recipe, run)


STAGES = (
    Stage("prepare", ("data",), _prepare),
    Stage("train", ("model", "augment", "parts", "train", "seed"), _train),
    Stage("evaluate", ("decode", "evaluate"), _evaluate),
    Stage("report", (), _report, optional=True),
    Stage("export", ("export",), _export),
)
STAGE_NAMES = [stage.name for stage in STAGES]


def run_recipe(
    recipe: Recipe,
    last: str,
    stages: Sequence[Stage] = STAGES,
    launch: Callable[[RunDir, int], None] = train_on_all,
    check: Check | None = None,
    agree: Callable[[bool], bool] = agree_with_main_rank,
) -> RunDir:
    """Runs the stages up to `last` in `<runs>/<name>`; after `export`, writes `summary.json`.

    Args:
        recipe: The recipe.
        last: Name of the last stage to run.
        stages: What to run, with the names of `STAGES`.
        launch: Trains in several processes, which run this function with WORLD_SIZE set.
        check: Called before a training, with the number of its processes.
        agree: Returns the value of rank 0 on every rank.

    Raises:
        RecipeError: data.train is empty, or the variables of a launcher are wrong.
        DataError: the augmentation of a training that has not finished needs what is missing.
        CheckpointError: the directory holds a run of another recipe, or another process uses it.
    """
    run = run_dir_of(recipe)
    if world_size(os.environ) > 1:
        return _train_as_rank(recipe, run, last, stages, check, agree)
    elastic = is_elastic(os.environ)
    with run.locked(patience=PATIENCE * elastic):
        run.claim(settings_of_training(recipe))
        if run.done("train") is None:
            check_augmentation(recipe.augment)
        save_recipe(run.resolved, recipe)
        _discard_unreadable_results(run)
        inputs = stage_inputs(recipe, run.claimed())
        for stage in stages[: [stage.name for stage in stages].index(last) + 1]:
            record = run.done(stage.name)
            if record is not None and record.get("inputs") == inputs[stage.name]:
                if stage.name == last == "train":
                    require_best(run)
                log.info("%s: skipped, already done", stage.name)
                continue
            log.info("%s ...", stage.name)
            if stage.name in ("evaluate", "export"):
                require_same_base(recipe, run)
            _discard_records(run, stage.name)
            processes = processes_for(recipe) if stage.name == "train" and not elastic else 1
            if check and stage.name == "train":
                check(recipe, run, processes)
            if processes > 1:
                launch(run, processes)
            else:
                _run_stage(stage, recipe, run, inputs[stage.name])
        if last == stages[-1].name:
            write_model(run.summary, summarize(run))
    return run


def run_dir_of(recipe: Recipe) -> RunDir:
    """The directory of a run that trains.

    Raises:
        RecipeError: data.train is empty.
    """
    if not recipe.data.train:
        raise RecipeError("data.train: empty, so nothing can be trained; `finetune score` needs only data.test")
    return RunDir(f"{recipe.runs}/{recipe.name}")


def _run_stage(stage: Stage, recipe: Recipe, run: RunDir, inputs: str) -> None:
    before: dict[str, Any] = {BASE: base_weights(recipe)} if stage.name == "train" else {}
    if stage.name == "prepare":
        before = {CORPORA: corpus_states(recipe)}
    try:
        result = asdict(stage.run(recipe, run))
    except MissingExtraError as error:
        if not stage.optional:
            raise
        log.warning("%s: skipped: %s; then: finetune %s %s", stage.name, error, stage.name, run.root)
        return
    run.finish(stage.name, {**result, **before, "inputs": inputs})
    if stage.name == "evaluate" and recipe.machine.trackers:
        from finetune.tracking.results import track_results

        track_results(recipe, run)


def _train_as_rank(
    recipe: Recipe, run: RunDir, last: str, stages: Sequence[Stage], check: Check | None, agree: Callable[[bool], bool]
) -> RunDir:
    """Trains as one of several processes, which `launch` or `accelerate launch` has started; runs no other stage."""
    if last != "train" or run.done("prepare") is None:
        raise CheckpointError(
            "several processes can only train: run `finetune prepare RECIPE` first, then "
            "`accelerate launch -m finetune train RECIPE`, then `finetune run RECIPE`"
        )
    main, child = os.environ.get("RANK", "0") == "0", CHILD in os.environ
    inputs, finished = dict[str, str](), False
    patience = PATIENCE * is_elastic(os.environ)
    with run.locked(patience=patience) if main and not child else nullcontext():
        if main:
            run.claim(settings_of_training(recipe))
            inputs = stage_inputs(recipe, run.claimed())
            prepared = run.done("prepare")
            if prepared is not None and prepared["inputs"] != inputs["prepare"]:
                raise CheckpointError(
                    "the corpora or the data section changed since `finetune prepare`; run `finetune prepare` again"
                )
            finished = (run.done("train") or {}).get("inputs") == inputs["train"]
            if finished and not child:
                require_best(run)
            elif not finished:
                _discard_records(run, "train")
        try:
            # All ranks take the answer of rank 0: another rank could read the record of a process that ends just now.
            if not child and agree(finished):
                log.info("train: skipped, already done")
                return run
            if check and not child:  # otherwise the parent process has checked it
                check(recipe, run, world_size(os.environ))
            train = next(stage for stage in stages if stage.name == "train")
            base = base_weights(recipe) if main else ""
            result = asdict(train.run(recipe, run))
        except RuntimeError as error:
            if not any(message in str(error) for message in PEER_GONE):
                raise
            raise CheckpointError("another training process failed; its error message names the cause") from error
        if main:
            run.finish("train", {**result, BASE: base, "inputs": inputs["train"]})
    return run


def _discard_records(run: RunDir, stage: str) -> None:
    """Deletes the record of a stage that runs again; of a training, also those of what was made with its adapter.

    The records of `evaluate` and `export` do not name an adapter: one that is trained again can have the same inputs.
    """
    for name in STAGE_NAMES[STAGE_NAMES.index("train") :] if stage == "train" else [stage]:
        run.marker(name).unlink(missing_ok=True)


def settings_of_training(recipe: Recipe) -> dict[str, Any]:
    """The sections that must not change in a run directory: those of `prepare` and `train`."""
    content = recipe.model_dump(mode="json")
    names = [name for stage in STAGES if stage.name in ("prepare", "train") for name in stage.reads]
    return {name: content[name] for name in names} | sampling_inputs(recipe)


def stage_inputs(recipe: Recipe, claimed: Mapping[str, Any]) -> dict[str, str]:
    """By stage: a hash of the settings that it and earlier stages read, and of the files of corpora and terms.

    Args:
        recipe: The recipe.
        claimed: The settings in `recipe.json`. A setting that an earlier version did not have is left out if it has its
            default, so what that version has completed stays complete.
    """
    content, data = recipe.model_dump(mode="json") | sampling_inputs(recipe), recipe.data
    stored = {name: value for name, value in claimed.items() if name in content}
    content |= without_new_defaults({name: content[name] for name in stored}, stored)
    key = "".join(corpus_states(recipe).values())
    hashes = {}
    for stage in STAGES:
        values = [content[name] for name in stage.reads]
        if stage.name == "train" and recipe.keywords.sampled:
            values.append({"keywords": content["keywords"]})
        if stage.name == "evaluate" and data.terms:
            values.append({"terms": corpus_state(data.terms, Path(recipe.runs))})
        settings = json.dumps([key, *values], sort_keys=True)
        hashes[stage.name] = key = hashlib.sha256(settings.encode()).hexdigest()
    return hashes


def corpus_states(recipe: Recipe) -> dict[str, str]:
    """The state of the files of each split's corpora."""
    entries = {split: getattr(recipe.data, split) for split in SPLITS}
    return {split: "".join(corpus_state(e.path, Path(recipe.runs)) for e in entries[split]) for split in SPLITS}


def summarize(run: RunDir) -> RunSummary:
    """Collects the results of a finished run from the records of its stages; rates are fractions.

    Raises:
        CheckpointError: a stage has not finished, or its results have another schema.
    """
    records = {stage: run.done(stage) for stage in STAGE_NAMES}
    missing = [stage for stage, record in records.items() if record is None and stage != "report"]
    if missing:
        raise CheckpointError(f"{run.root}: {missing[0]} has not finished")
    results = read_results(run.scores)
    train, export = records["train"] or {}, records["export"] or {}
    return RunSummary(
        scores=results.scores,
        differences=results.differences,
        tasks=results.tasks,
        without_terms=results.without_terms,
        decoders=results.decoders,
        report=(records["report"] or {}).get("page"),
        export=ExportSummary(**{name: export[name] for name in ExportSummary.model_fields}),
        seconds={stage: (record or {}).get("seconds") for stage, record in records.items()},
        parameters=ParameterCounts(total=train["total_parameters"], trained=train["trained_parameters"]),
    )


def _discard_unreadable_results(run: RunDir) -> None:
    """Reruns evaluate and report if this version cannot read the results of an earlier evaluation."""
    if run.done("evaluate") is None:
        return
    try:
        read_results(run.scores)
    except CheckpointError:
        log.info("%s: written by another version; evaluate and report run again", run.scores)
        for stage in ("evaluate", "report"):
            run.marker(stage).unlink(missing_ok=True)
