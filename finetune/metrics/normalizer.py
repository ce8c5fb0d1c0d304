"""Named, versioned text normalizers: what counts as the same word when a hypothesis is scored.

A preset never changes once released, since scores made with it would silently mean something else:
a new rule is a new version. Every preset gives the same text for composed (NFC) and decomposed (NFD)
input. Those written here are idempotent and keep combining marks, which are vowels in Indic scripts
and voicing marks in Japanese; the two of `english`, which do what others do, are neither.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache

from finetune.core.errors import RecipeError
from finetune.metrics.english import openasr, whisper

# Quotes, primes and accents that people type for an apostrophe; ™ and ℠ must go before NFKC spells them "tm", "sm".
_TYPED_VARIANTS = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bb\u02bc\u00b4\u0060\u2032\uff07", "'") | dict.fromkeys("\u2122\u2120", "")
)
_WORD_JOINERS = "/\u2044"  # slash, and the fraction slash that NFKC makes of ½
_BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]+\)")
_VARIATION_SELECTORS = ("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef")


@cache
def _plain(char: str) -> str:
    """The character itself, a space where it parts two words, or nothing where it is no part of a word."""
    category = unicodedata.category(char)
    if char == "'":
        return char
    if char.isspace() or category in ("Pd", "Pc") or char in _WORD_JOINERS:
        return " "
    if category[0] in "PS" or category in ("Cc", "Cf", "Me"):
        return ""
    return "" if any(first <= char <= last for first, last in _VARIATION_SELECTORS) else char


def _fold(text: str) -> str:
    """One pass of compatibility and case folding, with only letters, digits, marks, apostrophes and spaces left."""
    typed = unicodedata.normalize("NFC", text).translate(_TYPED_VARIANTS)
    return "".join(map(_plain, unicodedata.normalize("NFKC", typed).casefold()))


def _fixpoint(step: Callable[[str], str], text: str) -> str:
    """Repeat `step` until it changes nothing: what one pass removes may let its neighbours compose."""
    while (folded := step(text)) != text:
        text = folded
    return text


def _none(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _basic_pass(text: str) -> str:
    words = (word.strip("'") for word in _fold(text).split())
    return " ".join(word for word in words if any(map(str.isalnum, word)))  # NFKC makes "¨" a mark alone


def _ja_cer_pass(text: str) -> str:
    return "".join(_fold(text).replace("'", "").split())


def _multi_pass(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    spoken = _BRACKETED.sub("", folded)
    chars = (" " if char.isspace() or unicodedata.category(char)[0] in "PS" else char for char in spoken)
    return " ".join("".join(char for char in chars if unicodedata.category(char) not in ("Cc", "Cf")).split())


def _multi(text: str) -> str:
    return _fixpoint(_multi_pass, text)


def _basic(text: str) -> str:
    return _fixpoint(_basic_pass, text)


def _ja_cer(text: str) -> str:
    return _fixpoint(_ja_cer_pass, text)


NORMALIZERS: dict[str, Callable[[str], str]] = {
    # Unicode NFC, whitespace folded: case and punctuation count.
    "none": _none,
    # NFKC and casefold; dashes, slashes and underscores become spaces, other punctuation, symbols and invisible
    # characters go ("3,000" -> "3000", "U.S." -> "us"); an apostrophe inside a word stays, in one spelling.
    "basic@1": _basic,
    # As basic@1, without any space or apostrophe: for character errors of text written without spaces.
    "ja-cer@1": _ja_cer,
    # For any spaced language, as Whisper's basic normalizer (arXiv 2212.04356, appendix C) and the leaderboard's
    # multilingual one, but marks stay: NFKC and casefold, what stands in brackets goes, every sign becomes a space.
    "multi@1": _multi,
    # Whisper's English normalizer: contractions, titles, spellings, numbers in digits, fillers gone.
    "whisper-en@1": whisper,
    # The Open ASR Leaderboard's English one, by its rules of August 2026.
    "openasr@2026-08": openasr,
}
UNSPACED = frozenset({"ja-cer@1"})  # presets whose output has no words to part


@lru_cache(maxsize=1 << 16)  # one evaluation asks for each text several times
def normalize(text: str, preset: str) -> str:
    """`text` as the named preset writes it.

    Raises:
        RecipeError: no preset has that name.
    """
    if preset not in NORMALIZERS:
        raise RecipeError(f"unknown normalizer {preset!r}; choose one of: {', '.join(NORMALIZERS)}")
    return NORMALIZERS[preset](text)
