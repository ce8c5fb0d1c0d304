"""Conditions of `--fail-if`, such as `wer > base + 0.2`: `finetune compare` exits with 1 if one is true."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.core.errors import DataError, RecipeError
from finetune.metrics.normalizer import normalize
from finetune.metrics.terms import term_recall

METRICS = ("wer", "cer", "recall")
GRAMMAR = f"{', '.join(METRICS[:-1])} or {METRICS[-1]}, then > >= < or <=, then base, base + N, base - N or N"
_NUMBER = r"\d+(?:\.\d+)?"
_CONDITION = re.compile(
    rf"(?P<metric>{'|'.join(METRICS)})\s*(?P<sign>>=|<=|>|<)\s*"
    rf"(?:base(?:\s*(?P<operator>[+-])\s*(?P<shift>{_NUMBER}))?|(?P<limit>{_NUMBER}))"
)
_ROUNDING = 1e-9  # percentage points: 21.4 is not above 21.2 + 0.2, although their sum in floating point is smaller


@dataclass(frozen=True)
class Condition:
    """A comparison of `metric` with a limit in percentage points.

    The limit is the metric of the base plus `shift` if `relative`, else `shift`.
    """

    text: str
    metric: str
    sign: str
    relative: bool
    shift: float

    def is_true(self, metrics: Mapping[str, float | None], base: Mapping[str, float | None]) -> bool:
        """Whether the condition is true for a system, given its metrics and those of the base, as fractions.

        Raises:
            DataError: a metric is undefined, such as the recall if no term occurs in the references, or the WER if they
                have no words.
        """
        value, limit = metrics.get(self.metric), base.get(self.metric) if self.relative else 0.0
        if value is None or limit is None:
            raise DataError(self.undefined())
        excess = 100 * value - 100 * limit - self.shift
        if self.sign[0] == "<":
            excess = -excess
        return excess > _ROUNDING if len(self.sign) == 1 else excess >= -_ROUNDING

    def undefined(self) -> str:
        """A message for references in which the metric has nothing to count."""
        why = "no term occurs in the references" if self.metric == "recall" else "the references have no words"
        return f"--fail-if {self.text!r}: {self.metric} is undefined, because {why}"


def parse_condition(text: str) -> Condition:
    """Parses a condition.

    Raises:
        RecipeError: `text` does not match the grammar.
    """
    match = _CONDITION.fullmatch(text.strip())
    if not match:
        raise RecipeError(
            f"--fail-if {text!r}: invalid condition; write {GRAMMAR}, such as 'wer > base + 0.2' (percentage points)"
        )
    shift = float(match["limit"] or match["shift"] or 0)
    if not math.isfinite(shift):
        raise RecipeError(f"--fail-if {text[:60]!r}: the number is too large; write percentage points")
    return Condition(
        text.strip(),
        match["metric"],
        match["sign"],
        match["limit"] is None,
        -shift if match["operator"] == "-" else shift,
    )


def check_conditions(conditions: Sequence[Condition], references: list[str], terms: list[str], preset: str) -> None:
    """Refuses conditions on metrics that have nothing to count in the references.

    Raises:
        RecipeError: a condition on the recall without terms.
        DataError: no term occurs in the references, or they have no words.
    """
    for condition in conditions:
        if condition.metric != "recall":
            defined = any(normalize(text, preset) for text in references)
        elif terms:
            defined = any(row.support for row in term_recall(references, references, terms, preset))
        else:
            raise RecipeError(
                "--fail-if recall: there are no terms; give --terms FILE, or add a column `terms` to the manifest"
            )
        if not defined:
            raise DataError(condition.undefined())
