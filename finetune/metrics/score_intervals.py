"""Intervals and tests of scores that are functions of sums over blocks, such as BLEU and chrF.

The blocks are those of `blocks.choose_blocks`, as for the WER.

*One system.* The interval is the wider of the percentiles of resampled blocks (Koehn, "Statistical significance tests
for machine translation evaluation", EMNLP 2004) and Student's t with the jackknife's standard error.

*Two systems.* The interval is the same of the difference, with the same resampled blocks for both systems (paired
bootstrap). If both systems are equal, exchanging their outputs on a block changes nothing: the p-value is the share of
exchanges with a difference as large as the measured one (Riezler and Maxwell, "On some pitfalls in automatic evaluation
and significance testing for MT", 2005). It decides; an interval of a difference that is not significant includes 0.
"""

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from finetune.metrics.binomial import clopper_pearson
from finetune.metrics.blocks import MIN_BLOCKS
from finetune.metrics.resampling import FloatArray, resample, subset_totals
from finetune.metrics.significance import CONFIDENCE, POWER, SIGNIFICANCE, Interval, PairedDifference, bootstrap_wer
from finetune.metrics.t_distribution import t_quantile

Statistic = Callable[[FloatArray], FloatArray]  # summed counts (M, N) to scores (N,) from 0 to 1; higher is better
_Tested = TypeVar("_Tested", Interval, PairedDifference)
_TAIL = (1 - CONFIDENCE) / 2
_EQUAL = 1e-12  # standard error of blocks that all have the same effect


def with_unit(result: _Tested, unit: str) -> _Tested:
    """The result of a test over blocks of this unit, which its note names: "only 4 speakers"."""
    name = {"utterance": "clip"}.get(unit, unit)
    return replace(result, note=re.sub(r"\bblock", name, result.note))


def score_interval(
    counts: Sequence[Sequence[int]], groups: Sequence[Hashable], statistic: Statistic, replicas: int, seed: int
) -> tuple[float, Interval]:
    """A score and its 95 % interval.

    Args:
        counts: the counts of each segment, M numbers each.
        groups: the block of each segment.
        statistic: computes scores from summed counts.
        replicas: number of resampled corpora.
        seed: seed of the random generator.
    """
    sums = _block_sums(counts, groups)
    blocks, value = sums.shape[1], _one(statistic, sums)
    error = _jackknife_error(statistic, sums)
    if error < _EQUAL:
        share = clopper_pearson(0, blocks)[1] if blocks > 1 else 1.0
        note = "; ".join(filter(None, (_few(blocks), f"all {blocks} blocks have the same score" * (blocks > 1))))
        return value, Interval((1 - share) * value, value + share * (1 - value), blocks, note)
    low, high = _span(statistic(resample(sums, replicas, seed)), value, error, blocks)
    return value, Interval(max(0.0, low), min(1.0, high), blocks, _few(blocks))


def share_interval(
    hits: Sequence[int], totals: Sequence[int], groups: Sequence[Hashable], replicas: int, seed: int
) -> Interval:
    """The 95 % interval of a share, such as that of the missed terms: of `hits` in `totals`, one each for an utterance.

    Utterances without anything to count say nothing about the share, so they are no blocks: two terms of one clip are
    one block, also in a large set. At least one total must be above 0.
    """
    used = [index for index, total in enumerate(totals) if total]
    used_hits, used_totals = ([column[index] for index in used] for column in (hits, totals))
    return bootstrap_wer(used_hits, used_totals, [groups[index] for index in used], replicas, seed)


def score_difference(
    counts_a: Sequence[Sequence[int]],
    counts_b: Sequence[Sequence[int]],
    groups: Sequence[Hashable],
    statistic: Statistic,
    replicas: int,
    seed: int,
) -> PairedDifference:
    """Compares a score of system B with that of system A on the same segments; arguments as in `score_interval`."""
    a, b = _block_sums(counts_a, groups), _block_sums(counts_b, groups)
    blocks, rows = a.shape[1], len(a)

    def difference(sums: FloatArray) -> FloatArray:
        return statistic(sums[rows:]) - statistic(sums[:rows])

    both = np.concatenate([a, b])
    value, error = _one(difference, both), _jackknife_error(difference, both)
    moved = subset_totals(b - a, replicas, seed)  # the counts of the blocks whose outputs are exchanged
    totals_a, totals_b = a.sum(axis=1)[:, None], b.sum(axis=1)[:, None]
    exchanged = np.abs(statistic(totals_b - moved) - statistic(totals_a + moved))
    p_value = min(1.0, (1 + int(np.count_nonzero(exchanged >= abs(value) - _EQUAL))) / (1 + len(exchanged)))
    sampled = difference(resample(both, replicas, seed))
    note = _few(blocks)
    if error < _EQUAL:
        reach = clopper_pearson(0, blocks)[1] if blocks > 1 else 1.0
        low, high = value - reach, value + reach
        note = "; ".join(filter(None, (note, f"all {blocks} blocks have the same difference" * (blocks > 1))))
    else:
        low, high = _span(sampled, value, error, blocks)
    if p_value > SIGNIFICANCE:
        low, high = min(low, 0.0), max(high, 0.0)
    power = t_quantile(1 - _TAIL, blocks - 1) + t_quantile(POWER, blocks - 1) if blocks > 1 else math.inf
    return PairedDifference(
        difference=value,
        low=max(-1.0, low),
        high=min(1.0, high),
        probability_better=float(np.mean(sampled > 0)),
        p_value=p_value,
        detectable=power * error if error >= _EQUAL else None,
        blocks=blocks,
        note=note,
    )


def _span(sampled: FloatArray, value: float, error: float, blocks: int) -> tuple[float, float]:
    """The wider of the percentiles of resampled scores and Student's t."""
    low, high = map(float, np.quantile(sampled, [_TAIL, 1 - _TAIL]))
    reach = t_quantile(1 - _TAIL, blocks - 1) * error
    return min(low, value - reach), max(high, value + reach)


def _jackknife_error(statistic: Statistic, sums: FloatArray) -> float:
    """The standard error from the scores without one block each; 0.0 for one block."""
    blocks = sums.shape[1]
    if blocks < 2:
        return 0.0
    without = statistic(sums.sum(axis=1, keepdims=True) - sums)
    return math.sqrt((blocks - 1) / blocks * float(((without - without.mean()) ** 2).sum()))


def _one(statistic: Statistic, sums: FloatArray) -> float:
    return float(statistic(sums.sum(axis=1, keepdims=True))[0])


def _few(blocks: int) -> str:
    return f"only {blocks} block{'s' * (blocks > 1)}: the interval is not reliable" if blocks < MIN_BLOCKS else ""


def _block_sums(counts: Sequence[Sequence[int]], groups: Sequence[Hashable]) -> FloatArray:
    """Sums the counts of segments by block: (M, K), with the blocks in the order of their first segment."""
    numbers: dict[Hashable, int] = {}
    block = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    return np.stack([np.bincount(block, weights=column) for column in np.array(counts, dtype=float).T])
