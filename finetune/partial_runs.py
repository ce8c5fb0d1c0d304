"""Runs for one engine or one stage, and jobs of an array: what `run_recipe` does not do by itself."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune.core.array_job import Shard
from finetune.core.config import Recipe
from finetune.core.errors import RecipeError
from finetune.core.extras import require
from finetune.core.run_dir import RunDir
from finetune.pipeline import (
    STAGES,
    Check,
    run_dir_of,
    run_recipe,
    settings_of_training,
    stage_inputs,
    with_long_clips_cut,
)
from finetune.training.finished import require_same_base

if TYPE_CHECKING:
    from finetune.data.prepare_split import Engine
    from finetune.evaluation.score import ScoreResult

log = logging.getLogger(__name__)


def export_adapter(recipe: Recipe, format_name: str, check: Check | None = None) -> RunDir:
    """Trains if needed, then exports the adapter in the format of an engine. `check` is that of `run_recipe`.

    Raises:
        ModelError, CheckpointError: the format cannot hold what was trained, or the errors of `run_recipe`.
    """
    from finetune.exporting.formats import check_adapter, export_adapter

    check_adapter(recipe, format_name)  # before the training
    run = run_recipe(recipe, "train", check=check)
    with run.locked():
        require_same_base(recipe, run)
        export_adapter(recipe, run, format_name)
    return run


def export_gguf(recipe: Recipe, name: str, dtype: str, check: Check | None = None) -> RunDir:
    """Exports the merged model if needed, then writes it as GGUF files. `check` is that of `run_recipe`.

    Args:
        recipe: The recipe.
        name: A format of GGUF files.
        dtype: A data type of `exporting.gguf.export`.
        check: See `run_recipe`.

    Raises:
        ModelError, CheckpointError, MissingExtraError: those of `exporting.gguf.export`, or the errors of `run_recipe`.
    """
    from finetune.exporting.gguf.quantize import check_dtype

    require("gguf", extra="gguf")  # before the training
    check_dtype(name, dtype)
    run = run_recipe(recipe, "export", check=check)
    with run.locked():
        from finetune.exporting.gguf.export import export_gguf

        export_gguf(run, dtype, name)
    return run


def export_onnx(recipe: Recipe, check: Check | None = None) -> RunDir:
    """Exports the merged model if needed, then writes it as ONNX graphs. `check` is that of `run_recipe`.

    Raises:
        ModelError, CheckpointError, MissingExtraError: those of `exporting.onnx.export`, or the errors of `run_recipe`.
    """
    from finetune.exporting.onnx.export import check_packages, export_onnx

    check_packages()  # before the training
    run = run_recipe(recipe, "export", check=check)
    with run.locked():
        export_onnx(run)
    return run


def prepare_shard(recipe: Recipe, shard: Shard) -> None:
    """Does the part of one job of an array of `prepare`. Jobs can run side by side and in any order.

    Raises:
        RecipeError: data.train is empty.
        CheckpointError: another process uses the run directory for something else, or it is not one.
    """
    from finetune.data.prepare import prepare_shard

    run = run_dir_of(recipe)
    _check_array(recipe)
    with run.locked(shared=True):
        run.require_own()
        record = run.done("prepare")
        if record is not None and record.get("inputs") == stage_inputs(recipe, run.claimed())["prepare"]:
            log.info("prepare: skipped, already done")
        else:
            prepare_shard(recipe, run, shard)


def run_prepare(recipe: Recipe, merge: bool, engine: "Engine") -> RunDir:
    """Runs `prepare` with its options.

    Raises:
        DataError: with `merge`, a job of the array has not finished; see also `prepare`.
    """
    from finetune.data.prepare import prepare

    if merge:
        _check_array(recipe)

    def run_stage(recipe: Recipe, run: RunDir) -> Any:
        return prepare(with_long_clips_cut(recipe, run), run, merge=merge, engine=engine)

    stage = replace(STAGES[0], run=run_stage)
    return run_recipe(recipe, "prepare", (stage, *STAGES[1:]))


def _check_array(recipe: Recipe) -> None:
    if recipe.data.too_long == "segment":
        raise RecipeError(
            "data.too_long: segment cannot be split into jobs; run `finetune segment --shard` on the long recordings, "
            "and name its clips in data.train"
        )


def score_recipe(recipe: Recipe, merge: bool) -> "ScoreResult":
    """Scores `model.base` on each corpus of `data.test`; writes to `<runs>/<name>/score`.

    Args:
        recipe: The recipe.
        merge: The hypotheses must be there already, from `score_shard`.

    Raises:
        CheckpointError: the directory holds a run of another recipe, or another process uses it.
    """
    from finetune.evaluation.score import score

    run = RunDir(f"{recipe.runs}/{recipe.name}")
    with run.locked():
        run.claim(settings_of_training(recipe))
        return score(recipe, run, merge=merge)


def score_shard(recipe: Recipe, shard: Shard) -> None:
    """Transcribes the part of one job of an array of `finetune score`. Jobs can run side by side and in any order.

    Raises:
        CheckpointError: another process uses the run directory for something else.
    """
    from finetune.evaluation.score import score_shard

    run = RunDir(f"{recipe.runs}/{recipe.name}")
    with run.locked(shared=True):
        score_shard(recipe, run, shard)
