"""Sets up a training: the model and its trainable parts, the clips, the optimizer and the plan of all steps."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator

from finetune.core.config import Recipe
from finetune.core.run_dir import RunDir
from finetune.core.wording import count as plural
from finetune.data.effects.sources import recordings_state
from finetune.data.utterance_table import open_manifest
from finetune.model.first_step import fingerprints
from finetune.model.float32 import arithmetic_is_float32, train_in_float32
from finetune.model.granite import SpeechModel
from finetune.model.trainable import open_parts, summarize_parts, trained_parameters
from finetune.training import checkpoint
from finetune.training.auto_batch import fit_batch_seconds
from finetune.training.batch_size import BatchSizeCache
from finetune.training.batches import BatchSource
from finetune.training.copy_loss import CopyLoss
from finetune.training.corpus import TrainingCorpus, manifests_of
from finetune.training.distributed import require_same_checkpoint
from finetune.training.health import check_base
from finetune.training.interpolate import starting_points
from finetune.training.optimizer import build_optimizer, learning_rate_of
from finetune.training.parts import checkpoint_activations, trainable_parts
from finetune.training.plan import EpochPlan
from finetune.training.step import OptimizerStep

log = logging.getLogger(__name__)


class TrainContext:
    """The parts of a training run that stay the same in all its steps.

    Args:
        recipe: what to train and how.
        run: the run directory.
        accelerator: of this process.
        load_model: loads the base, with the arguments of `finetune.model.float32.load_for_training`.
        batch_sizes: cache for `train.batch: auto`.

    Attributes:
        model: the base with its trainable parts.
        base: fingerprint of the base weights.
        total_parameters: number of parameters of the base.
        adapted: the model with LoRA layers, if there are some.
        parameters: all trainable parameters, by name.
        corpus: the clips of the run.
        source: audio of the clips, or a cache of the encoder's output.
        optimizer: Accelerate's.
        optimizer_step: runs one step.
        learning_rates: the peak of each parameter group.
        saved: the run's checkpoint; None for a new run.
        batch_seconds: largest amount of padded audio in a micro-batch.
        group: micro-batches per optimizer step, over all ranks.
        steps: optimizer steps of all epochs.
        padding: fraction of the first epoch's padded audio that is padding.
        start: the parameters before the first step, for `train.interpolate`.
        origin: recipe, base and data that a checkpoint of this run belongs to.

    Raises:
        CheckpointError, RecipeError, ModelError: see `finetune.training.trainer.train`.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunDir,
        accelerator: Accelerator,
        load_model: Callable[..., SpeechModel],
        batch_sizes: BatchSizeCache,
    ) -> None:
        self.recipe, self.run, self.accelerator = recipe, run, accelerator
        self._setup_model(load_model)
        self._setup_data()
        self._setup_optimizer(batch_sizes)
        hashes = {split: table.manifest_sha256 for split, table in self.corpus.clips.items()}
        if recordings := recordings_state(recipe.augment):
            hashes["recordings of augment"] = recordings
        self.origin = checkpoint.origin_of(recipe, self.base, hashes, self.group, self.batch_seconds)

    def _setup_model(self, load_model: Callable[..., SpeechModel]) -> None:
        """Loads the base and makes the recipe's parts trainable."""
        settings = self.recipe.model
        torch.manual_seed(self.recipe.seed)
        self.model = load_model(
            settings.base, settings.dtype, self.accelerator.device, settings.revision, settings.quantize
        )
        self.base = f"{sum(fingerprints(self.model).values()) % 2**64:016x}"
        self.total_parameters = sum(value.numel() for value in self.model.parameters())
        self.adapted = open_parts(self.model, trainable_parts(self.recipe.parts))
        if arithmetic_is_float32(settings.dtype, self.accelerator.device):
            train_in_float32(self.model)
        checkpoint_activations(self.model, self.recipe.machine)
        self.parameters = trained_parameters(self.model)

    def _setup_data(self) -> None:
        """Opens the manifests, and prepares the source of batches: audio, or a cache of the encoder's output."""
        manifests = manifests_of(self.recipe, self.run)
        clips = {split: open_manifest(path) for split, path in manifests.items()}
        self.corpus = TrainingCorpus(self.model, self.recipe, clips, manifests)
        main = self.accelerator.is_main_process
        with self.model.autocast():
            self.source = BatchSource(self.corpus.dataset, self.recipe, self.run.cache, self.base, main)

    def _setup_optimizer(self, batch_sizes: BatchSizeCache) -> None:
        """Builds the optimizer, plans all steps and wraps the model for several ranks."""
        settings, ranks = self.recipe.train, self.accelerator.num_processes
        optimizer = build_optimizer(self.recipe, self.parameters, ranks)
        self.learning_rates: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.saved = checkpoint.find(self.run.checkpoint)
        require_same_checkpoint(checkpoint.identity(self.saved), self.run.checkpoint)
        self.batch_seconds: float = settings.batch_seconds
        if settings.batch == "auto" and self.saved:
            self.batch_seconds = checkpoint.read_origin(self.saved).get("batch_seconds", 0.0)
        elif settings.batch == "auto":  # before the model is wrapped, because a wrapped model waits for the other ranks
            unwrapped = self._optimizer_step(self.model, optimizer)
            self.batch_seconds = fit_batch_seconds(unwrapped, self.source, self.base, batch_sizes)
        self.group = checkpoint.batches_in_a_step(self.saved, self.recipe, ranks)
        outline = self.corpus.outline(self.batch_seconds, self.group)
        self.steps, self.padding = sum(outline.steps), outline.padding
        # A new optimizer has nothing to place, and one whose moments are divided cannot be asked for them here.
        wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer, device_placement=[True, False])
        self.optimizer_step = self._optimizer_step(wrapped, self.optimizer)
        self.start = starting_points(self.parameters) if settings.interpolate else {}

    def _optimizer_step(self, wrapped: torch.nn.Module, optimizer: Any) -> OptimizerStep:
        copy_loss = CopyLoss(self.model) if self.recipe.keywords.copy_weight else None
        return OptimizerStep(
            self.recipe,
            self.accelerator,
            self.model,
            wrapped,
            optimizer,
            self.parameters,
            self.corpus.dataset,
            copy_loss=copy_loss,
        )

    def restore(self) -> dict[str, Any] | None:
        """Restores weights and moments from the run's checkpoint, and returns its progress; None for a new run.

        Raises:
            CheckpointError: the checkpoint belongs to another recipe, base or data, or is damaged.
        """
        if self.saved is None:
            return None
        checkpoint.require_origin(self.saved, self.origin)
        return checkpoint.restore(self.saved, self.parameters, self.optimizer)

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch; its clips are open until another plan is made."""
        return self.corpus.plan(epoch, self.batch_seconds, self.group)

    def check_base(self) -> None:
        """Checks that the base has a finite loss on the first micro-batch. Every rank computes the same one."""
        readable = self.corpus.dataset.readable
        micro = next((kept for step in self.plan(0) for micro in step if (kept := readable(micro))), [])
        for batch in self.source.batches([micro], 0):
            check_base(self.optimizer_step, batch)

    def log_summary(self) -> None:
        """Logs the trainable parts, the number of steps and the size of batches."""
        for row in summarize_parts(self.model):
            count, rate = f"{row.parameters:,}", learning_rate_of(self.recipe, row.part)
            log.info("trains %-14s %4d modules %12s parameters, learning rate %g", row.part, row.modules, count, rate)
        steps, padding = plural(self.steps, "step"), 100 * self.padding
        log.info("%s, %.1f %% padding, batches of up to %g s", steps, padding, self.batch_seconds)
