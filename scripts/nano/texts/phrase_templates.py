"""Reads the words and templates of the phrase book: own/phrase_words.tsv and own/phrase_templates.tsv."""

import csv
from pathlib import Path

from nano.texts.number_words import cardinal
from nano.texts.phrase_book import LANGUAGES
from nano.texts.templates import OWN

# Counted things are masculine, and numbers that end in 1 are left out (Portuguese: 2 too), so a number has one form.
NUMBERS = {
    "n": (3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 18, 20, 24, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90),
    "few": (3, 4, 5, 6, 7, 8, 9),
}


def read_words(folder: Path = OWN) -> dict[str, list[list[str]]]:
    """Slot -> its values, each in all languages; with the numbers in words."""
    words: dict[str, list[list[str]]] = {
        slot: [[cardinal(n, language) for language in LANGUAGES] for n in numbers] for slot, numbers in NUMBERS.items()
    }
    for slot, *values in _rows(folder / "phrase_words.tsv", ["slot", *LANGUAGES]):
        words.setdefault(slot, []).append(values)
    return words


def read_phrase_templates(folder: Path = OWN) -> list[list[str]]:
    """The templates, each in all languages."""
    return _rows(folder / "phrase_templates.tsv", list(LANGUAGES))


def _rows(path: Path, columns: list[str]) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    for number, row in enumerate([header, *rows], 1):
        if len(row) != len(columns) or not all(row) or (number == 1 and row != columns):
            raise ValueError(f"{path}:{number}: needs {len(columns)} columns: {', '.join(columns)}")
    return rows
