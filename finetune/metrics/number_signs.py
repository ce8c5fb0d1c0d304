"""Signs that belong to a number, such as the point of 2.5 and the minus of -5: normalizers keep them.

A sign belongs to a number between two digits (`2.5`, `1,50`, `10:15`, `1/2`, `10^2`), directly before its first digit
(`-5`, `.5`, `<5`, `$5`), or directly after its last digit (`5%`, `5°`, `5€`). Nothing is interpreted: "3,000" and
"3000" are different words, because "3,000" is three in some languages. A digit is any decimal digit of Unicode.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

INSIDE = ".,:/^"
BEFORE = "-+±∓<>≤≥≈≠"
UNITS = "%‰°"  # and currencies: kept before and after a number
_POINTS = ".,:"  # of INSIDE, those that can begin a number
_JOINERS = "-+"  # of BEFORE, those that are no sign of a number after a letter, a digit or a closing bracket
_ONE_FORM = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
    | dict.fromkeys("\u00b7\u2219\u22c5\u066b", ".")
    | dict.fromkeys("\u060c\u066c\u3001", ",")
    | {"\u2044": "/", "\u2215": "/", "\u2236": ":", "\u066a": "%"}
)
# Scripts without spaces between words: after their letters, a hyphen is a minus.
_UNSPACED_SCRIPTS = ("CJK ", "HIRAGANA ", "KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
_TAG = re.compile(r"<(/?[^\W\d][^<>\s]*)>")  # its brackets do not compare numbers


@cache
def _is_sign(char: str) -> bool:
    return unicodedata.category(char)[0] in "PS" and char != "'"


@cache
def _is_unit(char: str) -> bool:
    return char in UNITS or unicodedata.category(char) == "Sc"


@cache
def _is_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char)[0] == "M"


@cache
def _opens(char: str) -> bool:
    """Whether a point after this character can begin a number."""
    return char.isspace() or char in BEFORE or _is_unit(char) or unicodedata.category(char) in ("Ps", "Pi")


@cache
def is_unspaced(char: str) -> bool:
    """Whether the character belongs to a script without spaces between words."""
    return unicodedata.name(char, "").startswith(_UNSPACED_SCRIPTS)


@cache
def _joins(char: str, spaces: bool) -> bool:
    """Whether a dash or plus after this character joins words or separates numbers."""
    if char.isdecimal() or unicodedata.category(char) in ("Pe", "Pf"):
        return True
    return spaces and _is_word(char) and not is_unspaced(char)


def separate_forms(text: str, separator: str) -> str:
    """Separates digits that NFKC would join: "10²" -> "10^²", "3½" -> "3 ½", "①②" -> "① ②"."""
    if text.isascii():
        return text
    parts, previous, previous_form = [], "", ""
    for char in text:
        form = unicodedata.decomposition(char).partition(">")[0] if unicodedata.category(char) == "No" else ""
        if previous.isnumeric() and char.isnumeric() and (form != previous_form or form not in ("", "<super", "<sub")):
            parts.append("^" if form == "<super" else separator)
        parts.append(char)
        previous, previous_form = char, form
    return "".join(parts)


def fold_signs(text: str, fold: Callable[[str], str], spaces: bool) -> str:
    """Folds each character, but keeps the signs of numbers, each in one form.

    Signs between two digits that are not kept separate them: "5-6" becomes "5 6", or "5-6" without spaces.

    Args:
        text: text in NFKC, without invisible characters.
        fold: returns the normalized form of a character: itself, " " or "".
        spaces: False for text whose spaces are removed. Then each dash or plus before a number is kept, except after
            a digit, because a hyphen cannot be told from a minus.
    """
    if not any(map(str.isdecimal, text)):
        return "".join(map(fold, text))
    text = _join_spaced_units(_TAG.sub(r"\1 ", text))
    parts, start = [], 0
    while start < len(text):
        end = start
        while end < len(text) and _is_sign(text[end]):
            end += 1
        if end == start:
            parts.append(fold(text[start]))
            end += 1
        else:
            parts.append(_Run(text[start:end], _left(text, start), text[end : end + 1], spaces).folded(fold))
        start = end
    return "".join(parts)


def _left(text: str, start: int) -> str:
    """The character before `start`, or the letter or digit before apostrophes; " " at the start of the text."""
    index = start
    while index and text[index - 1] == "'":
        index -= 1
    if index and _is_word(text[index - 1]):
        return text[index - 1]
    return text[start - 1] if start else " "


def _join_spaced_units(text: str) -> str:
    """Removes the space in "5 %", "5 €", "€ 5" and "< 5"."""
    money = re.escape("".join({char for char in text if unicodedata.category(char) == "Sc"}))
    text = re.sub(rf"(?<=\d)\s+(?=[{UNITS}\u066a])", "", text)
    if money:
        text = re.sub(rf"(?<=\d)\s+(?=[{money}](?!\s*\d))", "", text)
        text = re.sub(rf"(?<!\d)([{money}])\s+(?=\d)", r"\1", text)
    return re.sub(r"(?<=[±<>≤≥≈≠])\s+(?=[-+]?[.,]?\d)", "", text)


@dataclass(frozen=True)
class _Run:
    """Adjacent signs between two characters; `left` is " " at the start of a text, `right` is "" at its end."""

    signs: str
    left: str
    right: str
    spaces: bool

    def folded(self, fold: Callable[[str], str]) -> str:
        signs = self.signs.translate(_ONE_FORM)
        after_digit, before_digit = self.left.isdecimal(), self.right.isdecimal()
        if after_digit and before_digit and len(signs) == 1 and (signs in INSIDE or _is_unit(signs)):
            return signs
        first = next((i for i, sign in enumerate(signs) if not _is_unit(sign)), len(signs)) if after_digit else 0
        prefix = self._prefix(signs, first) if before_digit else len(signs)
        middle = "".join(map(fold, self.signs[first:prefix]))
        if after_digit and before_digit and not middle.strip():
            middle = " " if self.spaces else "-"
        elif self.spaces and not middle and _is_word(self.left) and signs[prefix : prefix + 1] in tuple(BEFORE):
            middle = " "
        return signs[:first] + middle + signs[prefix:]

    def _prefix(self, signs: str, first: int) -> int:
        """Index, at least `first`, at which the signs of the number on the right begin."""

        def before(index: int) -> str:
            return signs[index - 1] if index > first else ("0" if first else self.left)

        start = len(signs)
        if start > first and signs[start - 1] in _POINTS:
            if not _opens(before(start - 1)):
                return start
            start -= 1
        while start > first and (signs[start - 1] in BEFORE or _is_unit(signs[start - 1])):
            repeated = start - 1 > first and self.signs[start - 2] == self.signs[start - 1]
            if signs[start - 1] in _JOINERS and (repeated or _joins(before(start - 1), self.spaces)):
                break
            start -= 1
        return start
