"""Reads lists of keywords: expected words and phrases."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from unicodedata import category

from finetune.core.errors import DataError, RecipeError
from finetune.core.files import numbered_lines
from finetune.core.unicode_text import composed

CONTROL_CHARACTERS = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories; line breaks and tabs are among them
CONTROL_TOKEN = re.compile(r"<\s*\|[^<>]*\|\s*>")  # such as <|audio|>


def term_list(path: str | Path) -> list[tuple[int, str]]:
    """The lines of a file with one word or phrase on each, with their numbers; empty lines are skipped.

    Raises:
        DataError: the file cannot be read, a line has a comment or is a row of a table, or all terms are on one line
            with commas.
    """
    lines = numbered_lines(path)
    for number, line in lines:
        if line.startswith("# ") or " # " in line:
            raise DataError(f"{path}:{number}: {line[:60]!r} has a comment; a list of terms has terms only, remove it")
        if problem := columns_problem(line):
            raise DataError(f"{path}:{number}: {problem}")
        if line.startswith('{"'):
            raise DataError(f"{path}:{number}: {line[:60]!r} is JSON; write one term per line")
    if len(lines) == 1 and "," in lines[0][1]:
        raise DataError(f"{path}: all terms are on one line with commas; write one term per line")
    return lines


def parse_keywords(words: str | Iterable[str], commas: bool = False) -> tuple[str, ...]:
    """Composes characters as transcripts have them; removes outer spaces, empty keywords and duplicates.

    Args:
        words: a list, or one string with commas or semicolons between keywords.
        commas: whether a word of a list, which is then one of terms, can have a comma; in a prompt a comma separates
            keywords.

    Raises:
        RecipeError: a dict, or a keyword that is not a string or contains a comma, a semicolon or a control character.
    """
    if isinstance(words, Mapping):
        raise RecipeError("keywords: a dict of weights is not supported; give a list of the keywords")
    unique, refused = dict[str, None](), ";" if commas else ",;"
    parts = re.split("[,;]", words) if isinstance(words, str) else words
    items = list(parts) if isinstance(parts, Iterable) else [parts]
    if wrong := [item for item in items if not isinstance(item, str)]:
        raise RecipeError(f"{'terms' if commas else 'keywords'}: must be strings, got {wrong[0]!r}")
    for word in (composed(item).strip() for item in items):
        forbidden = next((char for char in word if char in refused or category(char) in CONTROL_CHARACTERS), None)
        if forbidden:
            raise RecipeError(f"keyword {word!r} contains {forbidden!r}; give each keyword separately, on one line")
        if word:
            unique[word] = None
    return tuple(unique)


def columns_problem(line: str) -> str:
    """Why a line of a list is not one term but a row of a table, such as one of Excel; "" if it can be a term."""
    mark = next((name for sign, name in ((";", "semicolon"), ("\t", "tab")) if sign in line.strip()), "")
    shown = line.strip() if len(line) <= 80 else f"{line[:80]}..."
    return (
        f"{shown!r} has a {mark}, as a table with columns; write one term per line and no other column" if mark else ""
    )
