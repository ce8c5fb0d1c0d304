"""Conditions of `--fail-if`, such as `wer > base + 0.2`: `finetune compare` exits with 1 if one is true."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from finetune.core.errors import DataError, RecipeError

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
            DataError: a metric is undefined, such as the recall if no term occurs in the references.
        """
        value, limit = metrics.get(self.metric), base.get(self.metric) if self.relative else 0.0
        if value is None or limit is None:
            raise DataError(
                f"--fail-if {self.text!r}: {self.metric} is undefined, because no term occurs in the references"
            )
        excess = 100 * value - 100 * limit - self.shift
        if self.sign[0] == "<":
            excess = -excess
        return excess > _ROUNDING if len(self.sign) == 1 else excess >= -_ROUNDING


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
