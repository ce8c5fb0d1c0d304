"""The bootstrap: exact small cases, coverage and power on simulated speakers, and its speed."""

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

import simulate_verdicts
from finetune.core.errors import DataError
from finetune.metrics.binomial import clopper_pearson
from finetune.metrics.blocks import MIN_BLOCKS, choose_blocks, scope_text
from finetune.metrics.resampling import resample, subset_totals
from finetune.metrics.significance import PairedDifference, bootstrap_wer, holm, paired_difference
from finetune.metrics.t_distribution import t_quantile


def simulate(rng: np.random.Generator, speakers: int, utterances: int, spread: float) -> tuple[list[int], list[int]]:
    """Errors of 10-word utterances by speakers whose true WER varies about 0.2, and their speakers."""
    rates = np.clip(rng.normal(0.2, spread, speakers), 0.0, 1.0).repeat(utterances)
    return rng.binomial(10, rates).tolist(), np.arange(speakers).repeat(utterances).tolist()


@pytest.mark.parametrize(
    ("errors", "blocks", "low", "high"),
    [
        (0, 60, 0.0, 1 - 0.025 ** (1 / 60)),  # Clopper-Pearson for 0 of 60
        (0, 4, 0.0, 1 - 0.025 ** (1 / 4)),
        (0, 1, 0.0, 1.0),
        (10, 60, 0.025 ** (1 / 60), 1.0),
        (10, 3, 0.025 ** (1 / 3), 1.0),
        (1, 3, 0.1 * 0.025 ** (1 / 3), 0.1 + 0.9 * (1 - 0.025 ** (1 / 3))),
        (20, 3, 2 * 0.025 ** (1 / 3), 2.0),
    ],
)
def test_equal_blocks_have_the_interval_of_an_exact_proportion(
    errors: int, blocks: int, low: float, high: float
) -> None:
    result = bootstrap_wer([errors] * blocks, [10] * blocks, range(blocks), 100, 0)
    assert (result.low, result.high) == pytest.approx((low, high)) and result.blocks == blocks
    assert result.low < result.high and ("equal in all" in result.note or blocks == 1)


@pytest.mark.parametrize("blocks", [12, 20])
def test_one_block_that_differs_does_not_make_an_endless_interval(blocks: int) -> None:
    """Replicas without it have no variance."""
    result = bootstrap_wer([1] * (blocks - 1) + [2], [10] * blocks, range(blocks), 1000, 0)
    assert result.low <= 0.1 + 0.1 / blocks <= result.high <= 1
    wrong = bootstrap_wer([10] * (blocks - 1) + [25], [10] * blocks, range(blocks), 1000, 0)
    assert wrong.high <= 2.5  # the rate of the worst block
    assert bootstrap_wer([1, 0, 0, 6], [2, 2, 2, 6], range(4), 1000, 0).high == 1.0  # also of few
    worse = paired_difference([0, 0, 0], [1, 1, 1], [3, 2, 1], range(3), 1000, 0)
    better = paired_difference([1, 1, 1], [0, 0, 0], [3, 2, 1], range(3), 1000, 0)
    assert worse.high == 1.0 and better.low == -1.0


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (0, 1, 0.0, 0.975)],
)
def test_clopper_pearson(hits: int, total: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, total) == pytest.approx((low, high), abs=1e-4)


def test_one_speaker_has_the_widest_interval() -> None:
    result = bootstrap_wer([0, 9], [10, 10], ["anna", "anna"], 100, 0)
    assert (result.low, result.high, result.blocks) == (0.0, 1.0, 1)
    assert "only 1 block:" in result.note


def test_few_blocks_have_a_wide_interval_with_a_note() -> None:
    few = bootstrap_wer([1, 3, 2, 1], [10] * 4, range(4), 1000, 0)
    t, error = 3.182446, np.std([0.1, 0.3, 0.2, 0.1], ddof=1) / 2  # Student, 3 degrees of freedom
    assert few.low == pytest.approx(max(0, 0.175 - t * error)) and few.high == pytest.approx(0.175 + t * error)
    assert few.low < 0.175 * clopper_pearson(4, 4)[0]
    assert "only 4 blocks" in few.note
    assert "only 3 of 50 blocks" in bootstrap_wer([1] * 3 + [0] * 47, [10] * 50, range(50), 1000, 0).note
    assert bootstrap_wer([1] * 12 + [0] * 38, [10] * 50, range(50), 1000, 0).note == ""


