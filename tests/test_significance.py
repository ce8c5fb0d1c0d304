"""The bootstrap: exact small cases, coverage on simulated speakers, and its speed."""

import time
import tracemalloc

import numpy as np
import pytest

from finetune.errors import DataError
from finetune.metrics import significance
from finetune.metrics.significance import Interval, bootstrap_wer, paired_difference


def simulate(rng: np.random.Generator, speakers: int, utterances: int, spread: float) -> tuple[list[int], list[int]]:
    """Errors of 10-word utterances by speakers whose true WER varies about 0.2, and their speakers."""
    rates = np.clip(rng.normal(0.2, spread, speakers), 0.0, 1.0).repeat(utterances)
    return rng.binomial(10, rates).tolist(), np.arange(speakers).repeat(utterances).tolist()


def test_nothing_varies_where_all_utterances_are_alike() -> None:
    assert bootstrap_wer([1, 2, 1], [10, 20, 10], ["a", "b", "c"], 100, 0) == Interval(0.1, 0.1, 3)


def test_one_speaker_is_one_block() -> None:
    result = bootstrap_wer([0, 9], [10, 10], ["anna", "anna"], 100, 0)
    assert result == Interval(0.45, 0.45, 1)


def test_percentiles_of_two_blocks_are_the_extremes() -> None:
    result = bootstrap_wer([0, 10], [10, 10], ["anna", "ben"], 2000, 0)  # WER 0, 1/2, 1/2 or 1, a quarter each
    assert result == Interval(0.0, 1.0, 2)


def test_the_seed_decides_and_the_names_of_blocks_do_not() -> None:
    errors, speakers = simulate(np.random.default_rng(0), 20, 5, 0.1)
    words = [10] * len(errors)
    result = bootstrap_wer(errors, words, speakers, 500, 7)
    assert result == bootstrap_wer(errors, words, [f"speaker {number}" for number in speakers], 500, 7)
    assert result != bootstrap_wer(errors, words, speakers, 500, 8)


def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, speakers = simulate(np.random.default_rng(5), 20, 5, 0.1)
    whole = bootstrap_wer(errors, [10] * len(errors), speakers, 500, 7)
    monkeypatch.setattr(significance, "_DRAWS_AT_ONCE", 130)  # six replicas at a time, and a rest of two
    assert bootstrap_wer(errors, [10] * len(errors), speakers, 500, 7) == whole


def test_utterances_without_words_have_a_rate() -> None:
    assert bootstrap_wer([0, 0], [0, 0], [1, 2], 100, 0) == Interval(0.0, 0.0, 2)
    assert bootstrap_wer([3, 1], [0, 0], [1, 2], 100, 0) == Interval(1.0, 1.0, 2)


def test_coverage_of_independent_utterances() -> None:
    rng, covered = np.random.default_rng(1), 0
    for trial in range(200):
        errors, _ = simulate(rng, 1, 200, 0.0)
        interval = bootstrap_wer(errors, [10] * 200, range(200), 400, trial)
        covered += interval.low <= 0.2 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_blocks_cover_where_utterances_do_not() -> None:
    rng, by_speaker, by_utterance = np.random.default_rng(2), 0, 0
    for trial in range(100):
        errors, speakers = simulate(rng, 20, 30, 0.1)
        words = [10] * len(errors)
        blocked = bootstrap_wer(errors, words, speakers, 400, trial)
        single = bootstrap_wer(errors, words, range(len(errors)), 400, trial)
        by_speaker += blocked.low <= 0.2 <= blocked.high
        by_utterance += single.low <= 0.2 <= single.high
    assert by_speaker >= 85 and by_utterance <= 65


def test_a_better_system_is_told_from_an_equal_one() -> None:
    rng = np.random.default_rng(3)
    base, speakers = simulate(rng, 40, 20, 0.1)
    words = [10] * len(base)
    better = [max(0, errors - int(rng.random() < 0.3)) for errors in base]

    result = paired_difference(base, better, words, speakers, 1000, 0)
    assert result.difference == pytest.approx((sum(better) - sum(base)) / sum(words))
    assert result.low <= result.difference <= result.high < 0
    assert (result.probability_better, result.blocks) == (1.0, 40)

    # Drawn jointly, what both find hard cancels: far narrower than the interval of either.
    alone = bootstrap_wer(base, words, speakers, 1000, 0)
    assert result.high - result.low < (alone.high - alone.low) / 4

    mirrored = paired_difference(better, base, words, speakers, 1000, 0)
    assert (mirrored.difference, mirrored.low, mirrored.high) == pytest.approx(
        (-result.difference, -result.high, -result.low))
    assert mirrored.probability_better == 0.0

    same = paired_difference(base, base, words, speakers, 1000, 0)
    assert (same.difference, same.low, same.high, same.probability_better) == (0.0, 0.0, 0.0, 0.0)


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[2, 2, 1\]"):
        bootstrap_wer([1, 2], [3, 4], ["a"], 10, 0)
    with pytest.raises(DataError, match="no utterances"):
        paired_difference([], [], [], [], 10, 0)


def test_ten_thousand_utterances_take_seconds_and_little_memory() -> None:
    rng = np.random.default_rng(4)
    errors, words = rng.integers(0, 4, 10_000).tolist(), rng.integers(5, 20, 10_000).tolist()
    tracemalloc.start()
    start = time.process_time()
    paired_difference(errors, errors[::-1], words, range(10_000), 2_000, 0)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 10 and peak < 64e6
