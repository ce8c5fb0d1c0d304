"""What a trainer reports to its callbacks: the progress display, the trackers, and callbacks of the user."""

from collections.abc import Iterable
from dataclasses import dataclass


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


class TrainerCallback:
    """Receives what happens during training, on rank 0 only.

    Subclass it and override the methods that you need; by default they do nothing. An exception in a callback stops
    the training.
    """

    def on_step(self, record: StepRecord) -> None:
        """Runs after each optimizer step, before a checkpoint of that step is written."""

    def on_validation(self, record: ValidationRecord) -> None:
        """Runs after each validation of trained weights. The base model's scores come as a message."""

    def on_message(self, text: str) -> None:
        """Runs for each line that reports on an epoch or on the scores of a model."""

    def close(self) -> None:
        """Runs once at the end, also after an error."""


class CallbackList(TrainerCallback):
    """Passes everything on to several callbacks, in their order."""

    def __init__(self, callbacks: Iterable[TrainerCallback] = ()) -> None:
        self.callbacks = list(callbacks)

    def on_step(self, record: StepRecord) -> None:
        for callback in self.callbacks:
            callback.on_step(record)

    def on_validation(self, record: ValidationRecord) -> None:
        for callback in self.callbacks:
            callback.on_validation(record)

    def on_message(self, text: str) -> None:
        for callback in self.callbacks:
            callback.on_message(text)