def test_few_blocks_with_errors_or_with_correct_words() -> None:
    one = bootstrap_wer([1] + [0] * 49, [10] * 50, range(50), 1000, 0)
    assert one.low == 0 and one.high >= clopper_pearson(1, 50)[1] / 10  # wider than Student's t and percentiles
    missed = bootstrap_wer([4] * 11 + [3], [4] * 12, range(12), 1000, 0)  # one of 48 was not missed
    assert 0.9 < missed.low < 47 / 48 < missed.high < 1.05 and "only 1 of 12" in missed.note


def test_coarsest_unit_with_enough_blocks() -> None:
    ids = [f"u{number}" for number in range(40)]
    ten, two = [f"s{number % MIN_BLOCKS}" for number in range(40)], ["a", "b"] * 20
    assert choose_blocks({"speaker": ten, "recording": two, "utterance": ids}).unit == "speaker"
    assert choose_blocks({"speaker": ten, "utterance": ids}).scope == "other speakers"
    few = choose_blocks({"speaker": two, "recording": ten, "utterance": ids})
    assert (few.unit, few.names) == ("recording", tuple(ten)) and "only 2 speakers" in few.note
    none = choose_blocks({"speaker": ["", *ten[1:]], "recording": ids, "utterance": ids})
    assert (none.unit, none.note, none.scope) == ("utterance", "", "unknown speakers")
    one = choose_blocks({"speaker": ["a"] * 40, "recording": two, "utterance": ids})
    assert one.unit == "utterance" and "only 1 speaker:" in one.note and "only 2 recordings" in one.note
    assert (few.scope, few.speakers, one.scope, one.speakers) == ("these speakers", 2, "these speakers", 1)
    assert scope_text(few.scope, few.speakers) == " on these 2 speakers; other speakers not shown"
    own = choose_blocks({"speaker": ids, "utterance": ids})  # each clip by another speaker
    assert (own.unit, own.scope, own.speakers) == ("utterance", "other speakers", 40)
    nine = choose_blocks({"speaker": ids[:9], "utterance": ids[:9]})
    assert nine.scope == "these speakers" and choose_blocks({"utterance": ids}).scope == "unknown speakers"


def test_result_depends_on_the_seed_and_not_on_block_names() -> None:
    errors, speakers = simulate(np.random.default_rng(0), 20, 5, 0.1)
    words = [10] * len(errors)
    result = bootstrap_wer(errors, words, speakers, 500, 7)
    assert result == bootstrap_wer(errors, words, [f"speaker {number}" for number in speakers], 500, 7)
    assert result != bootstrap_wer(errors, words, speakers, 500, 8)


def test_totals_do_not_depend_on_the_size_of_a_chunk() -> None:
    sums = np.random.default_rng(5).integers(0, 50, (2, 20)).astype(float)
    totals = resample(sums, 500, 7)
    assert totals.shape == (2, 500) and len(np.unique(totals[0])) > 50
    assert np.array_equal(resample(sums, 500, 7, chunk=130), totals)  # six replicas in a chunk, two in the last
    equal = np.repeat([[3.0, 8.0], [10.0, 10.0]], 20, axis=1)  # two kinds of blocks
    assert np.array_equal(resample(equal, 500, 7, chunk=130), resample(equal, 500, 7))


def test_utterances_without_words_have_a_rate() -> None:
    assert bootstrap_wer([0, 0], [0, 0], [1, 2], 100, 0).high == 0.0
    result = bootstrap_wer([3, 1], [0, 0], [1, 2], 100, 0)
    assert (result.low, result.high) == (1.0, 1.0)


def covered(rates: Callable[[np.random.Generator], np.ndarray], true: float, trials: int, uneven: bool) -> float:
    """How often the interval of 20 speakers contains the true WER."""
    rng, held = np.random.default_rng(1), 0
    for trial in range(trials):
        words = 10 * (rng.integers(5, 60, 20) if uneven else np.full(20, 30))
        errors = rng.binomial(words, rates(rng))
        interval = bootstrap_wer(errors.tolist(), words.tolist(), range(20), 500, trial)
        held += interval.low <= true <= interval.high
    return held / trials


