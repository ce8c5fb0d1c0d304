"""Exports a run: merges the adapter, saves the model in hub layout, verifies the saved folder in a new process.

No step has the model in float32 in memory. The weights are merged and saved tensor by tensor; the models that are
compared compute in float32 with the weights as they are stored.
"""

import gc
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.files import replace_folder
from finetune.core.model_limits import ModelLimits
from finetune.core.progress import task
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.data.manifest import Utterance, read_manifest, seconds_of
from finetune.exporting.limits import exported_limits
from finetune.exporting.merge import trained_outputs
from finetune.exporting.save import (
    GIGABYTE,
    base_folder,
    check_target,
    copy_side_files,
    save_other_files,
    save_weights,
    saved_bytes,
    saved_dtype,
    staged_folder,
)
from finetune.exporting.trained_weights import MergeLayer, TrainedWeights, merge_layer
from finetune.exporting.verify import (
    Opened,
    Outputs,
    RunProcess,
    largest_difference,
    reopen,
    run_process,
    target_logits,
)
from finetune.model.float32 import compute_in_float32, load_as_stored
from finetune.model.model_config import read_config

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


def export(
    recipe: Recipe, run: RunDir, merge: MergeLayer = merge_layer, run_process: RunProcess = run_process
) -> ExportResult:
    """Writes `run.export`; a folder that fails the verification is not moved there.

    The merge is done in float32 and must reproduce the logits of the unmerged model. The merged weights are rounded to
    the saved dtype. Each saved tensor is read again and compared, and the saved folder, loaded in a new process, must
    reproduce the logits of the rounded weights; in float32 also the tokens.

    Args:
        recipe: The recipe of the run.
        run: The run directory, with a trained adapter.
        merge: Merges the adapter of one layer, in place.
        run_process: Runs the command of the new process.

    Raises:
        ModelError: a difference was found; `run.export` is not changed.
        CheckpointError: there is no adapter, it does not fit the base, or `run.export` has files of the user.
        OSError: the disk is full; `run.export` is not changed.
    """
    started = time.monotonic()
    base = base_folder(recipe)
    check_target(run.export, base)
    dtype = saved_dtype(base, recipe.export.dtype)
    clips = read_manifest(run.manifest("test"))[: recipe.export.clips]
    weights = TrainedWeights.of_run(recipe, run.best, base, merge)
    log.info("merging the adapter in float32, and comparing the merged model on %s", count(len(clips), "clip"))
    with task("merge and compare", 3 * seconds_of(clips)):
        trained = trained_outputs(recipe, run.best, base, clips, weights)
    with staged_folder(run.export) as staged:
        log.info("saving the model (%s)", dtype)
        with task("save", 2 * saved_bytes(weights, dtype)):
            save_weights(staged, weights, dtype, int(recipe.export.shard_gb * GIGABYTE))
        copy_side_files(base, staged, dtype)
        limits, logits = _saved_limits_and_logits(recipe, run, base, staged, clips, trained.tokens)
        save_other_files(staged, recipe, run, base, limits)
        log.info("loading the saved folder in a new process, and comparing it on the same clips")
        loaded = reopen(Opened(str(staged), str(staged)), recipe, run, clips, trained.tokens, run_process)
        # Rounded weights can give other tokens than the trained ones; their logits are compared.
        tokens = trained.tokens if dtype == "float32" else loaded.tokens
        _check_equal(Outputs(tokens, logits), loaded, recipe.export.tolerance, staged)
        replace_folder(staged, run.export)
    result = ExportResult(
        str(run.export),
        dtype,
        largest_difference(trained.logits, loaded.logits),
        loaded.tokens == trained.tokens,
        sum(a != b for a, b in zip(loaded.tokens, trained.tokens, strict=True)),
        len(clips),
        round(time.monotonic() - started, 1),
    )
    log.info(
        "exported to %s (%s); logits differ by %.2g from the trained model; transcripts of %s are %s",
        run.export,
        dtype,
        result.max_abs_logit_diff,
        count(len(clips), "clip"),
        "equal" if result.transcripts_equal else "not equal",
    )
    return result


def _saved_limits_and_logits(
    recipe: Recipe, run: RunDir, base: Path, staged: Path, clips: list[Utterance], tokens: list[list[int]]
) -> tuple[ModelLimits, dict[str, Tensor]]:
    """The limits of the saved weights, and their logits with the configuration of the base model."""
    config = read_config(recipe.model.base, recipe.model.revision)
    config.has_lora_adapter = False  # it was merged
    model = load_as_stored(str(staged), staged, config=config)
    compute_in_float32(model)
    limits = exported_limits(recipe, run, base, model)
    logits = target_logits(model, clips, recipe.model.instruction, tokens)
    del model
    gc.collect()  # the new process must find the memory free
    return limits, logits


def _check_equal(expected: Outputs, loaded: Outputs, tolerance: float, staged: Path) -> None:
    difference = largest_difference(expected.logits, loaded.logits)
    equal = loaded.tokens == expected.tokens
    if not (difference <= tolerance and equal):  # in this form, NaN is refused too
        raise ModelError(
            f"the saved model differs from the merged one: logits by {difference:.2g} (export.tolerance "
            f"{tolerance:g}), transcripts {'equal' if equal else 'not equal'}; it remains in {staged}"
        )
