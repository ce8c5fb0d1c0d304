"""Synthetic clips: what counts as one, terms that only they teach, and the sets of a test with both kinds."""

import pytest

from finetune.data.manifest import Utterance
from finetune.evaluation.scoring_sets import scoring_sets
from finetune.evaluation.synthetic import is_synthetic, synthetic_training


def row(number: int, text: str = "a", synthetic: object = None) -> Utterance:
    extra = {} if synthetic is None else {"synthetic": synthetic}
    return Utterance(str(number), "a.wav", 1.0, text, extra=extra)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), ("true", True), ("Yes", True), (1, True), ("1", True)]
    + [(False, False), ("false", False), (0, False), ("", False), (None, False)],
)
def test_cells_of_the_column(value: object, expected: bool) -> None:
    assert is_synthetic(row(0, synthetic=value)) is expected


def test_terms_that_only_synthetic_clips_teach() -> None:
    train = [row(0, "foo and bar", True), row(1, "Bar!", False), row(2, "baz"), row(3, "foo")]
    made = synthetic_training(train[:3], ["foo", "bar", "baz", "qux"], "basic@2")
    assert made is not None and (made.clips, made.synthetic, made.terms) == (3, 1, ["foo"])
    assert synthetic_training(train, ["foo"], "basic@2").terms == []  # type: ignore[union-attr]
    assert synthetic_training(train[1:], ["foo"], "basic@2") is None
    assert synthetic_training(train[:1], [], "basic@2").terms == []  # type: ignore[union-attr]


def test_recorded_and_synthetic_test_clips_are_sets_of_their_own() -> None:
    mixed = [row(0), row(1, synthetic=True), row(2, synthetic=False)]
    assert scoring_sets({"test": mixed, "canary": mixed}) == {
        "test": ("test", [0, 1, 2]),
        "test: real": ("test", [0, 2]),
        "test: synthetic": ("test", [1]),
        "canary": ("canary", [0, 1, 2]),
    }
    for same in ([row(0), row(1)], [row(0, synthetic=True)]):
        assert [*scoring_sets({"test": same})] == ["test"]
