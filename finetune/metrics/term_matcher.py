"""Finds terms in texts: in normalized text, or as written if the normalizer would remove signs of the term.

Without its sign, A+ would be found in each "a" and C# in each "c". A term is matched as written if its normalized form
lacks a sign that distinguishes it. These signs do not: punctuation (St., Yahoo!), except a point before a word (.NET),
in initials that are the complete term (U.S.) and between digits; apostrophes, quotes, brackets and trademark signs;
dashes, slashes and underscores between words; & between spaces.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from finetune.core.errors import DataError
from finetune.metrics.normalizer import UNSPACED, normalize
from finetune.metrics.number_signs import is_unspaced

_NO_SIGN = ".,;:!?…\"'`´¨™®©"  # and brackets and quotes
_JOINERS = "-/_"
_INITIALS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]?")
# French and Italian articles, prepositions and pronouns that lose their vowel: each is a word of its own.
_ELIDED = re.compile(
    r"(?<![\w'’])(?:[cdjlmnstv]|qu|jusqu|lorsqu|puisqu|quoiqu|un|gl|dell|all|dall|nell|sull|coll|quest|quell)['’](?=\w)",
    re.IGNORECASE,
)
_EXTENDING = "+#&@%=*^"  # a term that is followed by one of these is another term, as C in C#
_ONE_FORM = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-") | dict.fromkeys("\u2018\u2019\u02bc\u2032", "'")
)


@dataclass(frozen=True)
class Term:
    """A term as listed, and the text that is searched: normalized, or as written without case."""

    term: str
    needle: str
    as_written: bool


class TermMatcher:
    """Counts the occurrences of terms in texts.

    A normalized term matches whole words of the normalized text, from left to right without overlap (under
    `ja-cer@2`, which has no spaces, it matches anywhere). The l' of "l'insuline" is a word of its own. Terms can be
    nested: "New York" is also counted inside "New York Times". A term as written matches the text as written, without
    case, where no letter, digit or further sign continues it; such a place is not searched for normalized terms, so
    "C++" does not contain the term "C".

    Attributes:
        terms: the distinct terms; spellings that become equal are one term, under the first spelling.
    """

    def __init__(self, terms: Sequence[str], preset: str) -> None:
        """Raises DataError if the preset empties a term, RecipeError if it is unknown."""
        self._preset = preset
        distinct: dict[tuple[str, bool], str] = {}
        for number, term in enumerate(terms, start=1):
            if not normalize(term, preset):
                raise DataError(
                    f"term {number} ({term!r}) is empty after normalizer {preset!r}; remove it, or write it as spoken"
                )
            distinct.setdefault(needle_of(term, preset), term)
        self.terms = tuple(Term(term, *needle) for needle, term in distinct.items())
        self._written = sorted((term.needle for term in self.terms if term.as_written), key=len, reverse=True)
        self._needles = [term.needle if term.as_written else _searchable(term.needle, preset) for term in self.terms]
        self._by_first_word: dict[str, list[int]] = {}  # "": terms that are always searched
        for number, item in enumerate(self.terms):
            word = "" if item.as_written or preset in UNSPACED else self._needles[number].split()[0]
            self._by_first_word.setdefault(word, []).append(number)

    def counts(self, text: str) -> list[int]:
        """Occurrences of each term."""
        written = fold(text) if self._written else ""
        normalized = _searchable(normalize(self._without_written(text), self._preset), self._preset)
        return [
            len(_places(written, needle)) if term.as_written else normalized.count(needle)
            for term, needle in zip(self.terms, self._needles, strict=True)
        ]

    def terms_in(self, text: str) -> list[str]:
        """The terms that `counts` finds; only terms whose first word is in the text are searched."""
        written = fold(text) if self._written else ""
        normalized = _searchable(normalize(self._without_written(text), self._preset), self._preset)
        numbers = [number for word in {"", *normalized.split()} for number in self._by_first_word.get(word, ())]
        return [
            self.terms[number].term
            for number in sorted(numbers)
            if (
                _places(written, self.terms[number].needle)
                if self.terms[number].as_written
                else self._needles[number] in normalized
            )
        ]

    def _without_written(self, text: str) -> str:
        """The text, in which terms as written are replaced by a word that no term contains."""
        if not self._written:
            return text
        folded = fold(text)
        places = sorted((start, len(needle)) for needle in self._written for start in _places(folded, needle))
        if not places:
            return text
        parts, end = [], 0
        for start, length in places:
            parts += [folded[end:start], " \uf8ff " if end <= start else ""]
            end = max(end, start + length)
        return "".join([*parts, folded[end:]])


def needle_of(term: str, preset: str) -> tuple[str, bool]:
    """The text that is searched for a term, and whether it is the term as written."""
    as_written = loses_signs(term, preset)
    return (fold(term) if as_written else normalize(term, preset)), as_written


@lru_cache(maxsize=1 << 12)
def loses_signs(term: str, preset: str) -> bool:
    """Whether the normalized term lacks a sign that distinguishes it."""
    written, kept = fold(term), normalize(term, preset)
    signs = [char for index, char in enumerate(written) if _distinguishes(written, index)]
    return any(kept.count(sign) < signs.count(sign) for sign in signs)


def _distinguishes(term: str, index: int) -> bool:
    """Whether the character is a sign without which the term would be another one."""
    char, category = term[index], unicodedata.category(term[index])
    before, after = (text for text in (_neighbor(term[:index], -1), _neighbor(term[index + 1 :], 0)))
    if category[0] not in "PS" or category in ("Ps", "Pe", "Pi", "Pf"):
        return False
    if char in ".,:/" and before.isdecimal() and after.isdecimal():
        return True
    if char == "." and (_INITIALS.fullmatch(term) or (before in ("", " ") and _is_word(after))):
        return True
    if char in _JOINERS:
        return not (_is_word(before) and _is_word(after)) and not before == after == " "
    return char not in _NO_SIGN and not (char == "&" and before == after == " ")


def _neighbor(text: str, index: int) -> str:
    """The first or last character that is no quote or bracket; "" if there is none."""
    kept = [char for char in text if char not in "'\"()[]{}"]
    return kept[index] if kept else ""


def _is_word(char: str) -> bool:
    return char.isalnum() or (char != "" and unicodedata.category(char)[0] == "M")


@lru_cache(maxsize=1 << 16)
def fold(text: str) -> str:
    """The text as written: without case, with single spaces and one form of compatible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_ONE_FORM)
    return " ".join("".join(char for char in folded if unicodedata.category(char) != "Cf").split())


def _places(text: str, needle: str) -> list[int]:
    """Where the needle begins in the text, without overlap."""
    places, start = list[int](), text.find(needle)
    while start >= 0:
        end = start + len(needle)
        free = not _continues(text[start - 1 : start] if start else "", needle[0])
        if free and not _continues(text[end : end + 1], needle[-1]):
            places.append(start)
            start = text.find(needle, end)
        else:
            start = text.find(needle, start + 1)
    return places


def _continues(neighbor: str, edge: str) -> bool:
    """Whether the character beside a term makes another term of it."""
    if not neighbor:
        return False
    if _is_word(neighbor):
        return not (is_unspaced(neighbor) and not is_unspaced(edge))
    return neighbor in _EXTENDING or (neighbor == edge and not edge.isspace())


def _searchable(text: str, preset: str) -> str:
    """Puts a space on both sides of each word, so `str.count` matches complete words, including adjacent words."""
    if preset in UNSPACED:
        return text
    words = _ELIDED.sub(r"\g<0> ", text)
    return f" {words.replace(' ', '  ')} "
