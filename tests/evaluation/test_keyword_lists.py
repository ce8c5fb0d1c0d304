"""The keywords of a prompt: the terms of the utterance, other terms, and words of the training data."""

from random import Random

from finetune.evaluation.keyword_lists import sample_keywords

TERMS = ["aspirin", "digoxin", "stent"]
WORDS = ["take", "now", "again", "daily"]


def sample(distractors: int, words: list[str] = WORDS) -> tuple[str, ...]:
    return sample_keywords(["aspirin"], TERMS, words, "take aspirin now", distractors, Random(0))


def test_other_terms_are_the_first_distractors() -> None:
    assert sample(0) == ("aspirin",)
    assert set(sample(1)) < set(TERMS) and len(sample(1)) == 2
    assert set(sample(2)) == set(TERMS)


def test_words_of_the_reference_are_not_distractors() -> None:
    assert set(sample(4)) == set(sample(9)) == {*TERMS, "again", "daily"}
    assert set(sample(3)) - set(TERMS) in ({"again"}, {"daily"})
    assert set(sample(9, ["take", "now"])) == set(TERMS)


def test_the_seed_decides_the_sample() -> None:
    many = [f"word{number}" for number in range(50)]
    assert sample(20, many) == sample(20, many) and len(set(sample(20, many))) == 21
    assert sample(20, many) != sample_keywords(["aspirin"], TERMS, many, "take aspirin now", 20, Random(1))
