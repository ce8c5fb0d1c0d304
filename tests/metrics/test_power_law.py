"""The power law of a learning curve: its fit, its extrapolation, and how often the interval holds the truth."""

from typing import Any

import numpy as np
import pytest

from finetune.metrics.power_law import MIN_POINTS, extrapolate, fit

AMOUNTS = [0.1, 0.25, 0.5, 1.0]


def simulate(
    rng: np.random.Generator, wers: list[float], spread: float, utterances: int, runs: int = 1
) -> tuple[list[int], list[Any]]:
    """Errors of points with these true WER; each run has a WER of its own, and utterances differ in difficulty."""
    words = np.full(utterances, 10)
    difficulty = rng.gamma(2.0, 0.5, utterances)
    errors = []
    for wer in wers:
        rates = np.maximum(0.0, wer + spread * rng.standard_normal((runs, 1))) * difficulty
        errors.append(rng.binomial(words, np.minimum(1.0, rates)))
    return words.tolist(), errors


@pytest.mark.parametrize(("a", "b", "c"), [(0.2, 0.5, 0.1), (0.3, 0.3, 0.0), (0.05, 1.0, 0.02)])
def test_points_on_a_power_law_are_fitted_exactly(a: float, b: float, c: float) -> None:
    law = fit([20 * amount for amount in AMOUNTS], [a * amount**-b + c for amount in AMOUNTS])
    assert law.unit == 20
    assert (law.a, law.b, law.c) == pytest.approx((a, b, c), abs=0.02)
    assert law.wer(80) == pytest.approx(a * 4**-b + c, abs=0.003)


def test_a_wer_that_does_not_fall_gives_a_flat_curve() -> None:
    law = fit(AMOUNTS, [0.2, 0.21, 0.2, 0.22])
    assert law.a == 0 and law.wer(4.0) == pytest.approx(0.2075)


def test_a_floor_below_zero_is_not_fitted() -> None:
    law = fit(AMOUNTS, [0.4, 0.2, 0.1, 0.0])
    assert law.c == 0 and law.wer(4.0) >= 0


def test_the_interval_holds_the_estimate_and_depends_on_the_seed_only() -> None:
    words, errors = simulate(np.random.default_rng(1), [0.5, 0.4, 0.32, 0.27], 0.0, 200)
    groups = list(range(200))
    first = extrapolate(AMOUNTS, errors, words, groups, [2.0, 4.0], 300, 1)
    assert first == extrapolate(AMOUNTS, errors, words, groups, [2.0, 4.0], 300, 1)
    assert all(row.low <= row.wer <= row.high for row in first)
    assert first[1].high - first[1].low > first[0].high - first[0].low


def test_few_blocks_and_unequal_runs_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    words, errors = simulate(rng, [0.5, 0.4, 0.32, 0.27], 0.0, 200)

    def width(groups: list[int], errors: list[Any]) -> float:
        (row,) = extrapolate(AMOUNTS[-MIN_POINTS:], errors[-MIN_POINTS:], words, groups, [2.0], 500, 1)
        return row.high - row.low

    alone = width(list(range(200)), errors)
    assert width([number % 3 for number in range(200)], errors) != alone
    shifted = [np.concatenate([counts, np.minimum(10, counts + 1)]) for counts in errors]
    assert width(list(range(200)), shifted) > 1.3 * alone


def test_a_single_run_has_an_assumed_spread() -> None:
    words, errors = simulate(np.random.default_rng(1), [0.5, 0.4, 0.32, 0.27], 0.0, 200)
    groups, twice = list(range(200)), [np.repeat(counts, 2, 0) for counts in errors]
    (single,), (double,) = (extrapolate(AMOUNTS, runs, words, groups, [2.0], 500, 1) for runs in (errors, twice))
    assert single.high - single.low > 1.05 * (double.high - double.low)


def test_points_beside_a_power_law_give_an_interval_without_noise() -> None:
    """All utterances and runs are equal, so only the points that are left out differ."""
    errors = [np.full((2, 50), count) for count in (6, 5, 3, 2)]
    (row,) = extrapolate(AMOUNTS, errors, [10] * 50, list(range(50)), [2.0], 200, 1)
    assert row.high - row.low > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.015])
def test_the_interval_holds_the_truth(spread: float) -> None:
    """Of 200 simulated curves; `spread` is the standard deviation of the WER of runs with other seeds."""
    check(200, spread, 0.9)


def test_the_interval_holds_the_truth_in_a_sample() -> None:
    check(25, 0.015, 0.75)


def check(curves: int, spread: float, least: float) -> None:
    hits = 0
    for number in range(curves):
        rng = np.random.default_rng(number)
        a, b, c = rng.uniform(0.1, 0.3), rng.uniform(0.2, 0.8), rng.uniform(0.0, 0.1)
        words, errors = simulate(rng, [a * amount**-b + c for amount in AMOUNTS], spread, 150)
        (row,) = extrapolate(AMOUNTS, errors, words, list(range(150)), [2.0], 300, number)
        # The truth on these utterances: the same test set would be scored again.
        hits += row.low <= a * 2.0**-b + c <= row.high
    assert hits >= least * curves
