"""Checks of a finished training, before its adapter is used."""

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, ModelError
from finetune.core.run_dir import RunDir

BASE = "base_weights"  # in the record of a training: the hash of its base, which evaluate and export must find


def base_weights(recipe: Recipe) -> str:
    """A hash of the weights of the base model; "" if they cannot be read, which loading them will report."""
    from finetune.model.weight_files import WeightFiles, folder_of

    try:
        folder = folder_of(recipe.model.base, recipe.model.revision)
        return WeightFiles(folder).sample_hash() if folder else ""
    except (ModelError, OSError):
        return ""


def require_best(run: RunDir) -> None:
    """Raises CheckpointError if a training has finished and its best adapter was deleted; the run is locked."""
    if run.done("train") is None or run.find_best():
        return
    again = "save the last weights of the training there" if run.checkpoint.exists() else "train again"
    raise CheckpointError(
        f"{run.best}: is missing, although the training has finished; restore it, or delete {run.marker('train')} and "
        f"rerun to {again}"
    )


def require_same_base(recipe: Recipe, run: RunDir) -> None:
    """Raises CheckpointError if the weights of the base changed since the training: the adapter would not fit."""
    trained = (run.done("train") or {}).get(BASE)  # an earlier version did not record it
    if trained and (now := base_weights(recipe)) and now != trained:
        raise CheckpointError(
            f"{recipe.model.base}: the weights changed since {run.root} was trained on them, so its adapter does not "
            "fit them; restore them, or train again under another name with --set name=..."
        )
