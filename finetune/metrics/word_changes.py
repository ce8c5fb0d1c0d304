"""Two systems against one reference, word by word: what the second mended, and what it broke."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune.metrics.alignment import Edit

MOST_WORDS = 100


class Column(NamedTuple):
    """One place of a three-row alignment: the word said and what each system has there; "" is nothing."""

    reference: str
    base: str
    adapted: str


@dataclass(frozen=True)
class WordChange:
    """One reference word: occurrences that only the second system has right (fixed), and only the first (broken)."""

    word: str
    fixed: int
    broken: int


@dataclass(frozen=True)
class Changes:
    """Reference words by which system has them right, words that each inserted, and those that changed most."""

    fixed: int
    broken: int
    both_right: int
    both_wrong: int
    inserted_base: int
    inserted_adapted: int
    words: list[WordChange]


def columns(base: Sequence[Edit], adapted: Sequence[Edit]) -> list[Column]:
    """Merges the alignments of two hypotheses with one reference; insertions at one place share columns.

    Both must be alignments to the same reference; each row, read without gaps, is its text.
    """
    found: list[Column] = []
    first, second = _by_word(base), _by_word(adapted)
    for (extra_base, word, at_base), (extra_adapted, _, at_adapted) in zip(first, second, strict=True):
        for place in range(max(len(extra_base), len(extra_adapted))):
            found.append(
                Column("", *(extra[place] if place < len(extra) else "" for extra in (extra_base, extra_adapted)))
            )
        if word:
            found.append(Column(word, at_base, at_adapted))
    return found


def word_changes(base: Sequence[Sequence[Edit]], adapted: Sequence[Sequence[Edit]]) -> Changes:
    """Counts over all utterances; `words` holds the `MOST_WORDS` that changed most often, ties by alphabet."""
    right: Counter[tuple[bool, bool]] = Counter()
    inserted, fixed, broken = Counter[int](), Counter[str](), Counter[str]()
    for pair in zip(base, adapted, strict=True):
        said = [[edit for edit in edits if edit.op != "insert"] for edits in pair]
        for system, edits in enumerate(pair):
            inserted[system] += len(edits) - len(said[system])
        for first, second in zip(*said, strict=True):
            state = first.op == "equal", second.op == "equal"
            right[state] += 1
            if state[0] != state[1]:
                (fixed if state[1] else broken)[first.reference] += 1
    most = sorted({*fixed, *broken}, key=lambda word: (-fixed[word] - broken[word], word))[:MOST_WORDS]
    return Changes(
        right[False, True],
        right[True, False],
        right[True, True],
        right[False, False],
        inserted[0],
        inserted[1],
        [WordChange(word, fixed[word], broken[word]) for word in most],
    )


def _by_word(edits: Sequence[Edit]) -> list[tuple[list[str], str, str]]:
    """For each reference word, and for the end: words inserted before it, the word, what was heard for it."""
    found, extra = [], list[str]()
    for edit in edits:
        if edit.op == "insert":
            extra.append(edit.hypothesis)
        else:
            found.append((extra, edit.reference, edit.hypothesis))
            extra = []
    return [*found, (extra, "", "")]
