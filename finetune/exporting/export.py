"""Exports a run: merges the adapter, saves the model in hub layout, verifies the saved folder in a new process."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.files import replace_folder
from finetune.core.progress import task
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest, seconds_of
from finetune.exporting.limits import exported_limits
from finetune.exporting.merge import Merge, MergedModel, merge_adapter
from finetune.exporting.save import base_folder, check_target, save_folder, saved_dtype
from finetune.exporting.verify import Outputs, RunProcess, largest_difference, outputs_in_new_process, run_process
from finetune.model.adapter import merge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """The exported model and its differences from the trained model.

    Attributes:
        dir: The exported folder.
        dtype: Data type of the saved weights.
        max_abs_logit_diff: Largest difference of logits between the loaded folder and the unmerged model, in float32.
        transcripts_equal: Whether both generate the same tokens for every clip.
        rounded_clips: Number of clips with different tokens, caused by rounding to a narrower dtype.
        clips: Number of compared clips.
        seconds: Wall time.
    """

    dir: str
    dtype: str
    max_abs_logit_diff: float
    transcripts_equal: bool
    rounded_clips: int
    clips: int
    seconds: float


def export(recipe: Recipe, run: RunDir, merge: Merge = merge, run_process: RunProcess = run_process) -> ExportResult:
    """Writes `run.export`; a folder that fails the verification is not moved there.

    The merge is done in float32 and must reproduce the logits of the unmerged model. The weights are then rounded to
    the saved dtype, and the saved folder, loaded in a new process, must reproduce logits and tokens of the rounded
    weights.

    Args:
        recipe: The recipe of the run.
        run: The run directory, with a trained adapter.
        merge: Merges an adapter into its model, in place.
        run_process: Runs the command of the new process.

    Raises:
        ModelError: a difference was found; `run.export` is not changed.
        CheckpointError: there is no adapter, it does not fit the base, or `run.export` has files of the user.
    """
    started = time.monotonic()
    base = base_folder(recipe)
    check_target(run.export, base)
    dtype = saved_dtype(base, recipe.export.dtype)
    clips = read_manifest(run.manifest("test"))[: recipe.export.clips]
    log.info("merging the adapter in float32, and comparing the merged model on %d clips", len(clips))
    passes = 3 if dtype == "float32" else 5  # over the clips, in `merge_adapter`
    with task("merge and compare", passes * seconds_of(clips)):
        merged = merge_adapter(recipe, run, clips, dtype, merge)
    staged = run.export.with_name("export.part")
    log.info("saving the model (%s)", dtype)
    save_folder(staged, merged.model, base, dtype, recipe, run, exported_limits(recipe, run, base, merged.model))
    log.info("loading the saved folder in a new process, and comparing it on the same clips")
    decoding = replace(recipe.decode, decoder="greedy")
    loaded = outputs_in_new_process(
        staged, run.root / "parity", clips, recipe.model.instruction, decoding, merged.trained.tokens, run_process
    )
    _check_equal(merged, loaded, recipe.export.tolerance, staged)
    replace_folder(staged, run.export)
    result = ExportResult(
        str(run.export),
        dtype,
        largest_difference(merged.trained.logits, loaded.logits),
        loaded.tokens == merged.trained.tokens,
        sum(a != b for a, b in zip(loaded.tokens, merged.trained.tokens, strict=True)),
        len(clips),
        round(time.monotonic() - started, 1),
    )
    log.info(
        "exported to %s (%s); logits differ by %.2g from the trained model; transcripts of %d clips are %s",
        run.export,
        dtype,
        result.max_abs_logit_diff,
        len(clips),
        "equal" if result.transcripts_equal else "not equal",
    )
    return result


def _check_equal(merged: MergedModel, loaded: Outputs, tolerance: float, staged: Path) -> None:
    difference = largest_difference(merged.outputs.logits, loaded.logits)
    equal = loaded.tokens == merged.outputs.tokens
    if not (difference <= tolerance and equal):  # in this form, NaN is refused too
        raise ModelError(
            f"the saved model differs from the merged one: logits by {difference:.2g} (export.tolerance "
            f"{tolerance:g}), transcripts {'equal' if equal else 'not equal'}; it remains in {staged}"
        )
