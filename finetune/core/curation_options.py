"""Options of `finetune pseudo-label`, `finetune suggest` and `finetune curve`: types, ranges and defaults."""

from dataclasses import dataclass
from typing import Annotated, Literal

from finetune.core.errors import RecipeError
from finetune.core.options import MAX_WINDOW, Range, check_options


@dataclass(frozen=True)
class PseudoLabelOptions:
    """Which machine transcripts are good enough to train with.

    Raises:
        RecipeError: a value out of range.
    """

    min_agreement: Annotated[float, Range(ge=0, le=1)] = 0.7
    """Smallest share of the words on which the texts of the CTC head and of the language model agree."""
    min_confidence: Annotated[float, Range(ge=0, le=1)] = 0.8
    """Smallest confidence, the lower one of the CTC head and of the language model."""
    max_duration: Annotated[float, Range(ge=1, le=MAX_WINDOW)] = MAX_WINDOW
    """Longest clip in seconds; a longer recording is cut at pauses. The limit of the model can be lower."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class CurveOptions:
    """How a learning curve is measured.

    Raises:
        RecipeError: a value out of range, or too few shares.
    """

    shares: tuple[float, ...] = (10.0, 25.0, 50.0, 100.0)
    """Per cent of the training audio; a smaller part is contained in each larger one."""
    split: Literal["test", "valid"] = "test"
    """The set that is scored."""
    by: Literal["auto", "speakers", "clips"] = "auto"
    """What the parts consist of: whole speakers, or clips of all speakers. auto chooses speakers if all clips have one
    and there are at least 20."""
    same: Literal["steps", "epochs"] = "steps"
    """What all trainings have in common: the number of steps, or that of epochs."""
    repeats: Annotated[int, Range(ge=1, le=100)] = 1
    """Trainings of each part, each with other random clips and another seed."""

    def __post_init__(self) -> None:
        check_options(self)
        if not all(isinstance(share, int | float) and 0 < share <= 100 for share in self.shares):
            raise RecipeError(f"shares: must be more than 0 and at most 100 per cent, got {self.shares}")
        if len({*self.shares}) < 3 or len({*self.shares}) < len(self.shares):
            raise RecipeError(f"shares: needs three or more different shares, got {self.shares}")
        object.__setattr__(self, "shares", tuple(sorted(map(float, self.shares))))


@dataclass(frozen=True)
class SuggestOptions:
    """How untranscribed clips are ranked.

    Raises:
        RecipeError: a value out of range.
    """

    max_similarity: Annotated[float, Range(gt=0, le=1)] = 0.6
    """Two clips whose hypotheses share more of their character trigrams than this (Jaccard) are near copies; only the
    first counts."""
    max_duration: Annotated[float, Range(ge=1, le=MAX_WINDOW)] = MAX_WINDOW
    """Longest clip in seconds; a longer recording is cut at pauses. The limit of the model can be lower."""

    def __post_init__(self) -> None:
        check_options(self)
