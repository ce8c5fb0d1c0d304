"""Confidence intervals of the word error rate and tests of two systems: the block bootstrap.

Whole blocks (speakers) are resampled with replacement, because errors of one speaker are correlated (Bisani and Ney,
"Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004). Their percentile
interval is too narrow with few blocks: with 20 speakers a nominal 95 % interval covers 87 to 94 %. Therefore each
replica is divided by its own standard error (bootstrap-t: Efron and Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 12), which covers 93 to 96 % (simulation in tests/metrics/test_significance.py).

With fewer than `MIN_BLOCKS` blocks, or errors in fewer blocks, this division is unstable. Then the interval is the
wider of Student's t and the percentiles with wider levels (Hesterberg, arXiv 1411.5279), and its `note` states this.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from finetune.core.errors import DataError
from finetune.metrics.t_distribution import t_cdf, t_quantile

CONFIDENCE = 0.95
POWER = 0.8
MIN_BLOCKS = 10
_TAIL = (1 - CONFIDENCE) / 2
INDICES_PER_CHUNK = 1 << 20  # block indices in memory at the same time, about 16 MB with the values they select

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """The blocks that the bootstrap resamples: `names[i]` is the block of utterance i; `unit` is such as speaker."""

    unit: str
    names: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of the pooled WER (fractions), the number of blocks, and a note if it is unreliable."""

    low: float
    high: float
    blocks: int
    note: str = ""


@dataclass(frozen=True)
class PairedDifference:
    """WER of B minus WER of A (fractions; B is better below zero), with its 95 % interval.

    `probability_better` is the fraction of replicas in which B makes fewer errors than A; ties do not count, so for two
    equal systems it is 0. `p_value` is two-sided, by the method of the interval. `detectable` is the smallest true
    difference that a test with as many blocks of this kind detects with a power of 80 %; None if no block differs.
    """

    difference: float
    low: float
    high: float
    probability_better: float
    p_value: float
    detectable: float | None
    blocks: int
    note: str = ""


def choose_blocks(units: Mapping[str, Sequence[str]]) -> Blocks:
    """Selects the coarsest unit with `MIN_BLOCKS` blocks; the note names the coarser units with fewer.

    Args:
        units: by unit, coarsest first, the block of each utterance ("" if unknown); the last unit, utterances,
            is used if no other has enough blocks.
    """
    *coarse, last = units
    notes: list[str] = []
    for unit in coarse:
        names, count = units[unit], len(set(units[unit]))
        if "" in names or count == len(names):
            continue  # unknown, or not coarser than utterances
        if count >= MIN_BLOCKS:
            return Blocks(unit, tuple(names), "; ".join(notes))
        notes.append(f"only {count} {unit}{'s' * (count > 1)}: the interval does not apply to others")
    return Blocks(last, tuple(units[last]), "; ".join(notes))


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
    block_errors, block_words = _block_sums([errors, words], groups)
    blocks, ratio = len(block_errors), _ratio(block_errors, block_words, replicas, seed)
    low, high, note = max(0.0, ratio.low), ratio.high, _reliability_note(block_errors, block_words)
    if block_words.any() and not note and not _informative(block_errors, block_words):  # the rule of three
        low, high = (low, min(1.0, 3 / blocks)) if not block_errors.any() else (max(0.0, 1 - 3 / blocks), high)
        note = f"equal in all {blocks} blocks: at 95 % confidence, fewer than three in {blocks} would differ"
    return Interval(low, high, blocks, note)


