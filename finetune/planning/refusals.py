"""What later stages would refuse and is known before: launcher, run directory, checkpoint, extras, export."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, FinetuneError
from finetune.core.extras import require
from finetune.core.files import sha256_file
from finetune.core.model_limits import read_limits
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.exporting.save import check_target
from finetune.model.granite import default_device
from finetune.model.load_weights import check_mergeable, check_quantization
from finetune.model.model_config import read_config
from finetune.pipeline import CORPORA, corpus_states, settings_of_training
from finetune.training import checkpoint
from finetune.training.distributed import check_launcher
from finetune.training.eight_bit import check_eight_bit
from finetune.training.finished import require_same_base
from finetune.training.launch import processes_for, world_size


def refusals(recipe: Recipe, run: RunDir, environment: Mapping[str, str] = os.environ) -> Iterator[FinetuneError]:
    """The errors of later stages that do not depend on the rows of the corpora, one for each check that fails."""
    base = Path(recipe.model.base)
    checks: list[Callable[[], object]] = [
        lambda: check_quantization(recipe.model.quantize, default_device()),
        lambda: _check_quantized_layout(recipe),
        lambda: check_eight_bit(default_device()) if recipe.train.optimizer == "adamw-8bit" else None,
        lambda: world_size(environment),
        lambda: check_launcher(environment),
        run.check_writable,
        lambda: run.check_claim(settings_of_training(recipe)),
        lambda: _check_checkpoint(recipe, run),
        lambda: _check_corpora(recipe, run),
        lambda: require_same_base(recipe, run) if base.is_dir() else None,
        lambda: read_limits(base),
        lambda: check_target(run.export, base) if (base / "config.json").is_file() else None,
    ]
    for check in checks:
        try:
            check()
        except FinetuneError as error:
            yield error


def _check_quantized_layout(recipe: Recipe) -> None:
    """Raises ModelError if the base has an adapter inside, which cannot be merged into quantized weights."""
    model = recipe.model
    if model.quantize != "none":
        check_mergeable(model.base, read_config(model.base, model.revision), model.quantize)


def _check_checkpoint(recipe: Recipe, run: RunDir) -> None:
    """Compares the run's checkpoint with the recipe and the manifests, but not the base, which only training hashes."""
    if not run.recipe.is_file() or (saved := checkpoint.find(run.checkpoint)) is None:
        return
    origin = checkpoint.read_origin(saved)
    seconds = origin.get("batch_seconds", 0.0) if recipe.train.batch == "auto" else recipe.train.batch_seconds
    group = checkpoint.batches_in_a_step(saved, recipe, processes_for(recipe))
    manifests = {split: run.manifest(split) for split in origin.get("data", {})}
    hashes = {split: sha256_file(path) for split, path in manifests.items() if path.is_file()}
    data = {**origin.get("data", {}), **hashes}
    expected = checkpoint.origin_of(recipe, origin.get("base", ""), data, group, seconds)
    if run.done("train") is not None:  # then only the evaluation runs again
        expected |= {name: origin[name] for name in checkpoint.VALIDATION if name in origin}
    checkpoint.require_origin(saved, expected)


def _check_corpora(recipe: Recipe, run: RunDir) -> None:
    """Raises CheckpointError if corpora of the run's checkpoint have changed since they were prepared."""
    recorded = (run.done("prepare") or {}).get(CORPORA, {})
    if not recorded or (saved := checkpoint.find(run.checkpoint)) is None:
        return
    states = corpus_states(recipe)
    trained = checkpoint.read_origin(saved).get("data", {})
    changed = [f"data.{split}" for split in states if split in trained and recorded.get(split) != states[split]]
    if changed:
        raise CheckpointError(
            f"{run.root}: files of {', '.join(changed)} changed since `finetune prepare`, so `finetune train` refuses "
            "the checkpoint if clips or transcripts differ. To train on them, choose another name with --set name=..., "
            "or delete the run directory; if only the form of the files changed, run `finetune prepare` and check again"
        )


def check_translations(scored: Mapping[str, Sequence[Utterance]]) -> None:
    """Raises MissingExtraError if test or canary have translations, and sacrebleu is not installed."""
    if any(clip.is_translation for split in ("test", "canary") for clip in scored.get(split, ())):
        require("sacrebleu.metrics", extra="st")
