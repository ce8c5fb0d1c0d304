"""Fine-tunes a base model on the prepared manifests of a run and keeps the best adapter.

There is one process per device (Accelerate). Only the recipe decides which clips an optimizer step contains. The loss
of a step is the sum over its target tokens, on all ranks and in all micro-batches, divided by their number.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, Interrupted
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import fingerprints, open_parts, set_mode, summarize_parts, trained_parameters
from finetune.training import checkpoint
from finetune.training.auto_batch import fit_batch_seconds
from finetune.training.batch_size import BatchSizeCache, explain_out_of_memory
from finetune.training.callbacks import CallbackList, StepRecord, TrainerCallback, ValidationRecord
from finetune.training.corpus import TrainingCorpus
from finetune.training.dataset import Batch, BatchSource
from finetune.training.distributed import all_ranks, ignore_stride_warning, make_accelerator
from finetune.training.interpolate import interpolated, starting_points
from finetune.training.optimizer import build_optimizer, learning_rate_factor, learning_rate_of
from finetune.training.parts import trainable_parts
from finetune.training.progress import Progress
from finetune.training.sampler import padding_fraction, shard_for_rank
from finetune.training.selection import Scores, format_scores, measure, rank, save_best
from finetune.training.signals import Stop, interruptible
from finetune.training.state import TrainResult, TrainState, train_result
from finetune.training.step import OptimizerStep, StepResult
from finetune.training.tracking import Tracker

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
        self.clips_trained, self.seconds_in_steps = 0, 0.0  # of this process
        self._setup_model(load_model)
        self._setup_data()
        self._setup_optimizer(batch_sizes or BatchSizeCache())
        self._resume()

    def _setup_model(self, load_model: Callable[..., SpeechModel]) -> None:
        """Loads the base and makes the recipe's parts trainable."""
        settings = self.recipe.model
        torch.manual_seed(self.recipe.seed)
        self.model = load_model(
            settings.base, settings.dtype, self.accelerator.device, settings.revision, settings.quantize
        )
        self.base = f"{sum(fingerprints(self.model).values()) % 2**64:016x}"
        self.total_parameters = sum(value.numel() for value in self.model.parameters())
        self.adapted = open_parts(self.model, trainable_parts(self.recipe))
        if self.recipe.machine.gradient_checkpointing:
            self.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        self.parameters = trained_parameters(self.model)

    def _setup_data(self) -> None:
        """Reads the manifests, and prepares the source of batches: audio, or a cache of the encoder's output."""
        self.corpus = TrainingCorpus(self.model, self.recipe, self.run)
        self.data = self.corpus.dataset
        with self.model.autocast():
            self.source = BatchSource(self.data, self.recipe, self.run.cache, self.base, self.main)

    def _setup_optimizer(self, batch_sizes: BatchSizeCache) -> None:
        """Builds the optimizer, plans all steps and wraps the model for several ranks."""
        settings = self.recipe.train
        optimizer = build_optimizer(self.recipe, self.parameters)
        self.learning_rates: list[float] = [group["lr"] for group in optimizer.param_groups]
        self.saved = checkpoint.find(self.run.checkpoint)
        self.batch_seconds: float = settings.batch_seconds
        if settings.batch == "auto" and self.saved:
            self.batch_seconds = checkpoint.read_origin(self.saved)["batch_seconds"]
        elif settings.batch == "auto":  # before the model is wrapped, because a wrapped model waits for the other ranks
            unwrapped = self._optimizer_step(self.model, optimizer)
            self.batch_seconds = fit_batch_seconds(unwrapped, self.source, self.base, batch_sizes)
        self.group = self.ranks * settings.accumulation  # micro-batches per optimizer step
        self.plans = self.corpus.plans(self.batch_seconds, self.group)
        self.steps, self.padding = sum(map(len, self.plans)), padding_fraction(self.plans[0], self.data.durations)
        wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        self.optimizer_step = self._optimizer_step(wrapped, self.optimizer)
        self.start = starting_points(self.parameters) if settings.interpolate else {}

    def _optimizer_step(self, wrapped: torch.nn.Module, optimizer: Any) -> OptimizerStep:
        return OptimizerStep(self.recipe, self.accelerator, self.model, wrapped, optimizer, self.parameters, self.data)

    def _resume(self) -> None:
        """Restores the run's checkpoint if there is one.

        Raises:
            CheckpointError: it belongs to another recipe, base or data, or is damaged.
        """
        self.origin = {
            **self.recipe.model_dump(mode="json", include={"model", "augment", "parts", "train", "seed"}),
            "base": self.base,
            "data": self.corpus.hashes(),
            "replay_weight": self.recipe.data.replay_weight,
            "batches_in_a_step": self.group,
            "batch_seconds": self.batch_seconds,
        }
        if self.saved is None:
            return
        if changed := checkpoint.differences(checkpoint.read_origin(self.saved), self.origin):
            raise CheckpointError(
                f"{self.saved} does not match this run: {'; '.join(changed[:5])}. Restore these values, choose another "
                f"name with --set name=..., or delete {self.run.root} to start again"
            )
        self.load_state_dict(checkpoint.restore(self.saved, self.parameters, self.optimizer))
        log.info("resumed after step %d", self.state.step)

    def state_dict(self) -> dict[str, Any]:
        """The progress of the run, which a checkpoint stores with the weights and the optimizer's moments."""
        return asdict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.state = TrainState(**state)

    def save(self) -> bool:
        """Writes a checkpoint. Returns False if the disk is full."""
        return checkpoint.save(
            self.run.checkpoint, self.parameters, self.optimizer, self.state_dict(), self.origin, self.files
        )

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
            if self.state.base is None:
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
        plan = self.plans[self.state.epoch][self.state.steps_in_epoch :]
        local = [shard_for_rank(step, self.accelerator.process_index, self.ranks) for step in plan]
        batches = self.source.batches(
            [micro or step[0] for step, shard in zip(plan, local, strict=True) for micro in shard], self.state.epoch
        )
        for step, shard in zip(plan, local, strict=True):
            result = self.train_step(step, shard, batches)
            due = self.state.step % self.recipe.machine.checkpoint_every == 0 and step is not plan[-1]
            saved = self.main and (result.stop or due) and self.save()
            if result.stop:
                raise self._interrupted(saved or not self.main)

    def train_step(self, step: list[list[int]], local: list[list[int]], batches: Iterator[Batch]) -> StepResult:
        """Runs one optimizer step at its learning rates and reports it to the callbacks.

        Args:
            step: the micro-batches of all ranks, as lists of clip indices.
            local: the micro-batches of this rank; see `OptimizerStep.run`.
            batches: the tensors of `local`, in order.
        """
        state = self.state
        factor = learning_rate_factor(state.step, self.steps, self.recipe.train.warmup)
        for group, peak in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            group["lr"] = peak * factor
        started = self.clock()
        result = self.optimizer_step.run(step, local, batches, state.step, self.stop, self.initial_fingerprints)
        self.seconds_in_steps += self.clock() - started
        state.step, state.steps_in_epoch = state.step + 1, state.steps_in_epoch + 1
        utterances = [self.data.utterances[index] for micro in step for index in micro]
        if result.taken:
            self.initial_fingerprints, state.loss = None, state.loss + result.loss
        else:
            self._skip(utterances, result)
        self.clips_trained += len(utterances)
        record = StepRecord(
            state.step,
            state.epoch + 1,
            result.loss,
            result.grad_norm,
            factor * self.learning_rates[0],
            sum(item.duration for item in utterances),
            padding_fraction([step], self.data.durations),
        )
        self.callbacks.on_step(record)
        return result

    def validate(self) -> Scores:
        """Scores the current weights on valid and canary."""
        set_mode(self.model, training=False)
        return self.measure(self.model, self.corpus.validation, self.recipe, self.accelerator)

    def save_if_best(self, scores: Scores, alpha: float) -> bool:
        """Saves the current weights as the best adapter if their scores are the best so far. Returns True if saved.

        Args:
            scores: scores of the current weights.
            alpha: interpolation weight: base + alpha * (trained - base).
        """
        state, limit = self.state, self.recipe.train.max_canary_loss
        base = state.base_scores
        better = state.best is None or rank(scores, base, limit) < rank(state.best_scores, base, limit)
        better = better and all_ranks(self.accelerator, not self.main or save_best(self.model, self.adapted, self.run))
        if better:
            state.best, state.best_epoch, state.best_alpha = asdict(scores), state.epoch, alpha
        self.callbacks.on_validation(ValidationRecord(state.step, state.epoch, alpha, scores.valid, scores.canary))
        return better

    def _open_callbacks(self, stack: ExitStack) -> CallbackList:
        """Opens the progress display and the trackers, which run before the user's callbacks; `stack` closes them."""
        recipe, step = self.recipe, self.state.step
        for callback in self.user_callbacks:
            stack.callback(callback.close)
        settings, resumed_step = recipe.model_dump(mode="json"), step if self.saved else None
        tracker = Tracker(self.run.metrics, recipe.name, list(recipe.machine.trackers), settings, resumed_step)
        stack.callback(tracker.close)
        for row in summarize_parts(self.model):
            count, rate = f"{row.parameters:,}", learning_rate_of(recipe, row.part)
            log.info("trains %-14s %4d modules %12s parameters, learning rate %g", row.part, row.modules, count, rate)
        log.info("%d steps, %.1f %% padding, batches of up to %g s", self.steps, 100 * self.padding, self.batch_seconds)
        progress = Progress(self.steps, step, recipe.train.epochs, sys.stdout.isatty())
        stack.callback(progress.close)
        return CallbackList([progress, tracker, *self.user_callbacks])

    def _end_epoch(self) -> None:
        """Validates if the recipe requires it, reports the epoch and writes a checkpoint."""
        state, settings = self.state, self.recipe.train
        text = f"epoch {state.epoch + 1}/{settings.epochs}  loss {state.loss / len(self.plans[state.epoch]):.3f}"
        text += f"  {self.clips_trained / self.seconds_in_steps:.1f} clips/s" if self.seconds_in_steps else ""
        state.epoch, state.steps_in_epoch, state.loss = state.epoch + 1, 0, 0.0
        if state.epoch % settings.evaluate_every == 0 or state.epoch == settings.epochs:
            text += f"  {self._score_and_keep_best(1.0)}"
            state.finished = 0 < settings.patience * settings.evaluate_every <= state.epoch - state.best_epoch
            text += "; stopped early" * state.finished
        self.callbacks.on_message(text)
        saved = self.main and self.save()
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

    def _skip(self, utterances: list[Utterance], result: StepResult) -> None:
        """Counts a skipped step. Above the limit it raises CheckpointError, and no checkpoint is written."""
        state, limit = self.state, self.recipe.train.max_skipped_steps
        state.skipped += 1
        ids = [item.id for item in utterances]
        text = (
            f"step {state.step}: loss {result.loss:g}, gradient {result.grad_norm:g}, utterances {', '.join(ids[:8])}"
        )
        text += f" and {len(ids) - 8} more" if len(ids) > 8 else ""
        if state.skipped > limit:
            raise CheckpointError(
                f"{text}. More than train.max_skipped_steps: {limit} steps were skipped; check these clips, or lower "
                "the learning rates. The last checkpoint is valid"
            )
        log.warning("%s: step skipped", text)

    def _result(self) -> TrainResult:
        return train_result(
            self.state,
            self.recipe.train.max_canary_loss,
            padding=round(self.padding, 4),
            clips_per_second=round(self.clips_trained / max(1e-9, self.seconds_in_steps), 2),
            trained_parameters=sum(value.numel() for value in self.parameters.values()),
            total_parameters=self.total_parameters,
            seconds=round(self.clock() - self.started, 1),
        )