def paired_difference(
    errors_a: Sequence[int],
    errors_b: Sequence[int],
    words: Sequence[int],
    groups: Sequence[Hashable],
    replicas: int,
    seed: int,
) -> PairedDifference:
    """Compares two systems on the same utterances; both are resampled with the same random blocks.

    Args:
        errors_a: word errors of each utterance by system A (the base).
        errors_b: word errors of each utterance by system B (the adapted model).
        words: reference words of each utterance.
        groups: block of each utterance, as in `bootstrap_wer`.
        replicas: number of resampled corpora, 1,000 to 10,000.
        seed: seed of the random generator.

    Raises:
        DataError: there are no utterances, or the lists differ in length.
    """
    a, b, block_words = _block_sums([errors_a, errors_b, words], groups)
    blocks, ratio = len(a), _ratio(b - a, block_words, replicas, seed)
    power = t_quantile(1 - _TAIL, blocks - 1) + t_quantile(POWER, blocks - 1) if blocks > 1 else math.inf
    return PairedDifference(
        difference=ratio.value,
        low=ratio.low,
        high=ratio.high,
        probability_better=ratio.below_zero,
        p_value=ratio.p_value,
        detectable=power * ratio.error if ratio.error else None,
        blocks=blocks,
        note=_reliability_note(b - a, block_words),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for multiple tests (Holm, Scand. J. Statistics 6, 1979); keeps their order."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class _Ratio:
    """A ratio of sums over blocks, its standard error, its 95 % interval, and the fraction of replicas below zero."""

    value: float
    low: float
    high: float
    error: float
    p_value: float
    below_zero: float


def _ratio(top: FloatArray, words: FloatArray, replicas: int, seed: int) -> _Ratio:
    """Bootstraps `top` over `words`, sums of K blocks each.

    The blocks are sorted by their sums, in the same order for `-top`. So the samples do not depend on the order of the
    utterances or of the two systems.
    """
    order = np.lexsort((top if top.sum() >= 0 else -top, words))
    top, words = top[order], words[order]
    blocks, total = len(top), max(float(words.sum()), 1.0)
    value = float(_rates(top.sum(keepdims=True), words.sum(keepdims=True))[0])
    sampled_top, sampled_words, *squares = resample(
        np.stack([top, words, top * top, top * words, words * words]), replicas, seed
    )
    below_zero = float(np.mean(sampled_top < 0))
    if blocks == 1:
        reach = max(1.0, abs(value))  # the spread of blocks cannot be estimated from one block
        return _Ratio(value, -reach, reach, 0.0, 1.0, below_zero)
    scale, residuals = blocks / (blocks - 1), top - value * words
    error = math.sqrt(scale * float((residuals * residuals).sum())) / total
    if not words.any() or error < 1e-12:
        return _Ratio(value, value, value, 0.0, 1.0, below_zero)
    values, statistic = _rates(sampled_top, sampled_words), value / error
    if min(blocks, _informative(top, words)) < MIN_BLOCKS:
        t = t_quantile(1 - _TAIL, blocks - 1)
        level = NormalDist().cdf(-math.sqrt(scale) * t)
        low, high = (float(bound) for bound in np.quantile(values, [level, 1 - level]))
        return _Ratio(
            value,
            min(value - t * error, low),
            max(value + t * error, high),
            error,
            2 * (1 - t_cdf(abs(statistic), blocks - 1)),
            below_zero,
        )
    variance = scale * (squares[0] - 2 * values * squares[1] + values * values * squares[2])
    errors = np.sqrt(np.maximum(variance, 0)) / np.maximum(sampled_words, 1)
    studentized = (values - value) / np.maximum(errors, 1e-9)
    low, high = (float(bound) for bound in np.quantile(studentized, [_TAIL, 1 - _TAIL]))
    num_beyond = min(int(np.sum(studentized >= statistic)), int(np.sum(studentized <= statistic)))
    return _Ratio(
        value,
        value - high * error,
        value - low * error,
        error,
        min(1.0, 2 * (num_beyond + 1) / (replicas + 1)),
        below_zero,
    )


def _informative(top: FloatArray, words: FloatArray) -> int:
    """The smaller of two numbers: blocks with errors, and blocks with correct words."""
    return min(int(np.count_nonzero(top)), int(np.count_nonzero(top != words)))


def _reliability_note(top: FloatArray, words: FloatArray) -> str:
    """A note if the interval is unreliable: there are too few blocks, or too few informative ones."""
    blocks, informative = len(top), _informative(top, words)
    if blocks < MIN_BLOCKS:
        return f"only {blocks} block{'s' * (blocks > 1)}: the interval is not reliable"
    if 0 < informative < MIN_BLOCKS:
        return f"only {informative} of {blocks} blocks differ from the others: the interval is not reliable"
    return ""


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


def resample(sums: FloatArray, replicas: int, seed: int, chunk: int = INDICES_PER_CHUNK) -> FloatArray:
    """Samples K of K blocks with replacement, `replicas` times: sums (M, K) to totals (M, replicas).

    Blocks with equal sums are interchangeable. With few kinds of blocks, the number of blocks of each kind is sampled
    instead. This has the same distribution and is much faster for many utterances.

    Args:
        sums: M sums of each of K blocks.
        replicas: number of resampled corpora.
        seed: seed of the random generator.
        chunk: block indices in memory at the same time; the totals do not depend on it.
    """
    rng, blocks = np.random.default_rng(seed), sums.shape[1]
    _, first, counts = np.unique(sums, axis=1, return_index=True, return_counts=True)
    distinct = np.argsort(first)  # in order of first occurrence, so exchanged systems have the same samples
    few = len(distinct) < blocks / 8  # sampling a kind takes longer than sampling a block
    columns, weights = (sums[:, first[distinct]], counts[distinct] / blocks) if few else (sums, counts)
    rows = max(1, chunk // columns.shape[1])
    totals = np.empty((len(sums), replicas))
    for start in range(0, replicas, rows):
        size = min(rows, replicas - start)
        if few:
            totals[:, start : start + size] = columns @ rng.multinomial(blocks, weights, size).T
        else:
            sampled_blocks = rng.integers(blocks, size=(size, blocks))
            for total, column in zip(totals, columns, strict=True):
                total[start : start + size] = column[sampled_blocks].sum(axis=1)
    return totals


def _rates(errors: FloatArray, words: FloatArray) -> FloatArray:
    """Errors divided by words; without words 0 if there are no errors, else 1, as in `wer.error_rate`."""
    return np.where(words > 0, errors / np.maximum(words, 1), np.sign(errors))
