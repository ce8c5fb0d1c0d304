"""Named, versioned text normalizers: they define which words are equal when a hypothesis is scored.

A released preset never changes, because that would change the meaning of earlier scores: a new rule is a new
version. Every preset returns the same text for composed (NFC) and decomposed (NFD) input. The presets in this file
are idempotent and keep combining marks, which are vowels in Indic scripts and voicing marks in Japanese. The two in
`english` follow other projects: they are not idempotent and remove these marks.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache, partial

from finetune.core.errors import RecipeError
from finetune.metrics.english import openasr, whisper
from finetune.metrics.multilingual import BRACKETED, has_number_words, openasr_multi
from finetune.metrics.number_signs import fold_signs, separate_forms

# Quotes, primes and accents that are typed as apostrophes; ™ and ℠ are removed, because NFKC makes them "tm" and "sm".
_TYPED_VARIANTS = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bb\u02bc\u00b4\u0060\u2032\uff07", "'") | dict.fromkeys("\u2122\u2120", "")
)
_WORD_JOINERS = "/\u2044"  # slash, and the fraction slash that NFKC produces for ½
# Such as <unk>, [noise], （笑）, 【拍手】; brackets with digits are not tags.
_JAPANESE_TAG = re.compile(
    r"[<＜]/?[^\W\d][^<>＜＞\d]*[>＞]|<\|[^<>|]*\|>|[\[［【][^\[\]［］【】\d]*[\]］】]|[(（][^()（）\d]*[)）]"
)
_VARIATION_SELECTORS = ("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef")


@cache
def _normalize_char(char: str) -> str:
    """The character, a space if it separates words, or "" if it is not part of a word."""
    category = unicodedata.category(char)
    if char == "'":
        return char
    if char.isspace() or category in ("Pd", "Pc") or char in _WORD_JOINERS:
        return " "
    return char if category[0] not in "PS" and _is_visible(char) else ""


@cache
def _is_visible(char: str) -> bool:
    """Whether the character is no control, format or enclosing character and no variation selector."""
    if unicodedata.category(char) in ("Cc", "Cf", "Me"):
        return char.isspace()
    return not any(first <= char <= last for first, last in _VARIATION_SELECTORS)


def _fold(text: str) -> str:
    """One pass of compatibility and case folding; keeps letters, digits, marks, apostrophes and spaces."""
    typed = unicodedata.normalize("NFC", text).translate(_TYPED_VARIANTS)
    return "".join(map(_normalize_char, unicodedata.normalize("NFKC", typed).casefold()))


def _fold_with_numbers(text: str, spaces: bool = True) -> str:
    """Like `_fold`, but the signs of numbers stay."""
    typed = filter(_is_visible, unicodedata.normalize("NFC", text).translate(_TYPED_VARIANTS))
    separated = separate_forms("".join(typed), " " if spaces else "-")
    folded = "".join(filter(_is_visible, unicodedata.normalize("NFKC", separated).casefold()))
    if not spaces:  # an apostrophe is a sign like any other
        folded = "".join(folded.replace("'", '"').split())
    return fold_signs(folded, _normalize_char, spaces)


def _fixpoint(step: Callable[[str], str], text: str) -> str:
    """Repeats `step` until nothing changes: neighbours of a removed character can compose."""
    while (folded := step(text)) != text:
        text = folded
    return text


def _none(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _words(folded: str) -> str:
    words = (word.strip("'") for word in folded.split())
    return " ".join(word for word in words if any(map(str.isalnum, word)))  # NFKC turns "¨" into a mark


def _basic_pass(text: str) -> str:
    return _words(_fold(text))


def _basic_2_pass(text: str) -> str:
    return _words(_fold_with_numbers(text))


def _ja_cer_pass(text: str) -> str:
    return "".join(_fold(text).replace("'", "").split())


def _ja_cer_2_pass(text: str) -> str:
    return "".join(_fold_with_numbers(_JAPANESE_TAG.sub("", text), spaces=False).split())


def _multi_pass(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    unbracketed = BRACKETED.sub("", folded)
    chars = (" " if char.isspace() or unicodedata.category(char)[0] in "PS" else char for char in unbracketed)
    return " ".join("".join(char for char in chars if unicodedata.category(char) not in ("Cc", "Cf")).split())


NORMALIZERS: dict[str, Callable[[str], str]] = {
    # Unicode NFC and single spaces; case and punctuation count.
    "none": _none,
    # basic@1, but the signs of numbers stay, in one form (number_signs.py): "2.5", "3,000", "10:15", "1/2", "-5", "5%".
    # Other signs between two digits separate them ("5-6" -> "5 6").
    "basic@2": partial(_fixpoint, _basic_2_pass),
    # NFKC and casefold; dashes, slashes and underscores become spaces; other punctuation, symbols and invisible
    # characters are removed, also in numbers ("2.5" -> "25", "U.S." -> "us"); an apostrophe inside a word is kept, as
    # "'".
    "basic@1": partial(_fixpoint, _basic_pass),
    # basic@2 without spaces, apostrophes and tags in brackets, for character errors of text without spaces. Signs
    # that separate two digits become "-" ("5〜6" -> "5-6"), and each dash or plus before a number stays.
    "ja-cer@2": partial(_fixpoint, _ja_cer_2_pass),
    # basic@1 without spaces and apostrophes.
    "ja-cer@1": partial(_fixpoint, _ja_cer_pass),
    # For any language with spaces: Whisper's basic normalizer (arXiv 2212.04356, appendix C), but with marks: NFKC
    # and casefold, text in brackets is removed, each sign becomes a space.
    "multi@1": partial(_fixpoint, _multi_pass),
    # Whisper's English normalizer: expands contractions and titles, unifies spellings, writes digits, removes fillers.
    "whisper-en@1": whisper,
    # The English normalizer of the Open ASR Leaderboard, rules of August 2026.
    "openasr@2026-08": openasr,
    # Its multilingual normalizer. With a language, as in "openasr-multi@2026-08:de", numbers become words.
    "openasr-multi@2026-08": partial(openasr_multi, language=""),
}
UNSPACED = frozenset({"ja-cer@2", "ja-cer@1"})  # presets whose output has no spaces between words
WITH_LANGUAGE = "openasr-multi@2026-08"  # the preset that can be followed by ":" and a language; it joins compounds


@lru_cache(maxsize=1 << 16)  # one evaluation normalizes each text several times
def normalize(text: str, preset: str) -> str:
    """Normalizes a text with the named preset.

    Raises:
        RecipeError: the preset or its language is unknown.
    """
    name, _, language = preset.partition(":")
    if name == WITH_LANGUAGE and language:
        if not has_number_words(language):
            raise RecipeError(f"normalizer {preset!r}: num2words has no language {language!r}; use a code such as de")
        return openasr_multi(text, language)
    if preset not in NORMALIZERS:
        raise RecipeError(f"unknown normalizer {preset!r}; choose one of: {', '.join(NORMALIZERS)}")
    return NORMALIZERS[preset](text)


def joins_compounds(preset: str) -> bool:
    """Whether scores of the preset accept compounds that are spaced differently (`multilingual.match_compounds`)."""
    return preset.partition(":")[0] == WITH_LANGUAGE
