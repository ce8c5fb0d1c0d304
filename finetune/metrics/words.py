"""Errors by kind of word: frequency in the training texts, numbers and other entities, casing and punctuation."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finetune.metrics.alignment import Edit, align_words
from finetune.metrics.normalizer import UNSPACED, normalize
from finetune.metrics.numeral_words import is_numeral_word

FREQUENCIES = (("unseen", 0), ("1 to 5", 5), ("6 to 50", 50), ("more than 50", None))  # name, highest count

_NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion "
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth "
    "ninetieth hundredth thousandth millionth"
).replace(" ", "|")
_SIGNS = r"[-+±<>≤≥≈≠%‰°$€£¥]*[.,:]?"  # of number_signs, with the most frequent currencies
_NUMBER = rf"(?:{_SIGNS}[^\W\d_]?\d[\w.,:/^%‰°$€£¥]*|(?:{_NUMERALS})\b)"
_NUMERAL = re.compile(rf"{_NUMBER}$")
NOT_NUMBERS = {"one", "second"}  # rarely numbers when they stand alone
_KINDS = {  # matched in the text as written, compared without case
    "time": re.compile(  # with a point only before a unit: "2.50" is mostly an amount
        r"(?<![\w.,:/])(?:[01]?\d|2[0-4])(?::[0-5]\d(?::[0-5]\d)?|\.[0-5]\d(?= ?(?:[ap]\.?m\b|uhr\b|h\b)))"
        r"(?![\d:]|[.,]\d)",
        re.IGNORECASE,
    ),
    "date": re.compile(r"(?<![\w.])\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b(?!\.\d)"),
    "e-mail": re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "web address": re.compile(r"\b(?:https?://|www\.)[^\s,;]+"),
    "code": re.compile(r"\b(?=\w*\d)(?=\w*[^\W\d_])(?!\d+(?:st|nd|rd|th|s)\b)\w+\b"),
}
_UPPER = "".join(char for char in map(chr, range(0x530)) if char.isupper())  # Latin, Greek and Cyrillic
_CAPITALIZED = rf"(?!I['’])[{_UPPER}]['’]?[^\W_]+"
_NAME = re.compile(rf"(?<=[^\W_] ){_CAPITALIZED}(?: {_CAPITALIZED})*")  # capitalized words inside a sentence
CAPITAL_NOUNS = ("de", "lb")  # languages in which capitals do not show names
_MARKS = r".,!?;:\u2026\u3001\u3002\uff61\uff64\uff0c\uff0e\uff01\uff1f\uff1b\uff1a\u061f\u060c\u061b\u0964\u0965"
_UNSPACED = (  # kana and Han: each character is a word
    r"\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff66-\uff9f\U00020000-\U0003fffd"
)
# After a letter: vowel signs, such as those of Hindi, and the invisible joiners of Hindi and Persian.
_SIGNS_OF_LETTERS = "\u200c\u200d" + "".join(
    char for char in map(chr, range(0x300, 0xAC00)) if unicodedata.category(char)[0] == "M"
)
_LETTER = rf"[^\W_][{_SIGNS_OF_LETTERS}]*"
_WORD_OR_MARK = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}]){_LETTER})+(?:['’](?:{_LETTER})+)*|[{_MARKS}]+")


@dataclass(frozen=True)
class FrequencyBin:
    """Reference words with this frequency in the training texts.

    `missed` are substituted or deleted. `inserted` are inserted words of that frequency; they are counted separately,
    because all misspellings are unseen.
    """

    name: str
    words: int
    missed: int
    inserted: int


@dataclass(frozen=True)
class EntityRecall:
    """Entities of one kind: in the references (`support`), recognized exactly (`hits`), and only in hypotheses."""

    kind: str
    support: int
    hits: int
    false_alarms: int


@dataclass(frozen=True)
class NumeralErrors:
    """Number of word errors, of errors that involve a numeral, and of digits against number words (`style`).

    `words` counts the reference words, and `numeral_words` those that are numerals.
    """

    errors: int
    numeral: int
    style: int
    words: int
    numeral_words: int


@dataclass(frozen=True)
class Style:
    """Casing and punctuation of the `words` that both texts contain; a kana or Han character is a word.

    `marks` counts the words with punctuation after them in the reference, `marks_correct` those with the same mark in
    the hypothesis, `marks_inserted` the words with another mark in the hypothesis.
    """

    words: int
    case_errors: int
    marks: int
    marks_correct: int
    marks_inserted: int


def word_counts(texts: Iterable[str], preset: str) -> Counter[str]:
    """Number of occurrences of each normalized word."""
    return Counter(word for text in texts for word in normalize(text, preset).split())


def by_frequency(rows: Sequence[Sequence[Edit]], trained: Mapping[str, int], preset: str) -> list[FrequencyBin]:
    """Word errors by frequency of the word in the training texts; empty under a preset without spaces."""
    if preset in UNSPACED:
        return []
    counts = {name: Counter[str]() for name, _ in FREQUENCIES}
    for edit in (edit for edits in rows for edit in edits):
        frequency = trained.get(edit.reference or edit.hypothesis, 0)
        name = next(name for name, highest in FREQUENCIES if highest is None or frequency <= highest)
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


def entities(
    references: list[str], hypotheses: list[str], preset: str, languages: Sequence[str] = ()
) -> list[EntityRecall]:
    """Recall of numbers (digits or English number words, in normalized text) and of other entities by their form.

    Adjacent numerals are one number. A hit is an exact match; positions are not aligned. A name has capitals in one of
    the texts; casing is not part of the match, because `style` counts it. Kinds without occurrences are omitted.

    Args:
        references: one text for each utterance.
        hypotheses: hypotheses in the same order.
        preset: a name in `NORMALIZERS`.
        languages: the two-letter code of each text; names are not searched in German, where all nouns have capitals.
    """
    number = re.compile(rf"(?<!\w){_NUMBER}(?:[ -](?:and )?{_NUMBER})*")

    def numbers(text: str) -> list[str]:
        return [span for span in number.findall(normalize(text, preset).casefold()) if span not in NOT_NUMBERS]

    rows = [_recall("number", zip(map(numbers, references), map(numbers, hypotheses), strict=True))]
    composed = [[unicodedata.normalize("NFC", text) for text in texts] for texts in (references, hypotheses)]
    for kind, pattern in _KINDS.items():
        matches = ([[match.casefold() for match in pattern.findall(text)] for text in texts] for texts in composed)
        rows.append(_recall(kind, zip(*matches, strict=True)))
    named = zip(*composed, languages or [""] * len(references), strict=True)
    rows.append(_recall("name", (_names(*pair) for *pair, language in named if language not in CAPITAL_NOUNS)))
    return [row for row in rows if row.support or row.false_alarms]


def _names(reference: str, hypothesis: str) -> tuple[list[str], list[str]]:
    """The names of the reference, and those that the hypothesis has: found in the reference, or by their capitals."""
    plain = [text.replace("’", "'").replace("-", " ") for text in (reference, hypothesis)]
    in_ref, in_hyp = (
        [name.casefold() for name in _NAME.findall(text)] if text != text.upper() else [] for text in plain
    )
    ref_text, hyp_text = (" ".join(text.casefold().split()) for text in plain)
    written = list[str]()
    for name, support in Counter(in_ref).items():
        spoken, recognized = _occurrences(name, ref_text), _occurrences(name, hyp_text)
        written += [name] * (min(support, recognized) + max(0, recognized - spoken))
    return in_ref, [*written, *(name for name in in_hyp if not _occurrences(name, ref_text))]


def _occurrences(words: str, text: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(words)}(?!\w)", text))


def _recall(kind: str, texts: Iterable[tuple[list[str], ...]]) -> EntityRecall:
    pairs = [(Counter(ref), Counter(hyp)) for ref, hyp in texts]
    return EntityRecall(
        kind,
        support=sum(ref.total() for ref, _ in pairs),
        hits=sum((ref & hyp).total() for ref, hyp in pairs),
        false_alarms=sum((hyp - ref).total() for ref, hyp in pairs),
    )


def numeral_errors(rows: Sequence[Sequence[Edit]], languages: Sequence[str] = ()) -> NumeralErrors:
    """Counts word errors of numerals. Many `style` errors mean a different spelling of numbers, not misrecognition.

    Args:
        rows: the alignment of each utterance.
        languages: the two-letter code of each text, for its number words; English ones count in any language.
    """
    wrong, numerals, styles, words, numeral_references = 0, 0, 0, 0, 0
    for edits, language in zip(rows, languages or [""] * len(rows), strict=True):
        for edit in edits:
            reference, hypothesis = _is_numeral(edit.reference, language), _is_numeral(edit.hypothesis, language)
            words += edit.op != "insert"
            numeral_references += reference
            if edit.op != "equal":
                wrong += 1
                numerals += reference or hypothesis
                styles += reference and hypothesis and _has_digit(edit.reference) != _has_digit(edit.hypothesis)
    return NumeralErrors(errors=wrong, numeral=numerals, style=styles, words=words, numeral_words=numeral_references)


def _is_numeral(word: str, language: str) -> bool:
    return bool(word) and (bool(_NUMERAL.match(word)) or is_numeral_word(word, language))


def _has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))


def style(references: list[str], hypotheses: list[str]) -> Style:
    """Compares casing and punctuation in the texts as written, at the words that are equal except for case."""
    refs, hyps = ([_words_and_marks(text) for text in texts] for texts in (references, hypotheses))
    words = [[[word.casefold() for word, _ in text] for text in texts] for texts in (refs, hyps)]
    total = case = marks = correct = inserted = 0
    for ref, hyp, edits in zip(refs, hyps, align_words(*words), strict=True):
        ref_words, hyp_words = iter(ref), iter(hyp)
        for edit in edits:
            a = next(ref_words) if edit.reference else None
            b = next(hyp_words) if edit.hypothesis else None
            if edit.op != "equal" or a is None or b is None:
                continue
            total += 1
            case += a[0] != b[0]
            marks += bool(a[1])
            correct += bool(a[1]) and a[1] == b[1]
            inserted += bool(b[1]) and a[1] != b[1]
    return Style(words=total, case_errors=case, marks=marks, marks_correct=correct, marks_inserted=inserted)


def _words_and_marks(text: str) -> list[tuple[str, str]]:
    """Each word with the punctuation after it; a typographic apostrophe becomes a plain one."""
    words: list[tuple[str, str]] = []
    for token in _WORD_OR_MARK.findall(unicodedata.normalize("NFC", text).replace("’", "'")):
        if token[0].isalnum():
            words.append((token, ""))
        elif words:
            words[-1] = (words[-1][0], unicodedata.normalize("NFKC", token))
    return words
