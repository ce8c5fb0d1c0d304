"""Numbers with their nouns and verbs in messages."""


def count(number: int, noun: str, plural: str = "") -> str:
    """1 clip, 2 clips, 10,000 clips."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def verb(number: int, one: str, several: str) -> str:
    """The verb that agrees with a number: 1 clip has, 2 clips have."""
    return one if number == 1 else several


def seconds_below_a_minute(hours: float) -> str:
    """The seconds of a duration of less than a minute; "" for a longer one."""
    return count(round(3600 * hours), "second") if hours < 1 / 60 else ""


def length_text(hours: float) -> str:
    """12 seconds, 0.02 h, 3.50 h."""
    return seconds_below_a_minute(hours) or f"{hours:.2f} h"
