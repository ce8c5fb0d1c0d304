"""Confidence intervals of the word error rate, and the test of two systems, over blocks such as speakers.

Errors of one speaker are correlated, so whole blocks are the unit (Bisani and Ney, "Bootstrap estimates for confidence
intervals in ASR performance evaluation", ICASSP 2004).

*One system.* The interval is the wider of Student's t and the bootstrap-t, at a nominal 96 % because at 95 % it covers
less (each replica is divided by its own standard error: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
chapter 12). With fewer than `MIN_BLOCKS` blocks, or errors in fewer blocks, that division is unstable; then it is the
widest of Student's t, the percentiles with wider levels (Hesterberg, arXiv 1411.5279) and the interval of Clopper and
Pearson for the share of blocks with errors.

*Two systems.* If both are equal, the sign of the difference of each block is random. The p-value is the share of
sign patterns with a difference as large as the measured one (Fisher, "The Design of Experiments", 1935): all patterns
up to 14 blocks, else random ones, with 1 added to both counts. The interval holds every difference that this test does
not reject at 5 %; its ends are quantiles of the differences of random subsets of blocks (Hartigan, "Using subsample
values as typical values", JASA 1969). So the interval excludes 0 exactly if the p-value is at most 0.05.

`scripts/simulate_verdicts.py` measures coverage and false verdicts; docs/statistics.md has its table.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from finetune.core.errors import DataError
from finetune.metrics.binomial import clopper_pearson
from finetune.metrics.blocks import MIN_BLOCKS
from finetune.metrics.resampling import FloatArray, resample, subset_totals
from finetune.metrics.t_distribution import t_quantile

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05  # of p-values that are adjusted for the number of tests
POWER = 0.8
_TAIL = (1 - CONFIDENCE) / 2
_STUDENTIZED_TAIL = 0.02  # nominal 96 %, which covers 95 % (scripts/simulate_verdicts.py)
_EQUAL = 1e-12  # standard error of blocks with equal rates


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of the pooled WER (fractions), the number of blocks, and a note if it is unreliable."""

    low: float
    high: float
    blocks: int
    note: str = ""


@dataclass(frozen=True)
class PairedDifference:
    """A score of B minus the same score of A (fractions), with its 95 % interval.

    B is better below zero for an error rate (WER, CER), and above zero for BLEU and chrF (`score_intervals`).
    `probability_better` is the fraction of replicas in which B is better than A; ties do not count, so for two equal
    systems it is 0. `p_value` is two-sided and decides the verdict; the interval of an error rate excludes 0 exactly if
    it is at most 0.05. `detectable` is the smallest true difference that a test with as many blocks of this kind
    detects with a power of 80 %; None if all blocks have the same difference. `note` says why the interval is
    unreliable, or is "".
    """

    difference: float
    low: float
    high: float
    probability_better: float
    p_value: float
    detectable: float | None
    blocks: int
    note: str = ""


def bootstrap_wer(
    errors: Sequence[int], words: Sequence[int], groups: Sequence[Hashable], replicas: int, seed: int
) -> Interval:
    """Computes the 95 % interval of the pooled WER over resampled blocks.

    Args:
        errors: word errors of each utterance.
        words: reference words of each utterance.
        groups: block of each utterance: its speaker, or the id of the utterance if the speaker is unknown (with None
            for all, the unknown speakers would be one block).
        replicas: number of resampled corpora, 1,000 to 10,000.
        seed: seed of the random generator; equal seeds give equal intervals.

    Raises:
        DataError: there are no utterances, or the lists differ in length.
    """
    block_errors, block_words = _sorted(*_block_sums([errors, words], groups))
    blocks, (value, error) = len(block_errors), _ratio(block_errors, block_words)
    if not block_words.any():
        return Interval(value, value, blocks, "there are no reference words")
    if error < _EQUAL:
        return _interval_of_equal_blocks(value, blocks)
    informative, which = _informative(block_errors, block_words)
    if min(blocks, informative) < MIN_BLOCKS:
        low, high = _interval_of_few_blocks(block_errors, block_words, replicas, seed)
    else:
        reach = t_quantile(1 - _TAIL, blocks - 1) * error
        low, high = _bootstrap_t(block_errors, block_words, replicas, seed)
        low, high = min(low, value - reach), max(high, value + reach)
    worst = float(_rates(block_errors, block_words).max())
    high = min(high, max(1.0, worst))  # replicas of equal blocks have no variance
    note = _reliability_note(blocks, informative, which) or _dominance_note(block_errors - value * block_words)
    return Interval(max(0.0, low), high, blocks, note)


