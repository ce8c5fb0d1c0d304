"""Numbers as a report writes them. Rates are fractions in, per cent out; a difference of them is in points."""

from collections.abc import Mapping
from typing import Any


def percent(rate: float | None) -> str:
    """21.4; a dash where nothing was counted."""
    return "–" if rate is None else f"{100 * rate:.1f}"


def points(difference: float) -> str:
    """With its sign: +1.8, -59.7."""
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def span(interval: Mapping[str, Any]) -> str:
    """Of a rate: 15.1 to 27.1."""
    return f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}"


def span_of_points(interval: Mapping[str, Any]) -> str:
    return f"{points(interval['low'])} to {points(interval['high'])}"


def sentence(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def tight(text: str) -> str:
    """No line break between a number and its per cent."""
    return text.replace(" %", "\u00a0%")


def p_value(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def count(number: int, noun: str) -> str:
    """1 clip, 2 clips, 10,000 clips."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