def test_coverage_with_twenty_speakers_is_at_least_93_per_cent() -> None:
    equal_sizes = covered(lambda rng: rng.normal(0.2, 0.06, 20).clip(0, 1), 0.2, 800, uneven=False)
    skewed = covered(
        lambda rng: rng.beta(1, 9, 20), 0.1, 800, uneven=False
    )  # most speakers have a low WER, some a very high one
    uneven = covered(lambda rng: rng.beta(2, 18, 20), 0.1, 800, uneven=True)
    assert min(equal_sizes, skewed, uneven) >= 0.93 and max(equal_sizes, skewed, uneven) <= 0.98


def test_coverage_of_independent_utterances() -> None:
    rng, held = np.random.default_rng(1), 0
    for trial in range(200):
        errors, _ = simulate(rng, 1, 200, 0.0)
        interval = bootstrap_wer(errors, [10] * 200, range(200), 400, trial)
        held += interval.low <= 0.2 <= interval.high
    assert 0.90 <= held / 200 <= 0.99


def test_utterances_of_one_speaker_are_not_independent() -> None:
    rng, held = np.random.default_rng(2), 0
    for trial in range(100):
        errors, _ = simulate(rng, 20, 30, 0.1)
        single = bootstrap_wer(errors, [10] * len(errors), range(len(errors)), 400, trial)
        held += single.low <= 0.2 <= single.high
    assert held <= 65


def test_power_at_the_detectable_difference_is_80_per_cent() -> None:
    rng, detected, false = np.random.default_rng(4), 0, 0

    def trial(gain: float, seed: int) -> PairedDifference:
        rates = rng.normal(0.3, 0.05, 25).clip(0.05, 1)
        base = rng.binomial(300, rates)
        better = rng.binomial(300, (rates - gain).clip(0, 1))
        return paired_difference(base.tolist(), better.tolist(), [300] * 25, range(25), 400, seed)

    detectable = float(np.mean([trial(0.0, seed).detectable or 0 for seed in range(50)]))
    for seed in range(300):
        detected += trial(detectable, seed).high < 0
        false += trial(0.0, seed).p_value <= 0.05
    assert 0.72 <= detected / 300 <= 0.88
    assert false / 300 <= 0.08


def test_the_interval_excludes_zero_exactly_if_the_p_value_is_significant() -> None:
    """Also for few blocks, ties, blocks without words and equal blocks."""
    rng, significant = np.random.default_rng(6), 0
    for seed in range(600):
        blocks, highest = int(rng.integers(1, 31)), int(rng.integers(1, 5))
        words = rng.integers(0 if seed % 3 else 5, 12, blocks)
        base = rng.integers(0, highest + 1, blocks) + 3 * (seed % 2)
        other = np.maximum(0, base - rng.integers(-1, 1 + rng.integers(1, 4), blocks))
        result = paired_difference(base.tolist(), other.tolist(), words.tolist(), range(blocks), 300, seed)
        if words.any():
            assert (result.p_value <= 0.05) == (not result.low <= 0 <= result.high), result
            assert result.low <= result.difference <= result.high
            assert result.low < result.high
        significant += result.p_value <= 0.05
    assert 60 < significant < 540


def test_p_value_of_few_blocks_counts_all_sign_patterns() -> None:
    """Differences 3, 2, 2, 2, 2, 2, -1: of 128 patterns, 2 flip -1 or nothing, and 0 more reach a sum of 12."""
    result = paired_difference([0] * 6 + [1], [3, 2, 2, 2, 2, 2, 0], [10] * 7, range(7), 100, 0)
    patterns = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1)
    sums = np.array([3, 2, 2, 2, 2, 2, -1]) @ patterns
    assert result.p_value == pytest.approx(np.mean(np.abs(sums) >= 12))
    six = paired_difference([0] * 6, [1, 2, 1, 2, 1, 2], [10] * 6, range(6), 100, 0)
    assert six.p_value == pytest.approx(2 / 64) and six.low > 0
    five = paired_difference([0] * 5, [1, 2, 1, 2, 1], [10] * 5, range(5), 100, 0)
    assert five.p_value == pytest.approx(2 / 32) and five.low <= 0 < five.high


