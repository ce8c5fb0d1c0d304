"""Formats numbers for a report. Rates are fractions, shown in per cent; differences are shown in percentage points."""

from typing import Protocol


class Bounds(Protocol):
    """An interval; None if it is not defined."""

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


def percent(rate: float | None) -> str:
    """21.4; a dash for None."""
    return "–" if rate is None else f"{100 * rate:.1f}"


def points(difference: float | None) -> str:
    """With a sign: +1.8, −59.7; a dash for None."""
    if difference is None:
        return "–"
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def span(interval: Bounds) -> str:
    """The interval of a rate: 15.1 to 27.1."""
    return f"{percent(interval.low)} to {percent(interval.high)}"


def span_of_points(interval: Bounds) -> str:
    """The interval of a difference: −2.1 to +0.4."""
    return f"{points(interval.low)} to {points(interval.high)}"


def sentence(text: str) -> str:
    """Capitalizes the first letter and does not change the others."""
    return text[:1].upper() + text[1:]


def tight(text: str) -> str:
    """Puts a no-break space before each per cent sign."""
    return text.replace(" %", "\u00a0%")


def p_value(value: float | None) -> str:
    """Three digits; a dash for None."""
    if value is None:
        return "–"
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
