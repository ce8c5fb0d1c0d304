"""Reads lists of keywords: expected words and phrases."""

import re
from collections.abc import Iterable
from unicodedata import category

from finetune.core.errors import RecipeError
from finetune.core.unicode_text import composed

CONTROL_CHARACTERS = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories; line breaks and tabs are among them
CONTROL_TOKEN = re.compile(r"<\s*\|[^<>]*\|\s*>")  # such as <|audio|>


def parse_keywords(words: str | Iterable[str], commas: bool = False) -> tuple[str, ...]:
    """Composes characters as transcripts have them; removes outer spaces, empty keywords and duplicates.

    Args:
        words: a list, or one string with commas between keywords.
        commas: whether a word of a list can have a comma; in a prompt it separates keywords.

    Raises:
        RecipeError: a keyword is not a string, or contains a comma or a control character.
    """
    unique, refused = dict[str, None](), "" if commas else ","
    items = list(words.split(",") if isinstance(words, str) else words) if isinstance(words, Iterable) else [words]
    if wrong := [item for item in items if not isinstance(item, str)]:
        raise RecipeError(f"keywords: must be strings, got {wrong[0]!r}")
    for word in (composed(item).strip() for item in items):
        forbidden = next((char for char in word if char in refused or category(char) in CONTROL_CHARACTERS), None)
        if forbidden:
            raise RecipeError(f"keyword {word!r} contains {forbidden!r}; give each keyword separately, on one line")
        if word:
            unique[word] = None
    return tuple(unique)
