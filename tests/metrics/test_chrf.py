"""chrF and BLEU from summed counts: equal to sacrebleu on random corpora, also where one side is empty."""

import random

import numpy as np
import pytest

from finetune.metrics.chrf import COUNTS, chrf, chrf_counts, chrf_error
from finetune.metrics.translation import BLEU_COUNTS, bleu, bleu_counts, translation_scores

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "then", "it", "went", "home", "today", "not", "é", "日本"]


def corpora(number: int) -> list[tuple[list[str], list[str]]]:
    rng, found = random.Random(3), []
    for _ in range(number):
        references = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 5))]
        kept = (" ".join(word for word in text.split() if rng.random() < 0.8) for text in references)
        hypotheses = [text + rng.choice(["", " x y.", " the"]) if rng.random() < 0.9 else "" for text in kept]
        found.append((references, hypotheses))
    return found


def totals(counts: list[list[int]]) -> np.ndarray:
    return np.array(counts, dtype=float).sum(axis=0)[:, None]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_sums_of_counts_give_the_scores_of_sacrebleu(language: str) -> None:
    for references, hypotheses in corpora(150):
        expected = translation_scores(references, hypotheses, language)
        by_chrf = [chrf_counts(*pair) for pair in zip(references, hypotheses, strict=True)]
        by_bleu = bleu_counts(references, hypotheses, language)
        assert {len(row) for row in by_chrf} == {COUNTS} and {len(row) for row in by_bleu} == {BLEU_COUNTS}
        assert 100 * chrf(totals(by_chrf))[0] == pytest.approx(expected.chrf, abs=1e-9)
        assert 100 * bleu(totals(by_bleu))[0] == pytest.approx(expected.bleu, abs=1e-9)
        assert 100 * chrf_error(by_chrf) == pytest.approx(100 - expected.chrf, abs=1e-9)


def test_many_corpora_at_once_and_none() -> None:
    rows = [chrf_counts("abc def", "abc def"), chrf_counts("abc def", ""), chrf_counts("", "abc")]
    assert chrf(np.array(rows, dtype=float).T).tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert chrf_error([rows[0], rows[2]]) == pytest.approx(0.0)  # an empty reference counts nothing
    assert chrf_counts("Cafe\u0301", "Café") == chrf_counts("Café", "Café")
