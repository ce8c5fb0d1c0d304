"""The limits of an exported model: those of its base, extended by the run, with a calibrated `no_speech`."""

import logging
from dataclasses import replace
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.model_limits import ModelLimits, read_limits
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest
from finetune.evaluation.no_speech import calibrate_no_speech
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)


def exported_limits(recipe: Recipe, run: RunDir, base: Path, model: SpeechModel) -> ModelLimits:
    """The limits of a trained model.

    Args:
        recipe: The recipe of the run.
        run: Its directory; `no_speech` is calibrated on its valid clips.
        base: The folder of the base model.
        model: The merged model.
    """
    clips = read_manifest(run.manifest("valid"))
    guard = calibrate_no_speech(model, clips, recipe.decode.batch_seconds, recipe.seed)
    log.info(
        "no_speech %g: below the score of %d speech clips; it rejects %.0f %% of the clips without speech",
        guard.threshold,
        guard.clips,
        100 * guard.rejected,
    )
    limits = read_limits(base).after_training(recipe.model.instruction, run.done("train"))
    return replace(limits, no_speech=guard.threshold)
