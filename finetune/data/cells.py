"""Converts values of a corpus table (strings, numbers, NaN, lists) to text, numbers, keywords and JSON."""

import json
import math
import re
import unicodedata

# Soft hyphen, zero-width space, byte-order mark, direction marks: invisible and silent, but separate tokens.
INVISIBLE = re.compile("[\u00ad\u200b\ufeff\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069]")


def cell_text(value: object) -> str:
    """A cell as a string without outer white space; "" for None and NaN."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value).strip()


def cell_number(value: object) -> float | None:
    """A cell as a finite number, with a decimal point or comma; None if it is not a number."""
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def cell_keywords(value: object) -> list[str]:
    """The distinct keywords of a list, or of a cell that separates them by comma, semicolon or line."""
    parts = value if isinstance(value, list | tuple) else re.split(r"[,;\n]", cell_text(value))
    return list(dict.fromkeys(word for part in parts if (word := clean_text(part))))


def clean_text(value: object) -> str:
    """A transcript in NFC, without invisible and control characters, white space folded; "" for no transcript.

    Only an empty cell is empty: "null" (zero in German), "nan" and "None" can be spoken.
    """
    if isinstance(value, list | dict):
        return ""
    text = INVISIBLE.sub("", unicodedata.normalize("NFC", cell_text(value)))
    text = "".join(" " if unicodedata.category(char) == "Cc" else char for char in text)
    return " ".join(text.split())


def json_value(value: object) -> object:
    """A value that JSON can hold: None for NaN, a string for dates and other types."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=str))
    except (TypeError, ValueError):
        return None if isinstance(value, float) else str(value)
