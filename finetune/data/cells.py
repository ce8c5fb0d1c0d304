"""Converts values of a corpus table (strings, numbers, NaN, lists) to text, numbers, times, channels and JSON."""

import datetime
import json
import math
import re
import unicodedata
from collections.abc import Iterable

from finetune.core.unicode_text import composed, listed
from finetune.core.wording import count

NO_NUMBER = ("", "nan", "none", "null", "na", "n/a", "-")  # cells of a column of numbers that hold no number
# Cells of a column of speakers that name nobody; such rows are not one person.
NO_SPEAKER = ("n/a", "<na>", "nan", "none", "null", "unk", "<unk>", "unknown", "-", "--", "?")
WHOLE_FLOAT = re.compile(r"(\d+)\.0")
CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")  # 00:00:02.070, 0:02.07, 00:00:02,070
NUMBER_WITH_UNIT = re.compile(r"([+-]?[\d.,]+(?:[eE][+-]?\d+)?)\s*(s|sec|secs|seconds?|ms|msec|milliseconds?)")
THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:[.,]\d{3})+")  # 2,660, which also is 2.66 with a decimal comma
MILLISECONDS = re.compile(r"\s*(?:ms|msec|milliseconds?)$")
SIDES = {"left": 0, "l": 0, "a": 0, "right": 1, "r": 1, "b": 1}  # A is the first side of a call, as in LDC's corpora
ALL_CHANNELS = ("average", "mean", "mix", "mixed")
MAX_SHOWN = 60  # characters of a value in a message


def cell_text(value: object) -> str:
    """A cell as a string without outer white space; "" for None and NaN."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


def cell_speaker(value: object) -> str:
    """The name of a speaker; "" for an empty cell, and for N/A, unknown and the like.

    One person has one name: with one form of accents and spaces, and the number of a column with gaps, which pandas
    writes as 7.0, is 7.
    """
    name = " ".join(composed(cell_text(value)).split())
    name = match[1] if (match := WHOLE_FLOAT.fullmatch(name)) else name
    return "" if name.casefold() in NO_SPEAKER else name


def cell_number(value: object) -> float | None:
    """A cell as a finite number, with a decimal point or comma; None if it is not a number."""
    if isinstance(value, bool):
        return None
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def with_thousands(values: Iterable[object], unit: float) -> str:
    """A number of a column of milliseconds or smaller units with separators of thousands, as 2,660; "" if none has.

    All values from 1,000 on must have them. With decimals, some values have more digits before the sign, or other
    numbers after it.

    Args:
        values: the values of the column.
        unit: seconds of its unit; if it is not smaller than one second, each value must state milliseconds.
    """
    example = ""
    for value in values:
        text = cell_text(value).casefold()
        number = MILLISECONDS.sub("", text)
        if not isinstance(value, str | int) or (unit >= 1 and number == text):
            return ""
        if THOUSANDS.fullmatch(number):
            example = example or number
        elif not (number.isdecimal() and len(number) < 4):
            return ""
    return example


def no_number(value: object) -> bool:
    """Whether a cell of a column of numbers is empty, or holds a usual sign for "no value"."""
    return math.isnan(value) if type(value) is float else cell_text(value).casefold() in NO_NUMBER


def cell_seconds(value: object, unit: float = 1.0) -> float | None:
    """A cell as seconds: a number of `unit` seconds, a number with s or ms, a clock time; None for anything else."""
    if type(value) is float and unit == 1:
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.time):
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if (number := cell_number(value)) is not None:
        return number if unit == 1 else round(number * unit, 9)
    text = cell_text(value)
    if match := NUMBER_WITH_UNIT.fullmatch(text.casefold()):
        number = cell_number(match[1])
        return None if number is None else round(number / 1000, 9) if match[2].startswith("m") else number
    if (match := CLOCK.fullmatch(text)) is None:
        return None
    hours, minutes, seconds = int(match[1] or 0), int(match[2]), float(match[3].replace(",", "."))
    if seconds >= 60 or (match[1] and minutes >= 60):
        return None
    return round(hours * 3600 + minutes * 60 + seconds, 9)


def cell_channel(value: object) -> int | None:
    """The number of a channel, from 0: a number, left or right, L or R, A or B; None for an average of all channels.

    Raises:
        ValueError: the cell is anything else, such as several channels.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if no_number(value) or cell_text(value).casefold() in ALL_CHANNELS:
        return None
    if (side := SIDES.get(cell_text(value).casefold())) is not None:
        return side
    number = None if isinstance(value, list | tuple | dict) else cell_number(value)
    if number is None or number < 0 or number != int(number):
        raise ValueError(f"{shown(value)} is not a channel; write 0, 1, ... or left and right")
    return int(number)


def cell_keywords(value: object) -> list[str]:
    """The distinct keywords of a list, or of a cell that has one as text or separates them by comma, semicolon or line.

    A comma separates keywords in a prompt, so it also does inside an element of a list.
    """
    items = listed(value.strip()) if isinstance(value, str) else None
    value = value if items is None else items
    if isinstance(value, list | tuple):
        parts = [part for item in value for part in (item.split(",") if isinstance(item, str) else [item])]
    else:
        parts = re.split(r"[,;\n]", cell_text(value))
    return list(dict.fromkeys(word for part in parts if (word := clean_text(part))))


def clean_text(value: object) -> str:
    """A transcript in NFC, without invisible and control characters, white space folded; "" for no transcript.

    Only an empty cell is empty: "null" (zero in German), "nan" and "None" can be spoken.
    """
    if isinstance(value, list | dict | bytes):
        return ""
    text = composed(cell_text(value))
    text = "".join(" " if unicodedata.category(char) == "Cc" else char for char in text)
    return " ".join(text.split())


def json_value(value: object) -> object:
    """A value that JSON can hold: None for NaN, a string for dates and other types."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=str))
    except (TypeError, ValueError):
        return None if isinstance(value, float) else str(value)


def shown(value: object) -> str:
    """A value as in Python source, for a message; a long one is shortened."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{count(len(value), 'byte')}>"
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"<a list of {count(len(value), 'value')}>"
    if isinstance(value, dict):
        return f"<an object with the keys {shown(', '.join(map(str, value)))}>"
    text = value if isinstance(value, str) else repr(value)
    if len(text) > MAX_SHOWN:
        text = f"{text[: MAX_SHOWN - 3]}..."
    return repr(text) if isinstance(value, str) else text
