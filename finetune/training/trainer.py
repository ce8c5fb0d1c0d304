"""Fine-tunes a base model on the prepared manifests of a run and keeps the best adapter.

There is one process per device (Accelerate). Only the recipe decides which clips an optimizer step contains. The loss
of a step is the sum over its target tokens, on all ranks and in all micro-batches, divided by their number.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from finetune.core.config import Recipe
from finetune.core.errors import Interrupted
from finetune.core.run_dir import RunDir
from finetune.data.effects.sources import recordings_state
from finetune.data.utterance_table import open_manifest
from finetune.model.first_step import fingerprints
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import open_parts, set_mode, summarize_parts, trained_parameters
from finetune.training import checkpoint
from finetune.training.auto_batch import fit_batch_seconds
from finetune.training.batch_size import BatchSizeCache, explain_out_of_memory
from finetune.training.batches import BatchSource, repeatable
from finetune.training.callbacks import CallbackList, StepRecord, TrainerCallback, ValidationRecord
from finetune.training.copy_loss import CopyLoss
from finetune.training.corpus import TrainingCorpus, manifests_of
from finetune.training.dataset import MicroAudio
from finetune.training.distributed import (
    all_ranks,
    check_on_main_rank,
    ignore_stride_warning,
    make_accelerator,
    require_same_checkpoint,
)
from finetune.training.health import check_base, check_epoch, check_trained, count_skipped
from finetune.training.interpolate import interpolated, starting_points
from finetune.training.optimizer import build_optimizer, learning_rate_factor, learning_rate_of
from finetune.training.parts import checkpoint_activations, trainable_parts
from finetune.training.plan import EpochPlan, padding_fraction, shard_for_rank
from finetune.training.selection import Scores, format_scores, measure, rank, save_best
from finetune.training.sharded_optimizer import gather_moments
from finetune.training.signals import Stop, interruptible
from finetune.training.state import TrainResult, TrainState, train_result
from finetune.training.step import OptimizerStep, StepResult
from finetune.training.tracking import open_callbacks
from finetune.training.unreadable import UnreadableClips

log = logging.getLogger(__name__)


def train(recipe: Recipe, run: RunDir, callbacks: Sequence[TrainerCallback] = ()) -> TrainResult:
    """Trains, or resumes from the run's checkpoint if there is one, and saves the best adapter in `run.best`.

    Args:
        recipe: what to train and how.
        run: the run directory, with the manifests of `finetune prepare`.
        callbacks: receive each step, validation and message on rank 0, after the trackers and the progress display.

    Raises:
        CheckpointError: the checkpoint belongs to another recipe, base or data, or is damaged; the loss or gradient was
            NaN or infinite in too many steps; `accelerate launch` is set to split the model.
        RecipeError: a batch cannot hold the longest clip.
        ModelError: the base cannot be loaded, a part does not exist, or memory runs out.
        Interrupted: a signal stopped the training; the checkpoint holds the last step.
    """
    return Trainer(recipe, run, callbacks).fit()


class Trainer:
    """Sets up a training run, or resumes it, and trains it with `fit`.

    Args:
        recipe: what to train and how.
        run: the run directory.
        callbacks: see `train`.
        load_model: loads the base, with the arguments of `finetune.model.granite.load_model`.
        measure: scores the model on valid and canary, with the arguments of `finetune.training.selection.measure`.
        files: file operations of a checkpoint.
        batch_sizes: cache for `train.batch: auto`; the default is the cache of the user.
        clock: returns seconds.

    Raises:
        CheckpointError, RecipeError, ModelError: see `train`.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunDir,
        callbacks: Sequence[TrainerCallback] = (),
        *,
        load_model: Callable[..., SpeechModel] = load_model,
        measure: Callable[..., Scores] = measure,
        files: checkpoint.CheckpointFiles = checkpoint.DISK,
        batch_sizes: BatchSizeCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recipe, self.run, self.user_callbacks = recipe, run, list(callbacks)
        self.measure, self.files, self.clock = measure, files, clock
        self.started = clock()
        self.accelerator = make_accelerator()
        self.ranks, self.main = self.accelerator.num_processes, self.accelerator.is_main_process
        self.state, self.stop = TrainState(), Stop()
        self.callbacks = CallbackList()  # empty on all ranks except 0
        self.clips_trained, self.seconds_in_steps, self.saved_before = 0, 0.0, False  # of this process
        self.missing = check_on_main_rank(self.accelerator, run)  # by split and id
        self._setup_model(load_model)
        self._setup_data()
        self._setup_optimizer(batch_sizes or BatchSizeCache())
        self._resume()
        self._skip_unreadable()

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
        checkpoint_activations(self.model, self.recipe.machine)
        self.parameters = trained_parameters(self.model)

    def _setup_data(self) -> None:
        """Opens the manifests, and prepares the source of batches: audio, or a cache of the encoder's output."""
        self.manifests = manifests_of(self.recipe, self.run)
        clips = {split: open_manifest(path) for split, path in self.manifests.items()}
        self.corpus = TrainingCorpus(self.model, self.recipe, clips, self.manifests)
        self.data = self.corpus.dataset
        with self.model.autocast():
            self.source = BatchSource(self.data, self.recipe, self.run.cache, self.base, self.main)

    def _setup_optimizer(self, batch_sizes: BatchSizeCache) -> None:
        """Builds the optimizer, plans all steps and wraps the model for several ranks."""
        settings = self.recipe.train
        optimizer = build_optimizer(self.recipe, self.parameters, self.ranks)
        self.learning_rates: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.saved = checkpoint.find(self.run.checkpoint)
        require_same_checkpoint(checkpoint.identity(self.saved), self.run.checkpoint)
        self.batch_seconds: float = settings.batch_seconds
        if settings.batch == "auto" and self.saved:
            self.batch_seconds = checkpoint.read_origin(self.saved).get("batch_seconds", 0.0)
        elif settings.batch == "auto":  # before the model is wrapped, because a wrapped model waits for the other ranks
            unwrapped = self._optimizer_step(self.model, optimizer)
            self.batch_seconds = fit_batch_seconds(unwrapped, self.source, self.base, batch_sizes)
        self.group = checkpoint.batches_in_a_step(self.saved, self.recipe, self.ranks)
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
            self.data,
            copy_loss=copy_loss,
        )

    def _resume(self) -> None:
        """Restores the run's checkpoint if there is one.

        Raises:
            CheckpointError: it belongs to another recipe, base or data, or is damaged.
        """
        hashes = {split: table.manifest_sha256 for split, table in self.corpus.clips.items()}
        if recordings := recordings_state(self.recipe.augment):
            hashes["recordings of augment"] = recordings
        self.origin = checkpoint.origin_of(self.recipe, self.base, hashes, self.group, self.batch_seconds)
        if self.saved is None:
            return
        checkpoint.require_origin(self.saved, self.origin)
        self.load_state_dict(checkpoint.restore(self.saved, self.parameters, self.optimizer))
        log.info("resumed after step %d", self.state.step)
        if self.group < self.ranks:
            log.warning(
                "a step of this run has %d batches for %d processes, as at its start; the other processes have none",
                self.group,
                self.ranks,
            )

    def _skip_unreadable(self) -> None:
        """Skips the clips that the checkpoint names, and those that cannot be read now; too many are a DataError."""
        self.unreadable = UnreadableClips(self.corpus.clips, self.recipe.data.max_bad_fraction, self.state.unreadable)
        self.data.unreadable = self.unreadable.trained
        for split in self.corpus.clips:
            self.unreadable.add(self.missing.get(split, {}), split)
        self.unreadable.add(self.source.unreadable())

    def state_dict(self) -> dict[str, Any]:
        """The progress of the run, which a checkpoint stores with the weights and the optimizer's moments."""
        return asdict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned. Raises CheckpointError for fields of another version."""
        self.state = TrainState.restored(state)

    def save(self) -> bool:
        """Writes a checkpoint; all ranks must call it. Returns False on other ranks, and if the disk is full."""
        gather_moments(self.optimizer)
        if not self.main:
            return False
        progress, trusted = self.state_dict(), self.saved_before
        self.saved_before = checkpoint.save(
            self.run.checkpoint, self.parameters, self.optimizer, progress, self.origin, self.files, trusted
        )
        return self.saved_before

    def fit(self) -> TrainResult:
        """Trains the remaining epochs and returns the scores of the base and of the best adapter.

        Raises:
            CheckpointError, ModelError, Interrupted: see `train`.
        """
        settings = self.recipe.train
        with explain_out_of_memory(), ExitStack() as stack:
            self.stop = stack.enter_context(interruptible())
            stack.enter_context(ignore_stride_warning())
            if self.main:
                self.callbacks = self._open_callbacks(stack)
            self.unreadable.report(self.callbacks, self.state.step)
            if self.state.base is None:
                self._check_base()
                scores = self.validate()
                self.state.base = asdict(scores)
                self.callbacks.on_message(f"base model: {format_scores(scores)}")
            # Fingerprints before the first step, to check what that step changed.
            self.initial_fingerprints: dict[str, int] | None = fingerprints(self.model)
            while self.state.epoch < settings.epochs and not self.state.finished:
                self.train_epoch()
                self._end_epoch()
            for alpha in settings.interpolate:
                self._score_interpolated(alpha)
        # The process group ends with the process and is not destroyed here: DDP's reducer would have its last reference
        # and would wait for gloo's threads with Python's lock (GIL), and these threads can wait for the lock.
        return self._result()

    def train_epoch(self) -> None:
        """Runs the remaining optimizer steps of the current epoch, and writes the checkpoints that are due.

        Raises:
            Interrupted: a rank received a signal.
        """
        set_mode(self.model, training=True)
        plan, first = self.plan(self.state.epoch), self.state.steps_in_epoch
        skipped = frozenset(self.data.unreadable)  # clips that vanish later stay in the plan; see `train_step`

        def remaining() -> Iterator[tuple[list[list[int]], list[list[int]]]]:
            """Each step: the micro-batches of all ranks, and those of this rank."""
            for number in range(first, len(plan)):
                step = [self.data.readable(micro, skipped) for micro in plan[number]]
                yield step, shard_for_rank(step, self.accelerator.process_index, self.ranks)

        audio = self.source.audio((micro for _, local in remaining() for micro in local if micro), self.state.epoch)
        for number, (step, local) in enumerate(remaining(), first + 1):
            result = self.train_step(step, local, audio)
            due = self.state.step % self.recipe.machine.checkpoint_every == 0 and number < len(plan)
            saved = (result.stop or due) and self.save()
            if result.stop:
                raise self._interrupted(saved or not self.main)

    def plan(self, epoch: int) -> EpochPlan:
        """The plan of an epoch; its clips are open until another plan is made."""
        return self.corpus.plan(epoch, self.batch_seconds, self.group)

    def train_step(self, step: list[list[int]], local: list[list[int]], audio: Iterator[MicroAudio]) -> StepResult:
        """Runs one optimizer step at its learning rates and reports it to the callbacks.

        If audio cannot be read, its clips are skipped from now on, and the step runs again without them.

        Args:
            step: the micro-batches of all ranks, as lists of clip indices.
            local: the micro-batches of this rank; see `OptimizerStep.run`.
            audio: the audio of the micro-batches of `local` that are not empty, in order.
        """
        state = self.state
        factor = learning_rate_factor(state.step, self.steps, self.recipe.train.warmup)
        for group, peak in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            group["lr"] = peak * factor
        started = self.clock()
        loaded: list[MicroAudio] = []
        while True:
            batches = map(self.data.from_audio, repeatable(audio, loaded))
            result = self.optimizer_step.run(step, local, batches, state.step, self.stop, self.initial_fingerprints)
            if not result.unreadable:
                break
            self.unreadable.add(result.unreadable)
            self.unreadable.report(self.callbacks, state.step)
        self.seconds_in_steps += self.clock() - started
        state.step, state.steps_in_epoch = state.step + 1, state.steps_in_epoch + 1
        step = [kept for micro in step if (kept := self.data.readable(micro))]
        clips = [index for micro in step for index in micro]
        if result.taken:
            self.initial_fingerprints, state.loss = None, state.loss + result.loss
        else:
            names = [self.data.clips[index].id for index in clips]
            count_skipped(state, result, names, self.recipe.train.max_skipped_steps)
        self.clips_trained += len(clips)
        record = StepRecord(
            state.step,
            state.epoch + 1,
            result.loss,
            result.grad_norm,
            factor * self.learning_rates[0],
            sum(self.data.seconds[np.asarray(clips, np.int64)].tolist()),
            padding_fraction([step], self.data.durations) if step else 0.0,
        )
        self.callbacks.on_step(record)
        return result

    def validate(self) -> Scores:
        """Scores the current weights on valid and canary.

        Clips whose audio can no longer be read are removed from the scores of the base and of the best adapter too.
        """
        set_mode(self.model, training=False)
        splits = {split: self.unreadable.readable(split, items) for split, items in self.corpus.validation.items()}
        scores = self.measure(self.model, splits, self.recipe, self.accelerator)
        for split, found in scores.unreadable.items():
            self.unreadable.add(found, split)
        self.unreadable.report(self.callbacks, self.state.step)
        self.state.leave_out_unreadable()
        return scores

    def save_if_best(self, scores: Scores, alpha: float) -> bool:
        """Saves the current weights as the best adapter if their scores are the best so far. Returns True if saved.

        Args:
            scores: scores of the current weights.
            alpha: interpolation weight: base + alpha * (trained - base).
        """
        state, limit = self.state, self.recipe.train.max_canary_loss
        check_trained(self.parameters, state.epoch)
        base = state.base_scores
        better = state.best is None or rank(scores, base, limit) < rank(state.best_scores, base, limit)
        better = better and all_ranks(self.accelerator, not self.main or save_best(self.model, self.adapted, self.run))
        if better:
            state.best, state.best_epoch, state.best_alpha = asdict(scores), state.epoch, alpha
        self.callbacks.on_validation(ValidationRecord(state.step, state.epoch, alpha, scores.valid, scores.canary))
        return better

    def _open_callbacks(self, stack: ExitStack) -> CallbackList:
        """Logs what trains, and opens the callbacks; `stack` closes them."""
        for row in summarize_parts(self.model):
            count, rate = f"{row.parameters:,}", learning_rate_of(self.recipe, row.part)
            log.info("trains %-14s %4d modules %12s parameters, learning rate %g", row.part, row.modules, count, rate)
        log.info("%d steps, %.1f %% padding, batches of up to %g s", self.steps, 100 * self.padding, self.batch_seconds)
        resumed_step = self.state.step if self.saved else None
        return open_callbacks(stack, self.recipe, self.run.metrics, self.user_callbacks, self.steps, resumed_step)

    def _end_epoch(self) -> None:
        """Validates if the recipe requires it, reports the epoch and writes a checkpoint."""
        state, settings = self.state, self.recipe.train
        taken = max(1, len(self.plan(state.epoch)) - state.skipped_in_epoch)
        text = f"epoch {state.epoch + 1}/{settings.epochs}  loss {state.loss / taken:.3f}"
        text += f"  {self.clips_trained / self.seconds_in_steps:.1f} clips/s" if self.seconds_in_steps else ""
        check_epoch(state, self.recipe)
        state.epoch, state.steps_in_epoch, state.skipped_in_epoch, state.loss = state.epoch + 1, 0, 0, 0.0
        if state.epoch % settings.evaluate_every == 0 or state.epoch == settings.epochs:
            text += f"  {self._score_and_keep_best(1.0)}"
            state.finished = 0 < settings.patience * settings.evaluate_every <= state.epoch - state.best_epoch
            text += "; stopped early" * state.finished
        self.callbacks.on_message(text)
        saved = self.save()
        if not all_ranks(self.accelerator, not self.stop.signum):  # a signal came during the validation
            raise self._interrupted(saved or not self.main)

    def _score_interpolated(self, alpha: float) -> None:
        """Scores weights interpolated between base and trained weights, then restores the trained weights."""
        with interpolated(self.parameters, self.start, alpha):
            text = self._score_and_keep_best(alpha)
        self.callbacks.on_message(f"interpolation alpha {alpha:g}  {text}")
        if not all_ranks(self.accelerator, not self.stop.signum):
            raise self._interrupted(True)

    def _score_and_keep_best(self, alpha: float) -> str:
        """Validates the current weights, saves them if they are the best, and returns the scores as text."""
        scores = self.validate()
        return format_scores(scores) + "  (best)" * self.save_if_best(scores, alpha)

    def _interrupted(self, saved: bool) -> Interrupted:
        """The error for a signal; `saved` is True if the checkpoint contains the last step."""
        return Interrupted(self.state.step if saved else None, self.stop.signum or signal.SIGTERM)

    def _check_base(self) -> None:
        """Checks that the base has a finite loss on the first micro-batch. Every rank computes the same one."""
        micro = next((kept for step in self.plan(0) for micro in step if (kept := self.data.readable(micro))), [])
        for batch in self.source.batches([micro], 0):
            check_base(self.optimizer_step, batch)

    def _result(self) -> TrainResult:
        return train_result(
            self.state,
            self.recipe.train.max_canary_loss,
            skipped_clips=self.unreadable.counts(),
            padding=round(self.padding, 4),
            clips_per_second=round(self.clips_trained / max(1e-9, self.seconds_in_steps), 2),
            trained_parameters=sum(value.numel() for value in self.parameters.values()),
            total_parameters=self.total_parameters,
            seconds=round(self.clock() - self.started, 1),
            typical_duration=self.corpus.typical_duration,
            keyword_prompts=self.corpus.keyword_prompts,
            own_prompts=self.corpus.own_prompts,
        )
