"""Intervals and tests of chrF over blocks: coverage, false verdicts, bounds, and few or equal blocks."""

import numpy as np
import pytest

from finetune.metrics.score_intervals import score_difference, score_interval, share_interval

Counts = list[list[int]]


def mean(sums: np.ndarray) -> np.ndarray:
    """A statistic of two counts."""
    return sums[0] / np.maximum(sums[1], 1)


def world(rng: np.random.Generator, speakers: int, clips: int, shift: float = 0.0) -> tuple[Counts, list[str]]:
    """Correct words of 10 in each clip; each speaker has a rate of its own around 0.6."""
    counts, groups = [], []
    for speaker, rate in enumerate(rng.beta(6, 4, speakers)):
        counts += [[int(rng.binomial(10, min(1.0, rate + shift))), 10] for _ in range(clips)]
        groups += [f"s{speaker}"] * clips
    return counts, groups


def test_intervals_cover_the_true_score_and_equal_systems_are_rarely_different() -> None:
    covered, false, rounds = 0, 0, 150
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        counts, groups = world(rng, 15, 4)
        value, interval = score_interval(counts, groups, mean, 300, seed)
        assert interval.low <= value <= interval.high
        covered += interval.low <= 0.6 <= interval.high
        swapped = rng.random(15) < 0.5  # two equal systems: exchanged speaker by speaker
        first = [a if swapped[int(g[1:])] else b for a, b, g in zip(counts, world(rng, 15, 4)[0], groups, strict=True)]
        second = [b if swapped[int(g[1:])] else a for a, b, g in zip(counts, first, groups, strict=True)]
        false += score_difference(first, second, groups, mean, 300, seed).p_value <= 0.05
    assert covered / rounds >= 0.9
    assert false / rounds <= 0.1


def test_a_clear_gain_is_significant_and_symmetric() -> None:
    rng = np.random.default_rng(1)
    first, groups = world(rng, 12, 5)
    second = [[min(10, a + 2), b] for a, b in first]
    gain = score_difference(first, second, groups, mean, 1000, 0)
    loss = score_difference(second, first, groups, mean, 1000, 0)
    assert gain.p_value <= 0.05 and 0 < gain.low <= gain.difference <= gain.high
    assert gain.probability_better == 1.0 and loss.probability_better == 0.0
    assert (loss.difference, loss.p_value) == (pytest.approx(-gain.difference), gain.p_value)
    assert gain.detectable is not None and 0 < gain.detectable < 1 and gain.blocks == 12 and gain.note == ""


def test_an_interval_that_is_not_significant_includes_zero() -> None:
    first, second = [[5, 10]] * 5, [[6, 10], [6, 10], [7, 10], [6, 10], [8, 10]]
    result = score_difference(first, second, list("abcde"), mean, 1000, 0)
    assert result.p_value > 0.05 and result.low <= 0 <= result.high  # five blocks can never be significant
    assert "only 5 blocks" in result.note


def test_blocks_and_not_clips_are_resampled() -> None:
    counts, groups = [[10, 10]] * 50 + [[0, 10]] * 50, ["a"] * 50 + ["b"] * 50
    _, by_speaker = score_interval(counts, groups, mean, 500, 0)
    _, by_clip = score_interval(counts, list(range(100)), mean, 500, 0)
    assert (by_speaker.low, by_speaker.high, by_speaker.blocks) == (0.0, 1.0, 2)
    assert by_clip.high - by_clip.low < 0.25


def test_equal_blocks_have_an_interval_and_one_block_has_none() -> None:
    value, interval = score_interval([[10, 10]] * 20, list(range(20)), mean, 100, 0)
    assert value == interval.high == 1.0 and 0.8 < interval.low < 0.9 and "same score" in interval.note
    value, interval = score_interval([[3, 10]], ["a"], mean, 100, 0)
    assert (value, interval.low, interval.high) == (0.3, 0.0, 1.0) and "only 1 block:" in interval.note
    same = score_difference([[3, 10]] * 20, [[3, 10]] * 20, list(range(20)), mean, 100, 0)
    assert (same.difference, same.p_value, same.detectable) == (0.0, 1.0, None) and same.low < 0 < same.high


def test_clips_without_a_term_are_no_blocks_of_the_recall() -> None:
    names = [f"clip {number}" for number in range(60)]
    one = share_interval([0] * 60, [2] + [0] * 59, names, 1000, 0)  # two terms of one clip, none missed
    assert (one.low, one.high, one.blocks) == (0.0, 1.0, 1)
    assert one.note == "only 1 block: the interval is not reliable"
    few = share_interval([0] * 60, [1] * 4 + [0] * 56, names, 1000, 0)
    assert (few.low, few.blocks) == (0.0, 4) and few.high == pytest.approx(1 - 0.025 ** (1 / 4))
