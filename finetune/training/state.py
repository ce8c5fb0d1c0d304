"""Where training stands, which a checkpoint holds, and what training returns."""

from dataclasses import dataclass
from typing import Any

from finetune.training.selection import Scores


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
    best_alpha: float = 1.0  # fraction of the way from the base's weights to that epoch's
    finished: bool = False  # stopped early

    @property
    def base_scores(self) -> Scores:
        return Scores(**(self.base or {}))

    @property
    def best_scores(self) -> Scores:
        return Scores(**(self.best or {}))


@dataclass(frozen=True)
class TrainResult:
    """What training returns; WER is a fraction.

    Attributes:
        best_alpha: below 1 where weights interpolated with the base (`train.interpolate`) are the best.
        within_canary_limit: whether the best adapter keeps `train.max_canary_loss`.
        padding: fraction of the first epoch's padded audio that is padding.
        clips_per_second: of this call, over its optimizer steps alone.
        seconds: of this call.
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
