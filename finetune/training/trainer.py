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
from functools import partial
from typing import Any

import numpy as np

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, Interrupted
from finetune.core.run_dir import RunDir
from finetune.core.wording import count as plural
from finetune.model.first_step import fingerprints
from finetune.model.float32 import load_for_training
from finetune.model.granite import SpeechModel
from finetune.model.trainable import set_mode
from finetune.training import checkpoint
from finetune.training.batch_size import BatchSizeCache, explain_out_of_memory
from finetune.training.batches import repeatable
from finetune.training.callbacks import CallbackList, StepRecord, TrainerCallback
from finetune.training.collate import MicroAudio, batch_from_audio
from finetune.training.context import TrainContext
from finetune.training.distributed import all_ranks, check_on_main_rank, ignore_stride_warning, make_accelerator
from finetune.training.health import check_epoch, count_skipped
from finetune.training.interpolate import interpolated
from finetune.training.optimizer import learning_rate_factor
from finetune.training.plan import padding_fraction, shard_for_rank
from finetune.training.selection import Scores, format_scores, measure
from finetune.training.sharded_optimizer import gather_moments
from finetune.training.signals import Stop, interruptible
from finetune.training.state import TrainResult, TrainState, train_result
from finetune.training.step import StepResult
from finetune.training.tracking import open_callbacks
from finetune.training.unreadable import UnreadableClips
from finetune.training.validator import Validator

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
        load_model: loads the base, with the arguments of `finetune.model.float32.load_for_training`.
        measure: scores the model on valid and canary, with the arguments of `finetune.training.selection.measure`.
        files: file operations of a checkpoint.
        batch_sizes: cache for `train.batch: auto`; the default is the cache of the user.

    Raises:
        CheckpointError, RecipeError, ModelError: see `train`.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunDir,
        callbacks: Sequence[TrainerCallback] = (),
        *,
        load_model: Callable[..., SpeechModel] = load_for_training,
        measure: Callable[..., Scores] = measure,
        files: checkpoint.CheckpointFiles = checkpoint.DISK,
        batch_sizes: BatchSizeCache | None = None,
    ) -> None:
        self.recipe, self.run, self.user_callbacks = recipe, run, list(callbacks)
        self.measure, self.files = measure, files
        self.started = time.monotonic()
        self.accelerator = make_accelerator()
        self.ranks, self.main = self.accelerator.num_processes, self.accelerator.is_main_process
        self.state, self.stop = TrainState(), Stop()
        self.callbacks = CallbackList()  # empty on all ranks except 0
        self.clips_trained, self.seconds_in_steps, self.saved_before = 0, 0.0, False  # of this process
        self.missing = check_on_main_rank(self.accelerator, run)  # by split and id
        self.context = TrainContext(recipe, run, self.accelerator, load_model, batch_sizes or BatchSizeCache())
        self.model, self.parameters = self.context.model, self.context.parameters
        self.corpus, self.data = self.context.corpus, self.context.corpus.dataset
        self.optimizer, self.optimizer_step = self.context.optimizer, self.context.optimizer_step
        self._resume()
        self.saved_step = self.state.step if self.context.saved else None  # the step of the checkpoint
        self._skip_unreadable()

    def _resume(self) -> None:
        """Restores the run's checkpoint if there is one.

        Raises:
            CheckpointError: it belongs to another recipe, base or data, or is damaged.
        """
        if (progress := self.context.restore()) is None:
            return
        self.load_state_dict(progress)
        log.info("resumed after step %d", self.state.step)
        if self.context.group < self.ranks:
            log.warning(
                "a step of this run has %s for %d processes, as at its start; the other processes have none",
                plural(self.context.group, "batch", "batches"),
                self.ranks,
            )

    def _skip_unreadable(self) -> None:
        """Skips the clips that the checkpoint names, and those that cannot be read now; too many are a DataError."""
        self.unreadable = UnreadableClips(self.corpus.clips, self.recipe.data.max_bad_fraction, self.state.unreadable)
        self.data.unreadable = self.unreadable.trained
        for split in self.corpus.clips:
            self.unreadable.add(self.missing.get(split, {}), split)
        self.unreadable.add(self.context.source.unreadable())

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
            self.run.checkpoint, self.parameters, self.optimizer, progress, self.context.origin, self.files, trusted
        )
        self.saved_step = self.state.step if self.saved_before else self.saved_step
        return self.saved_before

    def fit(self) -> TrainResult:
        """Trains the remaining epochs and returns the scores of the base and of the best adapter.

        Raises:
            CheckpointError: no adapter could be saved, because the disk is full.
            CheckpointError, ModelError, Interrupted: see `train`.
        """
        settings = self.recipe.train
        with explain_out_of_memory(), ExitStack() as stack:
            self.stop = stack.enter_context(interruptible())
            stack.enter_context(ignore_stride_warning())
            if self.main:
                self.callbacks = self._open_callbacks(stack)
            self.validator = Validator(self.context, self.state, self.unreadable, self.callbacks, self.measure)
            self.unreadable.report(self.callbacks, self.state.step)
            if self.state.base is None:
                self.context.check_base()
                scores = self.validator.validate()
                self.state.base = asdict(scores)
                self.callbacks.on_message(f"base model: {format_scores(scores)}")
            # Fingerprints before the first step, to check what that step changed.
            self.initial_fingerprints: dict[str, int] | None = fingerprints(self.model)
            while self.state.epoch < settings.epochs and not self.state.finished:
                self.train_epoch()
                self._end_epoch()
            self._require_best()
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
        plan, first = self.context.plan(self.state.epoch), self.state.steps_in_epoch
        skipped = frozenset(self.data.unreadable)  # clips that vanish later stay in the plan; see `train_step`

        def remaining() -> Iterator[tuple[list[list[int]], list[list[int]]]]:
            """Each step: the micro-batches of all ranks, and those of this rank."""
            for number in range(first, len(plan)):
                step = [self.data.readable(micro, skipped) for micro in plan[number]]
                yield step, shard_for_rank(step, self.accelerator.process_index, self.ranks)

        micros = (micro for _, local in remaining() for micro in local if micro)
        audio = self.context.source.audio(micros, self.state.epoch)
        for number, (step, local) in enumerate(remaining(), first + 1):
            result = self.train_step(step, local, audio)
            due = self.state.step % self.recipe.machine.checkpoint_every == 0 and number < len(plan)
            if result.stop or due:
                self.save()
            self._end_on_signal(bool(result.stop))

    def train_step(self, step: list[list[int]], local: list[list[int]], audio: Iterator[MicroAudio]) -> StepResult:
        """Runs one optimizer step at its learning rates and reports it to the callbacks.

        If audio cannot be read, its clips are skipped from now on, and the step runs again without them.

        Args:
            step: the micro-batches of all ranks, as lists of clip indices.
            local: the micro-batches of this rank; see `OptimizerStep.run`.
            audio: the audio of the micro-batches of `local` that are not empty, in order.
        """
        state = self.state
        factor = learning_rate_factor(state.step, self.context.steps, self.recipe.train.warmup)
        for group, peak in zip(self.optimizer.param_groups, self.context.learning_rates, strict=True):
            group["lr"] = peak * factor
        started = time.monotonic()
        loaded: list[MicroAudio] = []
        while True:
            batches = map(partial(batch_from_audio, self.data), repeatable(audio, loaded))
            result = self.optimizer_step.run(step, local, batches, state.step, self.stop, self.initial_fingerprints)
            if not result.unreadable:
                break
            self.unreadable.add(result.unreadable)
            self.unreadable.report(self.callbacks, state.step)
        self.seconds_in_steps += time.monotonic() - started
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
            factor * self.context.learning_rates[0],
            sum(self.data.seconds[np.asarray(clips, np.int64)].tolist()),
            padding_fraction([step], self.data.durations) if step else 0.0,
        )
        self.callbacks.on_step(record)
        return result

    def _open_callbacks(self, stack: ExitStack) -> CallbackList:
        """Logs what trains, and opens the callbacks; `stack` closes them."""
        self.context.log_summary()
        steps, users = self.context.steps, self.user_callbacks
        return open_callbacks(stack, self.recipe, self.run.metrics, users, steps, self.saved_step)

    def _end_epoch(self) -> None:
        """Validates if the recipe requires it, reports the epoch and writes a checkpoint."""
        state, settings = self.state, self.recipe.train
        taken = max(1, len(self.context.plan(state.epoch)) - state.skipped_in_epoch)
        text = f"epoch {state.epoch + 1}/{settings.epochs}  loss {state.loss / taken:.3f}"
        text += f"  {self.clips_trained / self.seconds_in_steps:.1f} clips/s" if self.seconds_in_steps else ""
        check_epoch(state, self.recipe)
        state.epoch, state.steps_in_epoch, state.skipped_in_epoch, state.loss = state.epoch + 1, 0, 0, 0.0
        if state.epoch % settings.evaluate_every == 0 or state.epoch == settings.epochs:
            text += f"  {self.validator.score_and_keep_best(1.0)}"
            state.finished = 0 < settings.patience * settings.evaluate_every <= state.epoch - state.best_epoch
            text += "; stopped early" * (state.finished and state.epoch < settings.epochs)
        self.callbacks.on_message(text)
        self.save()
        self._end_on_signal(not all_ranks(self.accelerator, not self.stop.signum))  # it came during the validation

    def _require_best(self) -> None:
        """Saves the trained weights if the disk was full at each validation of them.

        Raises:
            CheckpointError: it is still full.
        """
        if self.state.best is None:
            self.callbacks.on_message(f"trained weights  {self.validator.score_and_keep_best(1.0)}")
        if self.state.best is None:
            place = "to train again" if self.saved_step is None else "to resume from the last checkpoint"
            reason = "no adapter is saved, because the disk is full; free disk space and rerun"
            raise CheckpointError(f"{self.run.best}: {reason} {place}")

    def _score_interpolated(self, alpha: float) -> None:
        """Scores weights interpolated between base and trained weights, then restores the trained weights."""
        with interpolated(self.parameters, self.context.start, alpha):
            self.callbacks.on_message(f"interpolation alpha {alpha:g}  {self.validator.score_and_keep_best(alpha)}")
        self._end_on_signal(not all_ranks(self.accelerator, not self.stop.signum))

    def _end_on_signal(self, stop: bool) -> None:
        """Raises Interrupted if a rank received a signal; rank 0 names the last step if the checkpoint contains it."""
        if stop:
            saved = not self.main or self.saved_step == self.state.step
            raise Interrupted(self.state.step if saved else None, self.stop.signum or signal.SIGTERM)

    def _result(self) -> TrainResult:
        return train_result(
            self.state,
            self.recipe.train.max_canary_loss,
            skipped_clips=self.unreadable.counts(),
            padding=round(self.context.padding, 4),
            clips_per_second=round(self.clips_trained / max(1e-9, self.seconds_in_steps), 2),
            trained_parameters=sum(value.numel() for value in self.parameters.values()),
            total_parameters=self.context.total_parameters,
            seconds=round(time.monotonic() - self.started, 1),
            typical_duration=self.corpus.typical_duration,
            keyword_prompts=self.corpus.keyword_prompts,
            own_prompts=self.corpus.own_prompts,
        )
