"""Counts word changes between two systems: reference words that only one of them recognizes correctly."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from finetune.metrics.alignment import Edit

MAX_WORDS = 100


class Column(NamedTuple):
    """One column of a three-row alignment: the reference word and the word of each system; "" is no word."""

    reference: str
    base: str
    adapted: str


@dataclass(frozen=True)
class WordChange:
    """One reference word: occurrences that only the second system recognizes (fixed), or only the first (broken)."""

    word: str
    fixed: int
    broken: int


@dataclass(frozen=True)
class Changes:
    """Reference words by the systems that recognize them, insertions of each system, and the most changed words."""

    fixed: int
    broken: int
    both_correct: int
    both_wrong: int
    inserted_base: int
    inserted_adapted: int
    words: list[WordChange]


def columns(base: Sequence[Edit], adapted: Sequence[Edit]) -> list[Column]:
    """Merges the alignments of two hypotheses with the same reference; insertions at one position share columns.

    Each row without gaps contains the words of its text.
    """
    merged: list[Column] = []
    first, second = _by_word(base), _by_word(adapted)
    for (inserted_base, word, base_word), (inserted_adapted, _, adapted_word) in zip(first, second, strict=True):
        insertions = zip_longest(inserted_base, inserted_adapted, fillvalue="")
        merged += [Column("", *pair) for pair in insertions]
        if word:
            merged.append(Column(word, base_word, adapted_word))
    return merged


def word_changes(base: Sequence[Sequence[Edit]], adapted: Sequence[Sequence[Edit]]) -> Changes:
    """Counts over all utterances; `words` has the `MAX_WORDS` most changed words, ties in alphabetical order."""
    correct: Counter[tuple[bool, bool]] = Counter()
    inserted, fixed, broken = Counter[int](), Counter[str](), Counter[str]()
    for pair in zip(base, adapted, strict=True):
        words = [[edit for edit in edits if edit.op != "insert"] for edits in pair]
        for system, edits in enumerate(pair):
            inserted[system] += len(edits) - len(words[system])
        for first, second in zip(*words, strict=True):
            state = first.op == "equal", second.op == "equal"
            correct[state] += 1
            if state[0] != state[1]:
                (fixed if state[1] else broken)[first.reference] += 1
    most_changed = sorted({*fixed, *broken}, key=lambda word: (-fixed[word] - broken[word], word))[:MAX_WORDS]
    return Changes(
        fixed=correct[False, True],
        broken=correct[True, False],
        both_correct=correct[True, True],
        both_wrong=correct[False, False],
        inserted_base=inserted[0],
        inserted_adapted=inserted[1],
        words=[WordChange(word, fixed[word], broken[word]) for word in most_changed],
    )


def _by_word(edits: Sequence[Edit]) -> list[tuple[list[str], str, str]]:
    """For each reference word, and for the end: words inserted before it, the word, and the hypothesis for it."""
    rows, inserted = [], list[str]()
    for edit in edits:
        if edit.op == "insert":
            inserted.append(edit.hypothesis)
        else:
            rows.append((inserted, edit.reference, edit.hypothesis))
            inserted = []
    return [*rows, (inserted, "", "")]
