"""How sure a word error rate is, and whether one system is better than another: the block bootstrap.

Method: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
ICASSP 2004. Utterances of one speaker err alike, so whole blocks (speakers) are drawn, not utterances:
an interval over single utterances would be much too narrow. With few blocks even this one is too
narrow; every result therefore says how many there were.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.errors import DataError

CONFIDENCE = 0.95
_DRAWS_AT_ONCE = 1 << 20  # block indices held in memory together, about 16 MB with what they select

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A 95 % percentile interval of the pooled WER (fractions), and the number of blocks drawn from."""

    low: float
    high: float
    blocks: int


@dataclass(frozen=True)
class PairedDifference:
    """WER of B minus WER of A (fractions; below zero B is better), with its 95 % percentile interval.

    `probability_better` is the share of replicas in which B makes fewer errors than A. A tie is not
    better: of two equal systems it is 0.
    """

    difference: float
    low: float
    high: float
    probability_better: float
    blocks: int


def bootstrap_wer(errors: Sequence[int], words: Sequence[int], groups: Sequence[Hashable],
                  replicas: int, seed: int) -> Interval:
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
    sums = _block_sums([errors, words], groups)
    drawn_errors, drawn_words = _resample(sums, replicas, seed)
    low, high = _percentiles(_rates(drawn_errors, drawn_words))
    return Interval(low, high, sums.shape[1])


def paired_difference(errors_a: Sequence[int], errors_b: Sequence[int], words: Sequence[int],
                      groups: Sequence[Hashable], replicas: int, seed: int) -> PairedDifference:
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
    sums = _block_sums([errors_a, errors_b, words], groups)
    total_a, total_b, total_words = sums.sum(axis=1, keepdims=True)
    drawn_a, drawn_b, drawn_words = _resample(sums, replicas, seed)
    low, high = _percentiles(_rates(drawn_b, drawn_words) - _rates(drawn_a, drawn_words))
    return PairedDifference(
        difference=float((_rates(total_b, total_words) - _rates(total_a, total_words))[0]),
        low=low, high=high,
        probability_better=float(np.mean(drawn_b < drawn_a)),
        blocks=sums.shape[1],
    )


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
    """Draw K of K blocks with replacement, `replicas` times: (M, K) to totals (M, replicas)."""
    rng = np.random.default_rng(seed)
    blocks = sums.shape[1]
    rows = max(1, _DRAWS_AT_ONCE // blocks)
    totals = np.empty((len(sums), replicas))
    for start in range(0, replicas, rows):
        draws = rng.integers(blocks, size=(min(rows, replicas - start), blocks))
        for total, column in zip(totals, sums, strict=True):
            total[start:start + rows] = column[draws].sum(axis=1)
    return totals


def _rates(errors: FloatArray, words: FloatArray) -> FloatArray:
    """Errors over words; without words 0 if there are no errors, else 1, as in `wer.error_rate`."""
    return np.where(words > 0, errors / np.maximum(words, 1), errors > 0)


def _percentiles(values: FloatArray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
