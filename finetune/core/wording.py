"""Numbers with their nouns and verbs, and lists, in messages."""

from collections.abc import Sequence


def count(number: int, noun: str, plural: str = "") -> str:
    """1 clip, 2 clips, 10,000 clips."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def verb(number: int, one: str, several: str) -> str:
    """The verb that agrees with a number: 1 clip has, 2 clips have."""
    return one if number == 1 else several


def all_of(items: Sequence[str]) -> str:
    """One or more items: a, b and c."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def first_of(items: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first items and the number of the others: a, b and 3 more; or, separated by "; ": a; b; and 3 more."""
    rest = len(items) - most
    return separator.join(items[:most]) + (f"{separator.strip(', ')} and {rest:,} more" if rest > 0 else "")


def length_text(hours: float) -> str:
    """12 seconds, 2.6 minutes, 23 minutes, 3.5 hours."""
    if hours < 1 / 60:
        return count(round(3600 * hours), "second")
    number, unit = (60 * hours, "minutes") if hours < 1 else (hours, "hours")
    return f"{number:.1f} {unit}" if number < 10 else f"{number:,.0f} {unit}"
