"""Input and output of the advice rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finetune.core.config import Recipe
from finetune.metrics.results import EvaluationResults
from finetune.metrics.scores import Comparison, Scores


@dataclass(frozen=True)
class Overlap:
    """Overlap of test and canary with train and replay.

    Attributes:
        clips: test clips with a training sentence or with training audio.
        sentences: test clips with a training sentence.
        audio: test clips with training audio.
        speakers: test speakers that are in the training data.
        canary_speakers: speakers of the canary that are in the training data.
    """

    clips: int
    sentences: int
    audio: int
    speakers: int
    canary_speakers: int = 0


@dataclass(frozen=True)
class Facts:
    """Facts about one run.

    Attributes:
        results: results of `finetune evaluate`.
        recipe: the recipe of the run, with all defaults.
        valid: validation WER by epoch, without interpolation towards the base.
        overlap: overlap of test with the training data.
        flagged_errors: word errors of the adapted model in flagged test clips.
        pseudo_labels: by split, clips whose texts a model wrote.
    """

    results: EvaluationResults
    recipe: Recipe
    valid: Sequence[tuple[int, float]]
    overlap: Overlap
    flagged_errors: int
    pseudo_labels: Mapping[str, int] = field(default_factory=dict)

    @property
    def test(self) -> Scores:
        """Scores of the adapted model on test."""
        return self.results.scores["test"].adapted

    @property
    def errors(self) -> int:
        """Word errors of the adapted model on test."""
        return self.test.substitutions + self.test.deletions + self.test.insertions

    @property
    def difference(self) -> Comparison:
        """The adapted model against the base on test."""
        return self.results.differences["test"]


@dataclass(frozen=True)
class Advice:
    """A finding with its numbers, and the recommended action; `rule` is the name of the rule."""

    rule: str
    finding: str
    action: str
