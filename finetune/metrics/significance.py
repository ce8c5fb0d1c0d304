"""How sure a word error rate is, and whether one system is better than another: the block bootstrap.

Whole blocks (speakers) are drawn with replacement, because utterances of one speaker err alike (Bisani and Ney,
"Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004). Their percentile
interval is too narrow with few blocks: with 20 speakers a nominal 95 % covers 87 to 94 %. So each replica is
divided by its own standard error (bootstrap-t: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
chapter 12), which covers 93 to 96 % there (tests/test_significance.py simulates it).

With fewer than `MIN_BLOCKS` blocks, or errors in fewer, that division is unstable. Then the interval is the wider
of Student's t and the percentiles with widened levels (Hesterberg, arXiv 1411.5279), and its `note` says so.
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
_DRAWS_AT_ONCE = 1 << 20  # block indices held in memory together, about 16 MB with what they select

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """What the bootstrap draws: `names[i]` is the block of utterance i, a `unit` (speaker, recording, utterance)."""

    unit: str
    names: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of the pooled WER (fractions), the number of blocks, and what makes it doubtful."""

    low: float
    high: float
    blocks: int
    note: str = ""


@dataclass(frozen=True)
class PairedDifference:
    """WER of B minus WER of A (fractions; below zero B is better), with its 95 % interval.

    `probability_better` is the share of replicas in which B makes fewer errors than A; a tie is not better, so of
    two equal systems it is 0. `p_value` is two-sided, by the method of the interval. `detectable` is the smallest
    true difference that a test on so many blocks of this kind would call proven in 80 of 100 cases; None where no
    block differs.
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
    """The coarsest unit that gives `MIN_BLOCKS` blocks; a coarser one that is passed over is said.

    Args:
        units: by unit, coarsest first, the block of each utterance ("" where unknown); the last one, utterances,
            is taken if no other has enough.
    """
    *coarse, last = units
    notes: list[str] = []
    for unit in coarse:
        names, count = units[unit], len(set(units[unit]))
        if "" in names or count == len(names):
            continue  # unknown, or no coarser than utterances
        if count >= MIN_BLOCKS:
            return Blocks(unit, tuple(names), "; ".join(notes))
        notes.append(f"only {count} {unit}{'s' * (count > 1)}: the interval says nothing of others")
    return Blocks(last, tuple(units[last]), "; ".join(notes))


def bootstrap_wer(
    errors: Sequence[int], words: Sequence[int], groups: Sequence[Hashable], replicas: int, seed: int
) -> Interval:
    """Interval of the pooled WER over resampled blocks.

    Args:
        errors: word errors of each utterance.
        words: reference words of each utterance.
        groups: block of each utterance: its speaker, or its own id where the speaker is unknown (a
            shared None would make one block of all unknown speakers).
        replicas: resampled corpora, 1,000 to 10,000.
        seed: of the random generator; the same seed gives the same interval.

    Raises:
        DataError: no utterances, or lists of unequal length.
    """
    top, below = _block_sums([errors, words], groups)
    blocks, ratio = len(top), _ratio(top, below, replicas, seed)
    low, high, note = max(0.0, ratio.low), ratio.high, _doubt(top, below)
    if below.any() and not note and not _telling(top, below):  # the rule of three
        low, high = (low, min(1.0, 3 / blocks)) if not top.any() else (max(0.0, 1 - 3 / blocks), high)
        note = f"alike in all {blocks} blocks: at 95 % fewer than three in as many would differ"
    return Interval(low, high, blocks, note)


def paired_difference(
    errors_a: Sequence[int],
    errors_b: Sequence[int],
    words: Sequence[int],
    groups: Sequence[Hashable],
    replicas: int,
    seed: int,
) -> PairedDifference:
    """Difference of two systems on the same utterances, both resampled by the same draws.

    Args:
        errors_a: word errors of each utterance by system A (the base).
        errors_b: the same by system B (the adapted one).
        words: reference words of each utterance.
        groups: block of each utterance, as in `bootstrap_wer`.
        replicas: resampled corpora, 1,000 to 10,000.
        seed: of the random generator.

    Raises:
        DataError: no utterances, or lists of unequal length.
    """
    a, b, below = _block_sums([errors_a, errors_b, words], groups)
    blocks, ratio = len(a), _ratio(b - a, below, replicas, seed)
    power = t_quantile(1 - _TAIL, blocks - 1) + t_quantile(POWER, blocks - 1) if blocks > 1 else math.inf
    return PairedDifference(
        difference=ratio.value,
        low=ratio.low,
        high=ratio.high,
        probability_better=ratio.below_zero,
        p_value=ratio.p_value,
        detectable=power * ratio.error if ratio.error else None,
        blocks=blocks,
        note=_doubt(b - a, below),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for so many tests at once (Holm, Scand. J. Statistics 6, 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class _Ratio:
    """A ratio of sums over blocks, its standard error, its 95 % interval, and the share of replicas below zero."""

    value: float
    low: float
    high: float
    error: float
    p_value: float
    below_zero: float


def _ratio(top: FloatArray, words: FloatArray, replicas: int, seed: int) -> _Ratio:
    """`top` over `words`, each (K,), from draws of whole blocks.

    The blocks are put in an order that their sums alone give, the same for `-top`: so neither the order of utterances
    nor which of two systems comes first decides what is drawn.
    """
    order = np.lexsort((top if top.sum() >= 0 else -top, words))
    top, words = top[order], words[order]
    blocks, total = len(top), max(float(words.sum()), 1.0)
    value = float(_rates(top.sum(keepdims=True), words.sum(keepdims=True))[0])
    drawn_top, drawn_words, *squares = _resample(
        np.stack([top, words, top * top, top * words, words * words]), replicas, seed
    )
    below_zero = float(np.mean(drawn_top < 0))
    if blocks == 1:
        reach = max(1.0, abs(value))  # one block says nothing of how blocks differ
        return _Ratio(value, -reach, reach, 0.0, 1.0, below_zero)
    scale, residuals = blocks / (blocks - 1), top - value * words
    error = math.sqrt(scale * float((residuals * residuals).sum())) / total
    if not words.any() or error < 1e-12:
        return _Ratio(value, value, value, 0.0, 1.0, below_zero)
    values, seen = _rates(drawn_top, drawn_words), value / error
    if min(blocks, _telling(top, words)) < MIN_BLOCKS:
        t = t_quantile(1 - _TAIL, blocks - 1)
        level = NormalDist().cdf(-math.sqrt(scale) * t)
        low, high = (float(bound) for bound in np.quantile(values, [level, 1 - level]))
        return _Ratio(
            value,
            min(value - t * error, low),
            max(value + t * error, high),
            error,
            2 * (1 - t_cdf(abs(seen), blocks - 1)),
            below_zero,
        )
    variance = scale * (squares[0] - 2 * values * squares[1] + values * values * squares[2])
    errors = np.sqrt(np.maximum(variance, 0)) / np.maximum(drawn_words, 1)
    studentized = (values - value) / np.maximum(errors, 1e-9)
    low, high = (float(bound) for bound in np.quantile(studentized, [_TAIL, 1 - _TAIL]))
    beyond = min(int(np.sum(studentized >= seen)), int(np.sum(studentized <= seen)))
    return _Ratio(
        value, value - high * error, value - low * error, error, min(1.0, 2 * (beyond + 1) / (replicas + 1)), below_zero
    )


def _telling(top: FloatArray, words: FloatArray) -> int:
    """Blocks that have errors, or those that have something right, whichever are fewer: only they tell of spread."""
    return min(int(np.count_nonzero(top)), int(np.count_nonzero(top != words)))


def _doubt(top: FloatArray, words: FloatArray) -> str:
    """What makes an interval doubtful: too few blocks, or too few of them that say anything."""
    blocks, telling = len(top), _telling(top, words)
    if blocks < MIN_BLOCKS:
        return f"only {blocks} block{'s' * (blocks > 1)}: take the interval for a guess"
    if 0 < telling < MIN_BLOCKS:
        return f"only {telling} of {blocks} blocks differ from the rest: take the interval for a guess"
    return ""


def _block_sums(columns: list[Sequence[int]], groups: Sequence[Hashable]) -> FloatArray:
    """Counts of each utterance (M columns) to sums of each of K blocks: (M, K), blocks in order of first sight."""
    lengths = [len(column) for column in columns] + [len(groups)]
    if len(set(lengths)) > 1:
        raise DataError(f"counts and groups must have one entry for each utterance, but their lengths are {lengths}")
    if not lengths[-1]:
        raise DataError("there are no utterances to resample; check that the manifest is not empty")
    numbers: dict[Hashable, int] = {}
    block = [numbers.setdefault(group, len(numbers)) for group in groups]
    return np.stack([np.bincount(block, weights=column) for column in columns])


def _resample(sums: FloatArray, replicas: int, seed: int) -> FloatArray:
    """Draw K of K blocks with replacement, `replicas` times: (M, K) to totals (M, replicas).

    Blocks with equal sums cannot be told apart, so where there are few kinds of blocks it is drawn how often each kind
    comes: the same distribution, and much faster for many utterances.
    """
    rng, blocks = np.random.default_rng(seed), sums.shape[1]
    _, first, counts = np.unique(sums, axis=1, return_index=True, return_counts=True)
    seen = np.argsort(first)  # in order of first sight, so that exchanged systems are drawn alike
    few = len(seen) < blocks / 8  # a draw of a kind takes longer than one of a block
    columns, chances = (sums[:, first[seen]], counts[seen] / blocks) if few else (sums, counts)
    rows = max(1, _DRAWS_AT_ONCE // columns.shape[1])
    totals = np.empty((len(sums), replicas))
    for start in range(0, replicas, rows):
        size = min(rows, replicas - start)
        if few:
            totals[:, start : start + size] = columns @ rng.multinomial(blocks, chances, size).T
        else:
            draws = rng.integers(blocks, size=(size, blocks))
            for total, column in zip(totals, columns, strict=True):
                total[start : start + size] = column[draws].sum(axis=1)
    return totals


def _rates(errors: FloatArray, words: FloatArray) -> FloatArray:
    """Errors over words; without words 0 if there are no errors, else 1, as in `wer.error_rate`."""
    return np.where(words > 0, errors / np.maximum(words, 1), np.sign(errors))
