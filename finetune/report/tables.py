"""Rows in which base and adapted stand side by side, from what evaluation lists for each of them."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST_CONFUSIONS = 40


def terms(base: Sequence[Mapping[str, Any]], adapted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a term that was said or heard, those that the adapted model missed most often first."""
    before, after = ({row["term"]: row for row in rows} for rows in (base, adapted))
    nothing = {"hits": 0, "false_alarms": 0}
    rows = []
    for term, row in {**before, **after}.items():
        first, second = before.get(term, nothing), after.get(term, nothing)
        rows.append(
            {
                "term": term,
                "seen": row["seen"],
                "support": row["support"],
                "base": first["hits"],
                "adapted": second["hits"],
                "false_base": first["false_alarms"],
                "false_adapted": second["false_alarms"],
            }
        )
    return sorted(rows, key=lambda row: (row["adapted"] - row["support"], -row["support"], row["term"]))


def entities(base: Sequence[Mapping[str, Any]], adapted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a kind that was said."""
    right = {row["kind"]: row["right"] for row in adapted}
    return [
        {"kind": row["kind"], "said": row["said"], "base": row["right"], "adapted": right[row["kind"]]}
        for row in base
        if row["said"]
    ]


def confusions(base: Sequence[Mapping[str, Any]], adapted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The adapted model's most frequent errors, with the base's count where that is among its own most frequent."""
    before = {(row["reference"], row["hypothesis"]): row["count"] for row in base}
    return [
        {**row, "base": before.get((row["reference"], row["hypothesis"]), "–")} for row in adapted[:MOST_CONFUSIONS]
    ]


def scale(difference: Mapping[str, Any]) -> dict[str, float]:
    """Where zero, the difference and its interval lie on a line from 0 to 100."""
    low, high = min(difference["low"], 0.0), max(difference["high"], 0.0)
    room = 0.08 * (high - low) or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        "zero": place(0.0),
        "value": place(difference["difference"]),
        "left": place(difference["low"]),
        "width": round(place(difference["high"]) - place(difference["low"]), 2),
    }
