"""Which words go wrong: by how often training had them, numbers and other entities, casing and punctuation."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finetune.metrics.alignment import Edit, align_words
from finetune.metrics.normalizer import UNSPACED, normalize

FREQUENCIES = (("unseen", 0), ("1 to 5", 5), ("6 to 50", 50), ("more than 50", None))  # name, most occurrences

_NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion "
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth "
    "ninetieth hundredth thousandth millionth"
).replace(" ", "|")
_NUMBER = rf"(?:[^\W\d_]?\d[\w.,:]*|(?:{_NUMERALS})\b)"
NOT_NUMBERS = {"one", "second"}  # alone they mostly count nothing
_KINDS = {  # found in the text as written, compared without case
    "time": re.compile(r"\b\d{1,2}[:.]\d\d\b(?!\.\d)"),
    "date": re.compile(r"\b\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b"),
    "e-mail": re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "web address": re.compile(r"\b(?:https?://|www\.)[^\s,;]+"),
    "code": re.compile(r"\b(?=\w*\d)(?=\w*[^\W\d_])(?!\d+(?:st|nd|rd|th|s)\b)\w+\b"),
    "name": re.compile(r"(?<=[^\W_] )(?:[A-Z][^\W_]+)(?: [A-Z][^\W_]+)*"),  # capitals inside a sentence
}
_WORD_OR_MARK = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[.,!?;:…]+")


@dataclass(frozen=True)
class FrequencyBin:
    """Reference words that training had this often; `missed` were substituted or deleted. `inserted` are words of
    that frequency in the hypotheses which nobody said; they stand apart, because misspellings are all unseen."""

    name: str
    words: int
    missed: int
    inserted: int


@dataclass(frozen=True)
class EntityRecall:
    """Occurrences of one kind: said, said and written exactly so, written without being said."""

    kind: str
    said: int
    right: int
    invented: int


@dataclass(frozen=True)
class NumeralErrors:
    """Word errors that touch a numeral, of all; `style` are those between digits on one side and words on the other."""

    errors: int
    numeral: int
    style: int


@dataclass(frozen=True)
class Style:
    """Casing and punctuation at the `words` that both sides have: a mark is compared after its word."""

    words: int
    case_errors: int
    marks_said: int
    marks_right: int
    marks_invented: int


def word_counts(texts: Iterable[str], preset: str) -> Counter[str]:
    """How often each normalized word occurs in texts, such as those of training."""
    return Counter(word for text in texts for word in normalize(text, preset).split())


def by_frequency(rows: Sequence[Sequence[Edit]], trained: Mapping[str, int], preset: str) -> list[FrequencyBin]:
    """Word errors by how often training had the word; empty under a preset without words."""
    if preset in UNSPACED:
        return []
    counts = {name: Counter[str]() for name, _ in FREQUENCIES}
    for edit in (edit for edits in rows for edit in edits):
        times = trained.get(edit.reference or edit.hypothesis, 0)
        name = next(name for name, most in FREQUENCIES if most is None or times <= most)
        counts[name][edit.op] += 1
    return [
        FrequencyBin(
            name,
            count["equal"] + count["substitute"] + count["delete"],
            count["substitute"] + count["delete"],
            count["insert"],
        )
        for name, count in counts.items()
    ]


def entities(references: list[str], hypotheses: list[str], preset: str) -> list[EntityRecall]:
    """Numbers (digits or English number words, in normalized text) and other kinds by their form, where they occur.

    A number is all neighbouring numerals together. Each must be written exactly; places are not aligned.
    """
    number = re.compile(rf"(?<!\w){_NUMBER}(?:[ -](?:and )?{_NUMBER})*")

    def numbers(text: str) -> list[str]:
        return [span for span in number.findall(normalize(text, preset).casefold()) if span not in NOT_NUMBERS]

    rows = [_recall("number", map(numbers, references), map(numbers, hypotheses))]
    for kind, pattern in _KINDS.items():
        said, heard = (
            [[found.casefold() for found in pattern.findall(unicodedata.normalize("NFC", text))] for text in texts]
            for texts in (references, hypotheses)
        )
        rows.append(_recall(kind, said, heard))
    return [row for row in rows if row.said or row.invented]


def _recall(kind: str, said: Iterable[list[str]], heard: Iterable[list[str]]) -> EntityRecall:
    pairs = [(Counter(a), Counter(b)) for a, b in zip(said, heard, strict=True)]
    return EntityRecall(
        kind,
        sum(a.total() for a, _ in pairs),
        sum((a & b).total() for a, b in pairs),
        sum((b - a).total() for a, b in pairs),
    )


def numeral_errors(rows: Sequence[Sequence[Edit]]) -> NumeralErrors:
    """How many word errors are of numerals: many of them between digits and words mean another style, not deafness."""
    wrong = [edit for edits in rows for edit in edits if edit.op != "equal"]
    numeral = re.compile(rf"{_NUMBER}$")
    kinds = [tuple(bool(word and numeral.match(word)) for word in edit[1:]) for edit in wrong]
    digits = [tuple(any(map(str.isdigit, word)) for word in edit[1:]) for edit in wrong]
    return NumeralErrors(
        len(wrong),
        sum(map(any, kinds)),
        sum(all(kind) and digit[0] != digit[1] for kind, digit in zip(kinds, digits, strict=True)),
    )


def style(references: list[str], hypotheses: list[str]) -> Style:
    """Casing and punctuation apart from words, in the text as written."""
    said, heard = ([_marked(text) for text in texts] for texts in (references, hypotheses))
    words = [[[word.casefold() for word, _ in text] for text in texts] for texts in (said, heard)]
    total = case = marks = right = invented = 0
    for ref, hyp, edits in zip(said, heard, align_words(*words), strict=True):
        ours, theirs = iter(ref), iter(hyp)
        for edit in edits:
            a = next(ours) if edit.reference else None
            b = next(theirs) if edit.hypothesis else None
            if edit.op != "equal" or a is None or b is None:
                continue
            total += 1
            case += a[0] != b[0]
            marks += bool(a[1])
            right += bool(a[1]) and a[1] == b[1]
            invented += bool(b[1]) and a[1] != b[1]
    return Style(total, case, marks, right, invented)


def _marked(text: str) -> list[tuple[str, str]]:
    """Words with the mark after each; the typographic apostrophe as the plain one."""
    words: list[tuple[str, str]] = []
    for token in _WORD_OR_MARK.findall(unicodedata.normalize("NFC", text).replace("’", "'")):
        if token[0].isalnum():
            words.append((token, ""))
        elif words:
            words[-1] = (words[-1][0], token)
    return words
