"""What the rules of advice look at, and what they give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Of one run.

    Attributes:
        metrics: as `evaluate` wrote them.
        recipe: all its sections, with every value.
        valid: valid WER of whole adapters (nothing interpolated), by epoch.
        leaked: `clips` of test whose text (`sentences`) or `audio` is trained on, and `speakers` that are.
        flagged_errors: word errors of the adapted model in test clips that have a flag.
    """

    metrics: Mapping[str, Any]
    recipe: Mapping[str, Any]
    valid: Sequence[tuple[int, float]]
    leaked: Mapping[str, int]
    flagged_errors: int

    @property
    def test(self) -> Mapping[str, Any]:
        """Scores of the adapted model on test."""
        return self.metrics["scores"]["test"]["adapted"]

    @property
    def errors(self) -> int:
        return self.test["substitutions"] + self.test["deletions"] + self.test["insertions"]

    @property
    def difference(self) -> Mapping[str, Any]:
        return self.metrics["differences"]["test"]


@dataclass(frozen=True)
class Advice:
    """What was found, with its numbers, and what to do about it."""

    rule: str
    found: str
    cure: str
