"""The alignment of sclite: fewest errors, then most hits, in sclite's order."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.metrics.edit_path import _backtrace, _numpy_rows, _rows, edit_path
from finetune.metrics.wer import score, word_paths

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=7)


def best(ref: tuple[str, ...], hyp: tuple[str, ...]) -> tuple[int, int]:
    """Fewest errors, then fewest substitutions."""

    @cache
    def cost(i: int, j: int) -> tuple[int, int]:
        if not i or not j:
            return i + j, 0
        wrong = ref[i - 1] != hyp[j - 1]
        (errors, substitutions), deleted, inserted = cost(i - 1, j - 1), cost(i - 1, j), cost(i, j - 1)
        return min(
            (errors + wrong, substitutions + wrong), (deleted[0] + 1, deleted[1]), (inserted[0] + 1, inserted[1])
        )

    return cost(len(ref), len(hyp))


@given(WORDS, WORDS)
def test_fewest_errors_then_most_hits(ref: list[str], hyp: list[str]) -> None:
    (path,) = word_paths([" ".join(ref)], [" ".join(hyp)])
    errors, substitutions = best(tuple(ref), tuple(hyp))
    assert len(path) - path.count("C") == errors and path.count("S") == substitutions
    ref_words, hyp_words = iter(ref), iter(hyp)
    pairs = [(step, step == "I" or next(ref_words), step == "D" or next(hyp_words)) for step in path]
    assert all((a == b) == (step == "C") for step, a, b in pairs if step in "CS")
    assert next(ref_words, None) is next(hyp_words, None) is None


@pytest.mark.parametrize(
    "ref, hyp, path",
    [
        ("a b", "b c", "DCI"),  # jiwer: SS
        ("a", "a a", "IC"),
        ("a a", "a", "DC"),
        ("a b c", "x c", "DSC"),
        ("a b a c", "b a d", "DCCS"),
        ("b", "a c", "IS"),
        ("", "a", "I"),
    ],
)
def test_order_of_sclite(ref: str, hyp: str, path: str) -> None:
    """The paths are those that sclite 2.10 prints (`-o pralign`)."""
    assert list(word_paths([ref], [hyp])) == [path]


@given(WORDS, WORDS)
def test_rows_of_numpy_give_the_same_path(ref: list[str], hyp: list[str]) -> None:
    errors = best(tuple(ref), tuple(hyp))[0]
    surplus = len(hyp) - len(ref)
    limits = (errors - surplus) // 2, (errors + surplus) // 2
    paths = [_backtrace(rows(ref, hyp, *limits), ref, hyp, limits[0]) for rows in (_rows, _numpy_rows)]
    assert paths[0] == paths[1]


def test_long_texts() -> None:
    words = [str(number) for number in range(2000)]
    ref, hyp = " ".join(words), " ".join(words[:500] + ["x"] + words[520:])
    assert edit_path(ref, hyp, 20) == "C" * 500 + "D" * 19 + "S" + "C" * 1480
    ref, hyp = " ".join(["a"] * 8000), " ".join(["b"] * 8000)
    assert edit_path(ref, hyp, 8000) is None
    assert score([ref], [hyp], "none").substitutions == 8000  # by jiwer's alignment
