"""WER as a power law of the amount of training data, a * n^-b + c, and its extrapolation with an interval.

The form is that of Hestness et al. (arXiv 1712.00409): c is what no amount of data removes. It is fitted by least
squares, with b on a grid and a and c at least 0. The interval is a bootstrap: each replica resamples the blocks of the
test set, the same ones at all points, and the repeated runs of each point, and leaves out one point if there are more
than `MIN_POINTS`. Where a point has a single run, the spread of runs is not known, and `RUN_SPREAD` is assumed. The
interval is at a nominal 98 %, because at 95 % it covers less (tests/metrics/test_power_law.py simulates it). It holds
for more data of the same kind, trained in the same way.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.metrics.resampling import FloatArray, resample

MIN_POINTS = 3
EXPONENTS = np.linspace(0.05, 2.0, 79)
TAIL = 0.01
RUN_SPREAD = 0.01  # standard deviation of the WER of runs that differ in their seed alone


@dataclass(frozen=True)
class PowerLaw:
    """WER = a * (n / unit)^-b + c, as fractions; `unit` is the largest amount of data of the points."""

    a: float
    b: float
    c: float
    unit: float

    def wer(self, amount: float) -> float:
        return float(self.a * (amount / self.unit) ** -self.b + self.c)


@dataclass(frozen=True)
class Extrapolation:
    """The expected WER (fractions) with an amount of data, and its 95 % interval."""

    amount: float
    wer: float
    low: float
    high: float


def fit(amounts: Sequence[float], wers: Sequence[float]) -> PowerLaw:
    """The power law with the least squares.

    Args:
        amounts: amount of training data of at least `MIN_POINTS` different points.
        wers: WER of each point.
    """
    unit = max(amounts)
    a, b, c = _fit(np.asarray(amounts, float)[None] / unit, np.asarray(wers, float)[None])
    return PowerLaw(float(a[0]), float(b[0]), float(c[0]), unit)


def extrapolate(
    amounts: Sequence[float],
    errors: Sequence[NDArray[np.int64]],
    words: Sequence[int],
    groups: Sequence[Hashable],
    targets: Sequence[float],
    replicas: int,
    seed: int,
) -> list[Extrapolation]:
    """The WER at other amounts of data, with intervals.

    Args:
        amounts: amount of training data of each point.
        errors: for each point (R, U) word errors of its R runs on U utterances.
        words: (U) reference words.
        groups: (U) block of each utterance, such as its speaker.
        targets: the amounts of data.
        replicas: number of replicas.
        seed: seed of the random numbers.
    """
    unit, rng = max(amounts), np.random.default_rng(seed)
    law = fit(amounts, [float(runs.sum() / len(runs) / sum(words)) for runs in errors])
    sampled = _resampled(errors, words, groups, replicas, seed, rng)
    at = np.broadcast_to(np.asarray(amounts, float) / unit, sampled.shape)
    if len(amounts) > MIN_POINTS:
        kept = ~np.eye(len(amounts), dtype=bool)[rng.integers(len(amounts), size=replicas)]
        at, sampled = (values[kept].reshape(replicas, -1) for values in (at, sampled))
    a, b, c = _fit(at, sampled)
    results = []
    for target in targets:
        values = np.quantile(a * (target / unit) ** -b + c, [TAIL, 1 - TAIL])
        wer = law.wer(target)
        results.append(Extrapolation(target, wer, min(wer, float(values[0])), max(wer, float(values[1]))))
    return results


def _resampled(
    errors: Sequence[NDArray[np.int64]],
    words: Sequence[int],
    groups: Sequence[Hashable],
    replicas: int,
    seed: int,
    rng: np.random.Generator,
) -> FloatArray:
    """WER (replicas, P) of the points, with resampled blocks and runs."""
    columns = np.concatenate([*errors, np.asarray(words)[None]]).astype(float)
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    members = [names[name] for name in groups]
    sums = np.stack([np.bincount(members, column, len(names)) for column in columns]).astype(np.float64)
    *totals, total_words = resample(sums, replicas, seed)
    wers, ends = [], np.cumsum([len(runs) for runs in errors])
    for runs, end in zip(errors, ends, strict=True):
        chosen = rng.integers(end - len(runs), end, size=(len(runs), replicas))
        wer = np.take_along_axis(np.stack(totals), chosen, 0).mean(0) / np.maximum(1.0, total_words)
        spread = RUN_SPREAD * rng.standard_normal(replicas) if len(runs) == 1 else 0.0
        wers.append(np.maximum(0.0, wer + spread))
    return np.stack(wers, 1)


def _fit(amounts: FloatArray, wers: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """a, b and c (replicas) for points (replicas, P) with amounts relative to the largest one."""
    best: tuple[FloatArray, ...] = ()
    for b in EXPONENTS:
        x = amounts**-b
        mean_x, mean_y = x.mean(1), wers.mean(1)
        spread = ((x - mean_x[:, None]) ** 2).sum(1)
        slope = ((x - mean_x[:, None]) * (wers - mean_y[:, None])).sum(1) / np.maximum(spread, 1e-12)
        slope = np.maximum(slope, 0.0)
        floor = mean_y - slope * mean_x
        without_floor = (x * wers).sum(1) / (x**2).sum(1)
        slope, floor = np.where(floor < 0, without_floor, slope), np.maximum(floor, 0.0)
        loss = ((slope[:, None] * x + floor[:, None] - wers) ** 2).sum(1)
        row = (loss, slope, np.full(len(loss), b), floor)
        best = tuple(np.where(loss < best[0], new, old) for new, old in zip(row, best, strict=True)) if best else row
    return best[1], best[2], best[3]