def paired_difference(
    errors_a: Sequence[int],
    errors_b: Sequence[int],
    words: Sequence[int],
    groups: Sequence[Hashable],
    replicas: int,
    seed: int,
) -> PairedDifference:
    """Compares two systems on the same utterances.

    Args:
        errors_a: word errors of each utterance by system A (the base).
        errors_b: word errors of each utterance by system B (the adapted model).
        words: reference words of each utterance.
        groups: block of each utterance, as in `bootstrap_wer`.
        replicas: number of resampled corpora and of random sign patterns, 1,000 to 10,000.
        seed: seed of the random generator.

    Raises:
        DataError: there are no utterances, or the lists differ in length.
    """
    a, b, block_words = _block_sums([errors_a, errors_b, words], groups)
    largest_a, largest_b = (max(1.0, float(_rates(side, block_words).max())) for side in (a, b))
    top, block_words = _sorted(b - a, block_words)
    blocks, (value, error) = len(top), _ratio(top, block_words)
    p_value, low, high = _sign_flip(top, block_words, replicas, seed)
    informative, note = int(np.count_nonzero(top)), ""
    if not block_words.any():
        value, low, high, p_value, note = _without_words(float(a.sum()), float(b.sum()), p_value)
        error = 0.0
    elif error < _EQUAL:
        count, unit = (len(errors_a), "clip") if list(errors_a) == list(errors_b) else (blocks, "block")
        rates = [float(errors.sum() / block_words.sum()) for errors in (a, b)]
        low, high, note = _difference_of_equal_blocks(rates, value, count, unit, blocks)
        error = 0.0
    elif min(blocks, informative) < MIN_BLOCKS:
        low, high = _widened(value, low, high, error, blocks, informative)
    power = t_quantile(1 - _TAIL, blocks - 1) + t_quantile(POWER, blocks - 1) if blocks > 1 else math.inf
    return PairedDifference(
        difference=value,
        low=max(low, -largest_a),
        high=min(high, largest_b),
        probability_better=float(np.mean(resample(np.stack([top, block_words]), replicas, seed)[0] < 0)),
        p_value=p_value,
        detectable=power * error if error else None,
        blocks=blocks,
        note=note or _reliability_note(blocks, informative, "differences"),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for multiple tests (Holm, Scand. J. Statistics 6, 1979); keeps their order."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _ratio(top: FloatArray, words: FloatArray) -> tuple[float, float]:
    """`top` over `words`, sums of K blocks each, and its standard error; 0.0 for one block."""
    value, blocks = float(_rates(top.sum(keepdims=True), words.sum(keepdims=True))[0]), len(top)
    residuals = top - value * words
    scale = blocks / (blocks - 1) if blocks > 1 else 0.0
    return value, math.sqrt(scale * float((residuals * residuals).sum())) / max(float(words.sum()), 1.0)


def _bootstrap_t(top: FloatArray, words: FloatArray, replicas: int, seed: int) -> tuple[float, float]:
    blocks, (value, error) = len(top), _ratio(top, words)
    sampled_top, sampled_words, *squares = resample(
        np.stack([top, words, top * top, top * words, words * words]), replicas, seed
    )
    values = _rates(sampled_top, sampled_words)
    variance = blocks / (blocks - 1) * (squares[0] - 2 * values * squares[1] + values * values * squares[2])
    errors = np.sqrt(np.maximum(variance, 0)) / np.maximum(sampled_words, 1)
    low, high = np.quantile((values - value) / np.maximum(errors, 1e-9), [_STUDENTIZED_TAIL, 1 - _STUDENTIZED_TAIL])
    return value - float(high) * error, value - float(low) * error


def _interval_of_few_blocks(top: FloatArray, words: FloatArray, replicas: int, seed: int) -> tuple[float, float]:
    """The widest of three intervals for few blocks, or for few blocks with errors (or with correct words)."""
    blocks, (value, error) = len(top), _ratio(top, words)
    t = t_quantile(1 - _TAIL, blocks - 1)
    level = NormalDist().cdf(-math.sqrt(blocks / (blocks - 1)) * t)
    values = _rates(*resample(np.stack([top, words]), replicas, seed))
    ends = [value - t * error, value + t * error, *map(float, np.quantile(values, [level, 1 - level]))]
    wrong, partly_correct = int(np.count_nonzero(top)), int(np.count_nonzero(top != words))
    if wrong <= partly_correct:
        ends += _scaled(value, wrong, blocks)
    else:
        ends += [1 - end for end in _scaled(1 - value, partly_correct, blocks)]
    return min(ends), max(ends)


def _scaled(value: float, informative: int, blocks: int) -> list[float]:
    """`value`, multiplied by the 95 % interval of the share of informative blocks over that share."""
    return [value * end * blocks / informative for end in clopper_pearson(informative, blocks)]


def _interval_of_equal_blocks(value: float, blocks: int) -> Interval:
    """All blocks have the rate `value`: up to a share of other blocks can have any rate from 0 to 1 (or to `value`)."""
    share = clopper_pearson(0, blocks)[1] if blocks > 1 else 1.0
    note = _equal_note(share, blocks, "block", blocks)
    return Interval((1 - share) * value, value + share * (max(1.0, value) - value), blocks, note)


def _difference_of_equal_blocks(
    rates: Sequence[float], value: float, count: int, unit: str, blocks: int
) -> tuple[float, float, str]:
    """All blocks have the difference `value`: up to a share of other blocks can differ from it by twice its size.

    For 0 in all clips, up to a share of other clips can differ by all their words. A system is not better by more than
    1 or, beyond it, the rate of the other one in `rates` (of A and B), as in `_interval_of_equal_blocks`.
    """
    share = clopper_pearson(0, count)[1]
    reach = share * (2 * abs(value) or 1.0) if count > 1 else max(1.0, abs(value))
    largest_a, largest_b = (max(1.0, rate) for rate in rates)
    low, high = max(value - reach, -largest_a), min(value + reach, largest_b)
    return low, high, _equal_note(share, count, unit, blocks)


def _without_words(a: float, b: float, p_value: float) -> tuple[float, float, float, float, str]:
    """Difference, interval, p-value and note of two rates that are 0 or 1, because there are no reference words."""
    value, note = float(np.sign(b) - np.sign(a)), "there are no reference words"
    if not value:
        return value, value, value, 1.0, note + ": inserted words are not compared" * bool(b)
    other_end = value if p_value <= SIGNIFICANCE else 0.0
    return value, min(value, other_end), max(value, other_end), p_value, note


def _equal_note(share: float, count: int, unit: str, blocks: int) -> str:
    equal = (
        f"word errors are equal in all {count} {unit}s: at 95 %, fewer than {100 * share:.1f} % of others would differ"
    )
    return "; ".join(note for note in (_reliability_note(blocks), equal if count > 1 else "") if note)


def _sign_flip(top: FloatArray, words: FloatArray, replicas: int, seed: int) -> tuple[float, float, float]:
    """The two-sided p-value of the sign-flip test, and the ends of the interval of differences it does not reject.

    Flipping the signs of the blocks of a subset gives a sum as large as the measured one exactly if the sum of
    the subset is 0 or less. So the test counts subsets; the measured pattern flips none. The ends are infinite
    if no pattern is significant (fewer than 6 blocks).
    """
    totals, lengths = subset_totals(np.stack([top, words]), replicas, seed)
    patterns = len(totals) + 1
    beyond = 1 + min(int(np.count_nonzero(totals <= 0)), int(np.count_nonzero(totals >= 0)))
    rank = math.floor(_TAIL * patterns + _EQUAL)
    low, high = -math.inf, math.inf
    if rank:
        rates = totals / np.maximum(lengths, 1)
        low = float(np.sort(np.where(lengths > 0, rates, np.where(totals <= 0, -1, 1)))[rank - 1])
        high = float(np.sort(np.where(lengths > 0, rates, np.where(totals >= 0, 1, -1)))[-rank])
    return min(1.0, 2 * beyond / patterns), low, high


def _widened(value: float, low: float, high: float, error: float, blocks: int, informative: int) -> tuple[float, float]:
    """The interval of few blocks, or of few blocks that differ: includes those of Student's t and of `_scaled`."""
    ends = _scaled(value, informative, blocks)
    if math.isinf(low):  # no pattern of fewer than 6 blocks is significant, so 0 is never excluded
        reach = t_quantile(1 - _TAIL, blocks - 1) * error
        return min(0.0, value - reach, *ends), max(0.0, value + reach, *ends)
    return min(low, *ends), max(high, *ends)


def _informative(top: FloatArray, words: FloatArray) -> tuple[int, str]:
    """The smaller of two numbers, and what these blocks have: blocks with errors, and blocks with correct words."""
    return min((int(np.count_nonzero(top)), "errors"), (int(np.count_nonzero(top != words)), "correct words"))


def _reliability_note(blocks: int, informative: int = MIN_BLOCKS, which: str = "") -> str:
    """A note if the interval is unreliable: there are too few blocks, or too few informative ones."""
    if blocks < MIN_BLOCKS:
        return f"only {blocks} block{'s' * (blocks > 1)}: the interval is not reliable"
    if informative < MIN_BLOCKS:
        return f"{which} in only {informative} of {blocks} blocks: the interval is not reliable"
    return ""


def _dominance_note(residuals: FloatArray) -> str:
    squares = residuals * residuals
    if squares.max() <= squares.sum() / 2:
        return ""
    return "one block has more than half of the variance: the interval can be too short"


def _block_sums(columns: list[Sequence[int]], groups: Sequence[Hashable]) -> FloatArray:
    """Sums M columns of counts by block: (M, K), with the blocks in the order of their first utterance."""
    lengths = [len(column) for column in columns] + [len(groups)]
    if len(set(lengths)) > 1:
        raise DataError(f"counts and groups need one entry for each utterance, but their lengths are {lengths}")
    if not lengths[-1]:
        raise DataError("there are no utterances to resample; check that the manifest is not empty")
    numbers: dict[Hashable, int] = {}
    block = [numbers.setdefault(group, len(numbers)) for group in groups]
    return np.stack([np.bincount(block, weights=column) for column in columns])


def _sorted(top: FloatArray, words: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The blocks, sorted by their sums and in the same order for `-top`.

    So the samples do not depend on the order of the utterances or of the two systems.
    """
    signs = (float(top.sum()), float((top * words).sum()), float((top**3).sum()))
    order = np.lexsort((top if next((sign for sign in signs if sign), 0.0) >= 0 else -top, words))
    return top[order], words[order]


def _rates(errors: FloatArray, words: FloatArray) -> FloatArray:
    """Errors divided by words; without words 0 if there are no errors, else 1, as in `wer.error_rate`."""
    return np.where(words > 0, errors / np.maximum(words, 1), np.sign(errors))
