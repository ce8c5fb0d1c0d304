"""Conditions under which a comparison fails, such as `wer > base + 0.2`, for continuous integration."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from finetune.core.errors import DataError, RecipeError

METRICS = ("wer", "cer", "recall")
GRAMMAR = f"{', '.join(METRICS[:-1])} or {METRICS[-1]}, then > >= < or <=, then base, base + N, base - N or N"
_NUMBER = r"\d+(?:\.\d+)?"
_CONDITION = re.compile(
    rf"(?P<metric>{'|'.join(METRICS)})\s*(?P<sign>>=|<=|>|<)\s*"
    rf"(?:base(?:\s*(?P<way>[+-])\s*(?P<shift>{_NUMBER}))?|(?P<limit>{_NUMBER}))"
)
_ROUNDING = 1e-9  # points: 21.4 is not above 21.2 + 0.2, whatever their binary fractions add up to


@dataclass(frozen=True)
class Condition:
    """`metric` compared with a limit in points of 100: `shift` beyond the base's own (`relative`), or `shift` alone."""

    text: str
    metric: str
    sign: str
    relative: bool
    shift: float

    def fires(self, value: Mapping[str, float | None], base: Mapping[str, float | None]) -> bool:
        """Whether it holds for a system, given its metrics and the base's, as fractions.

        Raises:
            DataError: the metric is not known of one of them: no term was said.
        """
        own, other = value.get(self.metric), base.get(self.metric) if self.relative else 0.0
        if own is None or other is None:
            raise DataError(f"--fail-if {self.text!r}: {self.metric} is not known, for no term was said in these clips")
        beyond = 100 * own - 100 * other - self.shift
        if self.sign[0] == "<":
            beyond = -beyond
        return beyond > _ROUNDING if len(self.sign) == 1 else beyond >= -_ROUNDING


def parse_condition(text: str) -> Condition:
    """Raises RecipeError where `text` is not of the grammar."""
    match = _CONDITION.fullmatch(text.strip())
    if not match:
        raise RecipeError(
            f"--fail-if {text!r}: cannot be read; write {GRAMMAR}, such as 'wer > base + 0.2' (points of 100)"
        )
    shift = float(match["limit"] or match["shift"] or 0)
    return Condition(
        text.strip(), match["metric"], match["sign"], match["limit"] is None, -shift if match["way"] == "-" else shift
    )
