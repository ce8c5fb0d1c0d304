"""Word changes between two systems: rows of the merged alignment, and counts of words."""

from hypothesis import given
from hypothesis import strategies as st

from finetune.metrics.alignment import align_words
from finetune.metrics.word_changes import WordChange, columns, word_changes

TEXTS = st.lists(st.sampled_from("abcd"), max_size=6)


@given(TEXTS, TEXTS, TEXTS)
def test_each_row_is_its_text(reference: list[str], base: list[str], adapted: list[str]) -> None:
    rows = columns(*(align_words([reference], [text])[0] for text in (base, adapted)))
    assert [[word for word in row if word] for row in zip(*rows, strict=True)] == (
        [reference, base, adapted] if rows else []
    )
    assert all(any(column) for column in rows)
    assert rows or not (reference or base or adapted)


def test_words_are_fixed_and_broken() -> None:
    references = [["take", "the", "stent", "now"], ["the", "end"]]
    base = [["take", "the", "stand"], ["the", "bend", "end"]]
    adapted = [["take", "a", "stent", "now"], ["the", "end", "now"]]
    changes = word_changes(align_words(references, base), align_words(references, adapted))
    assert (changes.fixed, changes.broken, changes.both_correct, changes.both_wrong) == (2, 1, 3, 0)
    assert (changes.inserted_base, changes.inserted_adapted) == (1, 1)
    assert changes.words == [WordChange("now", 1, 0), WordChange("stent", 1, 0), WordChange("the", 0, 1)]


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=5))
def test_every_word_is_counted_once(texts: list[tuple[list[str], list[str], list[str]]]) -> None:
    references, base, adapted = ([row[place] for row in texts] for place in range(3))
    changes = word_changes(align_words(references, base), align_words(references, adapted))
    assert changes.fixed + changes.broken + changes.both_correct + changes.both_wrong == sum(map(len, references))
    assert sum(word.fixed for word in changes.words) == changes.fixed
