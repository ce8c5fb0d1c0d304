"""Named, versioned text normalizers: they define which words are equal when a hypothesis is scored.

A released preset never changes, because that would change the meaning of earlier scores: a new rule is a new
version. Every preset returns the same text for composed (NFC) and decomposed (NFD) input. The presets in this file
are idempotent and keep combining marks, which are vowels in Indic scripts and voicing marks in Japanese. The two in
`english` follow other projects: they are not idempotent and remove these marks.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache

from finetune.core.errors import RecipeError
from finetune.metrics.english import openasr, whisper

# Quotes, primes and accents that are typed as apostrophes; ™ and ℠ are removed, because NFKC makes them "tm" and "sm".
_TYPED_VARIANTS = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bb\u02bc\u00b4\u0060\u2032\uff07", "'") | dict.fromkeys("\u2122\u2120", "")
)
_WORD_JOINERS = "/\u2044"  # slash, and the fraction slash that NFKC produces for ½
_BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]+\)")
_VARIATION_SELECTORS = ("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef")


@cache
def _normalize_char(char: str) -> str:
    """The character, a space if it separates words, or "" if it is not part of a word."""
    category = unicodedata.category(char)
    if char == "'":
        return char
    if char.isspace() or category in ("Pd", "Pc") or char in _WORD_JOINERS:
        return " "
    if category[0] in "PS" or category in ("Cc", "Cf", "Me"):
        return ""
    return "" if any(first <= char <= last for first, last in _VARIATION_SELECTORS) else char


def _fold(text: str) -> str:
    """One pass of compatibility and case folding; keeps letters, digits, marks, apostrophes and spaces."""
    typed = unicodedata.normalize("NFC", text).translate(_TYPED_VARIANTS)
    return "".join(map(_normalize_char, unicodedata.normalize("NFKC", typed).casefold()))


def _fixpoint(step: Callable[[str], str], text: str) -> str:
    """Repeats `step` until nothing changes: neighbours of a removed character can compose."""
    while (folded := step(text)) != text:
        text = folded
    return text


def _none(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _basic_pass(text: str) -> str:
    words = (word.strip("'") for word in _fold(text).split())
    return " ".join(word for word in words if any(map(str.isalnum, word)))  # NFKC turns "¨" into a mark


def _ja_cer_pass(text: str) -> str:
    return "".join(_fold(text).replace("'", "").split())


def _multi_pass(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    unbracketed = _BRACKETED.sub("", folded)
    chars = (" " if char.isspace() or unicodedata.category(char)[0] in "PS" else char for char in unbracketed)
    return " ".join("".join(char for char in chars if unicodedata.category(char) not in ("Cc", "Cf")).split())


def _multi(text: str) -> str:
    return _fixpoint(_multi_pass, text)


def _basic(text: str) -> str:
    return _fixpoint(_basic_pass, text)


def _ja_cer(text: str) -> str:
    return _fixpoint(_ja_cer_pass, text)


NORMALIZERS: dict[str, Callable[[str], str]] = {
    # Unicode NFC and single spaces; case and punctuation count.
    "none": _none,
    # NFKC and casefold; dashes, slashes and underscores become spaces; other punctuation, symbols and invisible
    # characters are removed ("3,000" -> "3000", "U.S." -> "us"); an apostrophe inside a word is kept, as "'".
    "basic@1": _basic,
    # basic@1 without spaces and apostrophes, for character errors of text that is written without spaces.
    "ja-cer@1": _ja_cer,
    # For any language with spaces: Whisper's basic normalizer (arXiv 2212.04356, appendix C) and the leaderboard's
    # multilingual one, but with marks: NFKC and casefold, text in brackets is removed, each sign becomes a space.
    "multi@1": _multi,
    # Whisper's English normalizer: expands contractions and titles, unifies spellings, writes digits, removes fillers.
    "whisper-en@1": whisper,
    # The English normalizer of the Open ASR Leaderboard, rules of August 2026.
    "openasr@2026-08": openasr,
}
UNSPACED = frozenset({"ja-cer@1"})  # presets whose output has no spaces between words


@lru_cache(maxsize=1 << 16)  # one evaluation normalizes each text several times
def normalize(text: str, preset: str) -> str:
    """Normalizes a text with the named preset.

    Raises:
        RecipeError: the preset is unknown.
    """
    if preset not in NORMALIZERS:
        raise RecipeError(f"unknown normalizer {preset!r}; choose one of: {', '.join(NORMALIZERS)}")
    return NORMALIZERS[preset](text)
