"""The progress of training, which a checkpoint stores, and the result of training."""

import logging
from dataclasses import dataclass
from typing import Any

from finetune.training.selection import Scores, canary_loss, rank

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """The progress of a training run; its fields are the keys of a checkpoint's `progress.json`."""

    epoch: int = 0  # completed epochs
    steps_in_epoch: int = 0
    step: int = 0
    skipped: int = 0
    loss: float = 0.0  # summed over the epoch's steps so far
    base: dict[str, Any] | None = None  # Scores of the base model
    best: dict[str, Any] | None = None  # Scores of the best adapter
    best_epoch: int = 0
    best_alpha: float = 1.0  # interpolation weight: base + alpha * (trained - base)
    finished: bool = False  # stopped early

    @property
    def base_scores(self) -> Scores:
        return Scores(**(self.base or {}))

    @property
    def best_scores(self) -> Scores:
        return Scores(**(self.best or {}))


@dataclass(frozen=True)
class TrainResult:
    """The result of training; WER is a fraction.

    Attributes:
        best_alpha: below 1 if weights interpolated with the base (`train.interpolate`) are the best.
        within_canary_limit: whether the best adapter keeps `train.max_canary_loss`.
        padding: fraction of the first epoch's padded audio that is padding.
        clips_per_second: of this call, during its optimizer steps only.
        seconds: duration of this call.
    """

    best_epoch: int
    best_alpha: float
    best_valid_wer: float
    base_valid_wer: float
    best_canary_wer: float | None
    base_canary_wer: float | None
    within_canary_limit: bool
    steps: int
    skipped_steps: int
    padding: float
    clips_per_second: float
    trained_parameters: int
    total_parameters: int
    seconds: float


@dataclass(frozen=True)
class TrainRecord(TrainResult):
    """The content of `train.done.json`; `inputs` is a hash of everything that the stage reads."""

    inputs: str


def train_result(
    state: TrainState,
    max_canary_loss: float | None,
    *,
    padding: float,
    clips_per_second: float,
    trained_parameters: int,
    total_parameters: int,
    seconds: float,
) -> TrainResult:
    """The result of a finished training; warns if no adapter keeps the canary within its limit."""
    base, best = state.base_scores, state.best_scores
    within = rank(best, base, max_canary_loss)[0] == 0
    if not within:
        log.warning(
            "no adapter is within train.max_canary_loss; the adapter with the smallest increase is saved: its canary "
            "WER is %.1f percentage points higher than that of the base model",
            100 * canary_loss(best, base),
        )
    return TrainResult(
        best_epoch=state.best_epoch,
        best_alpha=state.best_alpha,
        best_valid_wer=best.valid,
        base_valid_wer=base.valid,
        best_canary_wer=best.canary,
        base_canary_wer=base.canary,
        within_canary_limit=within,
        steps=state.step,
        skipped_steps=state.skipped,
        padding=padding,
        clips_per_second=clips_per_second,
        trained_parameters=trained_parameters,
        total_parameters=total_parameters,
        seconds=seconds,
    )