@pytest.mark.parametrize("blocks", [1, 2, 5, 6, 12, 20, 40])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_constant_difference_is_significant_from_six_blocks(blocks: int, change: int) -> None:
    base = [3] * blocks
    result = paired_difference(base, [3 + change] * blocks, [10] * blocks, range(blocks), 1000, 0)
    assert (result.p_value <= 0.05) == (blocks >= 6) == (not result.low <= 0 <= result.high)
    assert result.difference == pytest.approx(change / 10) and result.low < result.difference < result.high
    if blocks > 1:
        reach = 2 * 0.1 * (1 - 0.025 ** (1 / blocks))
        assert (result.low, result.high) == pytest.approx((change / 10 - reach, change / 10 + reach))


@pytest.mark.parametrize(
    ("base", "adapted", "blocks"), [(6, 0, 1), (9, 0, 3), (10, 0, 8), (0, 9, 2), (10, 10, 1), (25, 0, 4), (1, 30, 2)]
)
def test_a_difference_of_equal_blocks_is_possible(base: int, adapted: int, blocks: int) -> None:
    """No system is better by more than the other one has errors at most, by the end of its own interval."""
    result = paired_difference([base] * blocks, [adapted] * blocks, [10] * blocks, range(blocks), 100, 0)
    ends = [bootstrap_wer([errors] * blocks, [10] * blocks, range(blocks), 100, 0).high for errors in (base, adapted)]
    assert -max(1.0, ends[0]) <= result.low <= result.difference <= result.high <= max(1.0, ends[1])
    assert result.low < result.high and ("not reliable" in result.note)


def test_systems_that_are_equal_in_few_clips_are_not_shown_to_be_equal() -> None:
    """No clip of 4 differs: up to 60 % of other clips could (Clopper-Pearson)."""
    for speakers in (range(4), ["a"] * 4):
        result = paired_difference([0] * 4, [0] * 4, [5] * 4, speakers, 100, 0)
        assert (result.low, result.high) == pytest.approx((-0.6024, 0.6024), abs=1e-4)
        assert result.p_value == 1.0 and "equal in all 4 clips" in result.note


def test_a_note_says_which_blocks_are_few() -> None:
    words = [5] * 12
    assert bootstrap_wer([1] * 3 + [0] * 9, words, range(12), 100, 0).note.startswith("errors in only 3 of 12 blocks")
    wrong = bootstrap_wer([4] * 3 + [5] * 9, words, range(12), 100, 0)
    assert wrong.note.startswith("correct words in only 3 of 12 blocks")
    few = paired_difference([1] * 12, [2] * 3 + [1] * 9, words, range(12), 100, 0)
    assert few.note.startswith("differences in only 3 of 12 blocks")


def test_without_reference_words_nothing_is_significant_or_infinite() -> None:
    result = paired_difference([0] * 12, [1] * 12, [0] * 12, range(12), 100, 0)
    assert np.isfinite([result.low, result.high]).all() and "no reference words" in result.note


def test_without_reference_words_the_difference_is_that_of_the_rates() -> None:
    """Each rate is 0 or 1: two systems that both write words do not differ by 100 points."""
    both = paired_difference([9] * 12, [1] * 12, [0] * 12, range(12), 100, 0)
    assert (both.difference, both.low, both.high, both.p_value) == (0.0, 0.0, 0.0, 1.0)
    few = paired_difference([1, 0, 0], [0, 0, 0], [0] * 3, range(3), 100, 0)
    assert (few.difference, few.low, few.high) == (-1.0, -1.0, 0.0) and few.p_value > 0.05
    many = paired_difference([1] * 12, [0] * 12, [0] * 12, range(12), 100, 0)
    assert (many.difference, many.low, many.high) == (-1.0, -1.0, -1.0) and many.p_value < 0.05


def test_the_difference_does_not_depend_on_the_order_of_clips_or_systems() -> None:
    rng = np.random.default_rng(8)
    for blocks in (12, 25):
        a, b, words = rng.integers(0, 9, blocks), rng.integers(0, 9, blocks), rng.integers(10, 30, blocks)
        b[0] += a.sum() - b.sum() if blocks == 25 else 0  # equal sums: the sign of the difference does not help
        order = rng.permutation(blocks)
        first = paired_difference(a.tolist(), b.tolist(), words.tolist(), range(blocks), 500, 3)
        again = paired_difference(a[order].tolist(), b[order].tolist(), words[order].tolist(), order.tolist(), 500, 3)
        swapped = paired_difference(b.tolist(), a.tolist(), words.tolist(), range(blocks), 500, 3)
        assert again == first
        assert (swapped.low, swapped.high, swapped.p_value) == (-first.high, -first.low, first.p_value)


