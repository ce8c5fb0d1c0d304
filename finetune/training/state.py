"""The progress of training, which a checkpoint stores, and the result of training."""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from finetune.core.errors import CheckpointError
from finetune.training.selection import Scores, canary_loss, rank

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """The progress of a training run; its fields are the keys of a checkpoint's `progress.json`."""

    epoch: int = 0  # completed epochs
    steps_in_epoch: int = 0
    step: int = 0
    skipped: int = 0  # steps with a loss or gradient that is not finite
    skipped_in_epoch: int = 0  # these, and steps without a clip that can be read
    loss: float = 0.0  # summed over the epoch's steps so far
    base: dict[str, Any] | None = None  # Scores of the base model
    best: dict[str, Any] | None = None  # Scores of the best adapter
    best_epoch: int = 0
    best_alpha: float = 1.0  # interpolation weight: base + alpha * (trained - base)
    finished: bool = False  # stopped early
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)  # see `UnreadableClips`

    @classmethod
    def restored(cls, progress: dict[str, Any]) -> "TrainState":
        """The state from the content of `progress.json`; fields that an earlier version did not write get defaults.

        Raises:
            CheckpointError: the content is not an object, or has other fields.
        """
        try:
            return cls(**progress)
        except TypeError as error:
            raise CheckpointError(
                f"the progress in the checkpoint was written by another version of the toolkit ({error}); resume with "
                "that version, or choose another name with --set name=..."
            ) from error

    def set_best(self, record: dict[str, Any]) -> None:
        """Takes scores, epoch and alpha of the best adapter from the record that is saved with it."""
        self.best, self.best_epoch, self.best_alpha = record["best"], record["best_epoch"], record["best_alpha"]

    def leave_out_unreadable(self) -> None:
        """Removes skipped clips from the scores of base and best adapter, so that all scores are of the same clips."""
        for split, reasons in self.unreadable.items():
            self.base = asdict(self.base_scores.without(split, reasons)) if self.base else None
            self.best = asdict(self.best_scores.without(split, reasons)) if self.best else None

    @property
    def base_scores(self) -> Scores:
        return Scores(**(self.base or {}))

    @property
    def best_scores(self) -> Scores:
        return Scores(**(self.best or {}))


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of training; WER is a fraction.

    Attributes:
        best_alpha: below 1 if weights interpolated with the base (`train.interpolate`) are the best.
        within_canary_limit: whether the best adapter keeps `train.max_canary_loss`.
        skipped_clips: by split, clips that were skipped because their audio could not be read.
        padding: fraction of the first epoch's padded audio that is padding.
        clips_per_second: of this call, during its optimizer steps only.
        seconds: duration of this call.
        typical_duration: seconds that clips with half of the training audio do not exceed, after concatenation; None if
            it was not recorded (0.2.0).
        keyword_prompts: whether training clips had keywords in the prompt; None if it was not recorded (0.2.0).
        own_prompts: whether training clips had a task, a style or an instruction of their own; None as above.
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
    skipped_clips: dict[str, int] = field(default_factory=dict)  # the default is for runs of 0.2.0
    padding: float
    clips_per_second: float
    trained_parameters: int
    total_parameters: int
    seconds: float
    typical_duration: float | None = field(default=None, kw_only=True)
    keyword_prompts: bool | None = field(default=None, kw_only=True)
    own_prompts: bool | None = field(default=None, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class TrainRecord(TrainResult):
    """The content of `train.done.json`; `inputs` is a hash of everything that the stage reads, `base_weights`
    one of the weights of the base; "" if it was not recorded, or the base is not a local folder."""

    inputs: str
    base_weights: str = ""


def train_result(
    state: TrainState,
    max_canary_loss: float | None,
    *,
    skipped_clips: dict[str, int],
    padding: float,
    clips_per_second: float,
    trained_parameters: int,
    total_parameters: int,
    seconds: float,
    typical_duration: float,
    keyword_prompts: bool,
    own_prompts: bool,
) -> TrainResult:
    """The result of a finished training; warns if no adapter keeps the canary within its limit, or all are worse."""
    base, best = state.base_scores, state.best_scores
    within = rank(best, base, max_canary_loss)[0] == 0
    if not within:
        log.warning(
            "no adapter is within train.max_canary_loss; the adapter with the smallest increase is saved: its canary "
            "%s is %.1f percentage points higher than that of the base model",
            best.metric("canary"),
            100 * canary_loss(best, base),
        )
    if best.valid > base.valid:
        log.warning(
            "no adapter is better than the base model: the %s of the best one on valid is %.1f %%, that of the base "
            "model %.1f %%; try a lower train.learning_rate",
            best.metric("valid"),
            100 * best.valid,
            100 * base.valid,
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
        skipped_clips=skipped_clips,
        padding=padding,
        clips_per_second=clips_per_second,
        trained_parameters=trained_parameters,
        total_parameters=total_parameters,
        seconds=seconds,
        typical_duration=typical_duration,
        keyword_prompts=keyword_prompts,
        own_prompts=own_prompts,
    )
