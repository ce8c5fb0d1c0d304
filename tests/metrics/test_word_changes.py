"""What two systems make of one reference: both texts can be read off it, and words are counted once."""

from hypothesis import given
from hypothesis import strategies as st

from finetune.metrics.alignment import align_words
from finetune.metrics.word_changes import WordChange, columns, word_changes

TEXTS = st.lists(st.sampled_from("abcd"), max_size=6)


@given(TEXTS, TEXTS, TEXTS)
def test_each_row_is_its_text(said: list[str], base: list[str], adapted: list[str]) -> None:
    rows = columns(*(align_words([said], [heard])[0] for heard in (base, adapted)))
    assert [[word for word in row if word] for row in zip(*rows, strict=True)] == (
        [said, base, adapted] if rows else []
    )
    assert all(any(column) for column in rows)
    assert rows or not (said or base or adapted)


def test_words_are_fixed_and_broken() -> None:
    said = [["take", "the", "stent", "now"], ["the", "end"]]
    base = [["take", "the", "stand"], ["the", "bend", "end"]]
    adapted = [["take", "a", "stent", "now"], ["the", "end", "now"]]
    found = word_changes(align_words(said, base), align_words(said, adapted))
    assert (found.fixed, found.broken, found.both_right, found.both_wrong) == (2, 1, 3, 0)
    assert (found.inserted_base, found.inserted_adapted) == (1, 1)
    assert found.words == [WordChange("now", 1, 0), WordChange("stent", 1, 0), WordChange("the", 0, 1)]


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=5))
def test_every_word_is_counted_once(texts: list[tuple[list[str], list[str], list[str]]]) -> None:
    said, base, adapted = ([row[place] for row in texts] for place in range(3))
    found = word_changes(align_words(said, base), align_words(said, adapted))
    assert found.fixed + found.broken + found.both_right + found.both_wrong == sum(map(len, said))
    assert sum(word.fixed for word in found.words) == found.fixed
