"""Callbacks of the trainer: the base class and its records, for progress display, trackers and user callbacks."""

from collections.abc import Iterable
from dataclasses import dataclass

from finetune.core.errors import RecipeError


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step, over all ranks."""

    step: int  # from 1
    epoch: int  # from 1
    loss: float  # per target token
    grad_norm: float  # before clipping
    learning_rate: float  # of the first parameter group
    audio_seconds: float  # without padding
    padding: float  # fraction of the padded audio that is padding, 0 to 1


@dataclass(frozen=True)
class ValidationRecord:
    """The scores of one adapter; WER is a fraction, and `canary_wer` is None without a canary."""

    step: int  # optimizer steps so far
    epoch: int  # completed epochs
    alpha: float  # 1 for the trained weights, less for weights interpolated with the base
    wer: float
    canary_wer: float | None


@dataclass(frozen=True)
class SkippedClip:
    """A clip that is skipped from now on, because its audio can no longer be read."""

    step: int  # optimizer steps so far
    split: str
    id: str
    reason: str


class TrainerCallback:
    """Base class of callbacks; the trainer calls them on rank 0 only.

    Subclass it and override the methods that you need; by default they do nothing. An exception in a callback stops
    the training.
    """

    def on_step(self, record: StepRecord) -> None:
        """Runs after each optimizer step, before a checkpoint of that step is written."""

    def on_validation(self, record: ValidationRecord) -> None:
        """Runs after each validation of trained weights. The scores of the base model are reported by `on_message`."""

    def on_skipped_clip(self, record: SkippedClip) -> None:
        """Runs once for each clip whose audio can no longer be read."""

    def on_message(self, text: str) -> None:
        """Runs for each line about an epoch or about the scores of a model."""

    def close(self) -> None:
        """Runs once at the end, even after an error."""


def check_callbacks(callbacks: object) -> None:
    """Raises RecipeError for what is not a list of objects with the methods of `TrainerCallback`."""
    methods = [name for name in vars(TrainerCallback) if not name.startswith("_")]
    advice = "give a list of objects of subclasses of TrainerCallback (docs/python.md), such as [PrintLoss()]"
    if not isinstance(callbacks, list | tuple):
        raise RecipeError(f"callbacks: got {callbacks!r}; {advice}")
    for callback in callbacks:
        missing = [] if isinstance(callback, type) else [name for name in methods if not hasattr(callback, name)]
        if missing or isinstance(callback, type):
            lacks = f", which has no {' and no '.join(missing)}" if 0 < len(missing) < len(methods) else ""
            raise RecipeError(f"callbacks: got {callback!r}{lacks}; {advice}")


class CallbackList(TrainerCallback):
    """Calls several callbacks in order."""

    def __init__(self, callbacks: Iterable[TrainerCallback] = ()) -> None:
        self.callbacks = list(callbacks)

    def on_step(self, record: StepRecord) -> None:
        for callback in self.callbacks:
            callback.on_step(record)

    def on_validation(self, record: ValidationRecord) -> None:
        for callback in self.callbacks:
            callback.on_validation(record)

    def on_skipped_clip(self, record: SkippedClip) -> None:
        for callback in self.callbacks:
            callback.on_skipped_clip(record)

    def on_message(self, text: str) -> None:
        for callback in self.callbacks:
            callback.on_message(text)
