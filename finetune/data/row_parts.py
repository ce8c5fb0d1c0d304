"""Finds parts with times in one cell of a row, as recognizers and Label Studio write them; they are not used."""

import json
from collections.abc import Mapping


def unused_parts(values: Mapping[str, object]) -> str:
    """What to do with parts with times in a row; "" if it has none."""
    if _has_segments(values):
        return (
            "column 'segments' has parts with times and texts of their own, as those of Whisper; they are not used: "
            "each row is its whole file with its text. Write a row with audio, start, end and text for each part, or "
            "write subtitles (talk.srt)"
        )
    if regions := _regions_of_label_studio(values):
        return (
            f"column {regions!r} has regions of Label Studio with times; they are not used: each row is its whole file "
            "with its text. Write a row with audio, start, end and text for each region"
        )
    return ""


def _has_segments(values: Mapping[str, object]) -> bool:
    """Whether a row has a list of parts with times and texts, as in the JSON of Whisper."""
    parts = values.get("segments")
    return isinstance(parts, list) and bool(parts) and isinstance(parts[0], dict) and {"start", "text"} <= {*parts[0]}


def _regions_of_label_studio(values: Mapping[str, object]) -> str:
    """The column with a list of labelled regions (JSON-MIN), also as JSON text (CSV); "" if there is none."""
    for name, value in values.items():
        if isinstance(value, str) and value.startswith("[{"):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                continue
        parts = value if isinstance(value, list) else []
        if parts and isinstance(parts[0], dict) and {"start", "end", "labels"} <= parts[0].keys():
            return name
    return ""