@pytest.mark.parametrize("kinds", [2, 40])
def test_subsets_are_random_halves_and_do_not_depend_on_the_chunk(kinds: int) -> None:
    sums = np.stack([np.arange(40) % kinds, np.ones(40)]).astype(float)
    totals = subset_totals(sums, 4000, 7)
    assert np.array_equal(subset_totals(sums, 4000, 7, chunk=130), totals)
    assert totals[1].mean() == pytest.approx(20, abs=0.2) and totals[1].var() == pytest.approx(10, abs=1)
    assert subset_totals(np.ones((1, 3)), 9, 0)[0].tolist() == [1, 1, 2, 1, 2, 2, 3]


@pytest.mark.parametrize("world", simulate_verdicts.WORLDS)
def test_false_verdicts_and_coverage_of_the_simulation(world: str) -> None:
    """A sample of the table in docs/statistics.md; 3 standard errors of 200 sets are about 5 points."""
    cell = simulate_verdicts.simulate(world, 20, sets=200, replicas=300, seed=2)
    assert cell.better + cell.worse <= 0.10 and cell.difference_covered == 1 - cell.better - cell.worse
    assert cell.covered >= (0.85 if world == "Pareto" else 0.90)
    assert cell.power > 0.15


def test_few_speakers_tested_by_clips_are_often_wrong_about_other_speakers() -> None:
    assert simulate_verdicts.false_by_clips(5, 60, sets=60, replicas=200, seed=1) > 0.1


@pytest.mark.parametrize("replicas", [99, 999])
def test_p_value_includes_the_observation_and_is_never_zero(replicas: int) -> None:
    """B has fewer errors in every block, by 1 to 3 words of 10, so no replica is beyond zero."""
    base, better = [5] * 30, [2 + number % 3 for number in range(30)]
    for pair in ((base, better), (better, base)):
        result = paired_difference(*pair, [10] * 30, range(30), replicas, 0)
        assert result.p_value == pytest.approx(2 / (replicas + 1), rel=1e-9)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_student() -> None:
    for probability, df, t in ((0.975, 1, 12.7062), (0.975, 19, 2.0930), (0.8, 5, 0.9195), (0.975, 120, 1.9799)):
        assert t_quantile(probability, df) == pytest.approx(t, abs=2e-4)
    assert t_quantile(0.975, 10**6) == pytest.approx(1.96, abs=2e-3)


def test_better_and_equal_systems() -> None:
    rng = np.random.default_rng(3)
    base, speakers = simulate(rng, 40, 20, 0.1)
    words = [10] * len(base)
    better = [max(0, errors - int(rng.random() < 0.3)) for errors in base]

    result = paired_difference(base, better, words, speakers, 1000, 0)
    assert result.difference == pytest.approx((sum(better) - sum(base)) / sum(words))
    assert result.low <= result.difference <= result.high < 0
    assert (result.probability_better, result.blocks) == (1.0, 40)

    # Joint resampling cancels errors of both systems, so the interval is much narrower than that of one system.
    alone = bootstrap_wer(base, words, speakers, 1000, 0)
    assert result.high - result.low < (alone.high - alone.low) / 4

    mirrored = paired_difference(better, base, words, speakers, 1000, 0)
    assert (mirrored.difference, mirrored.low, mirrored.high) == pytest.approx(
        (-result.difference, -result.high, -result.low)
    )
    assert mirrored.probability_better == 0.0

    same = paired_difference(base, base, words, speakers, 1000, 0)
    assert (same.difference, same.probability_better) == (0.0, 0.0)
    assert same.high == -same.low == pytest.approx(1 - 0.025 ** (1 / len(base)))
    assert (same.p_value, same.detectable) == (1.0, None)


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


def test_the_interval_of_one_system_contains_that_of_student() -> None:
    rng = np.random.default_rng(3)
    for seed in range(60):
        errors = rng.integers(1, 9, 12)
        interval = bootstrap_wer(errors.tolist(), [10] * 12, range(12), 300, seed)
        reach = t_quantile(0.975, 11) * np.std(errors / 10, ddof=1) / np.sqrt(12)
        center = errors.mean() / 10
        assert interval.low <= center - reach + 1e-9 and interval.high >= center + reach - 1e-9
