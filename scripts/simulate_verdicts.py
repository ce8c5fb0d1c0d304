"""Measures on simulated speakers how often intervals cover the true value and how often a verdict is false.

Run: python scripts/simulate_verdicts.py --markdown table.md   (about 6 minutes)

Each cell simulates `--sets` test sets with the functions that `finetune evaluate` and `finetune compare` use. A speaker
has 5 to 39 utterances of about 10 words; errors are Poisson counts about the speaker's own rate. The worlds differ in
the distribution over speakers of the rates (one system) and of the differences (two systems).
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from finetune.core.files import write_text
from finetune.metrics.significance import SIGNIFICANCE, bootstrap_wer, paired_difference

SPEAKERS = (8, 12, 20, 40)
GAIN = 0.02  # the true difference of which the power is measured
Rng = np.random.Generator
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """A distribution of speakers.

    Attributes:
        rates: WER of each of K speakers.
        mean: the mean of the rates of all speakers, given K.
        differences: WER of system B minus that of A for each of K speakers; the mean of all speakers is 0.
    """

    rates: Callable[[Rng, int], Floats]
    mean: Callable[[int], float]
    differences: Callable[[Rng, int], Floats]


def _sign(rng: Rng, speakers: int) -> Floats:
    return rng.choice([-1.0, 1.0], speakers)


def _with_outlier(values: Floats, outlier: float) -> Floats:
    values[0] = outlier
    return values


WORLDS = {
    "mild": World(
        lambda rng, k: rng.normal(0.2, 0.06, k).clip(0.01), lambda k: 0.2, lambda rng, k: rng.normal(0, 0.03, k)
    ),
    "lognormal": World(
        lambda rng, k: 0.1 * rng.lognormal(0, 0.8, k),
        lambda k: 0.1 * math.exp(0.32),
        lambda rng, k: 0.02 * rng.lognormal(0, 0.8, k) * _sign(rng, k),
    ),
    "Pareto": World(
        lambda rng, k: 0.05 * (1 + rng.pareto(2.5, k)),
        lambda k: 0.05 * 2.5 / 1.5,
        lambda rng, k: 0.012 * (1 + rng.pareto(2.5, k)) * _sign(rng, k),
    ),
    "outlier": World(
        lambda rng, k: _with_outlier(rng.normal(0.1, 0.03, k).clip(0.01), 0.6),
        lambda k: (0.1 * (k - 1) + 0.6) / k,
        lambda rng, k: _with_outlier(rng.normal(0, 0.01, k), 0.2 * float(_sign(rng, 1)[0])),
    ),
    "asymmetric": World(
        lambda rng, k: rng.beta(1, 9, k), lambda k: 0.1, lambda rng, k: 0.03 * (rng.lognormal(0, 1, k) - math.exp(0.5))
    ),
}


@dataclass(frozen=True)
class Cell:
    """Shares of the simulated sets of one world with one number of speakers.

    Attributes:
        covered: the interval of one system contains the true WER.
        difference_covered: the interval of the difference contains the true difference.
        better: B is called better although both are equal.
        worse: B is called worse although both are equal.
        power: B is called better if its WER is lower by `GAIN`.
    """

    world: str
    speakers: int
    covered: float
    difference_covered: float
    better: float
    worse: float
    power: float


def simulate(name: str, speakers: int, sets: int, replicas: int, seed: int) -> Cell:
    """Simulates one cell."""
    world, rng = WORLDS[name], np.random.default_rng([seed, speakers, *name.encode()])
    mean, blocks = world.mean(speakers), range(speakers)
    covered = difference_covered = better = worse = power = 0
    for number in range(sets):
        words = np.maximum(1, rng.poisson(10 * rng.integers(5, 40, speakers)))
        errors = rng.poisson(words * world.rates(rng, speakers))
        interval = bootstrap_wer(errors.tolist(), words.tolist(), blocks, replicas, number)
        covered += interval.low <= mean <= interval.high
        change = world.differences(rng, speakers)
        base = 0.25 + np.maximum(0, -change)  # so the rates of B are positive, and the difference is exact
        a = rng.poisson(words * base).tolist()
        equal, lower = (rng.poisson(words * (base + change - gain)).tolist() for gain in (0, GAIN))
        null = paired_difference(a, equal, words.tolist(), blocks, replicas, number)
        difference_covered += null.low <= 0 <= null.high
        better += null.p_value <= SIGNIFICANCE and null.difference < 0
        worse += null.p_value <= SIGNIFICANCE and null.difference > 0
        gain = paired_difference(a, lower, words.tolist(), blocks, replicas, number)
        power += gain.p_value <= SIGNIFICANCE and gain.difference < 0
    return Cell(name, speakers, *(count / sets for count in (covered, difference_covered, better, worse, power)))


def false_by_clips(speakers: int, clips: int, sets: int, replicas: int, seed: int) -> float:
    """The share of false verdicts on other speakers if few speakers are tested by clips (world `mild`)."""
    rng, false = np.random.default_rng([seed, speakers, clips]), 0
    for number in range(sets):
        words = np.maximum(1, rng.poisson(10, speakers * clips))
        change = WORLDS["mild"].differences(rng, speakers).repeat(clips)
        a, b = (rng.poisson(words * (0.25 + part)) for part in (np.maximum(0, -change), np.maximum(0, change)))
        pair = paired_difference(a.tolist(), b.tolist(), words.tolist(), range(len(words)), replicas, number)
        false += pair.p_value <= SIGNIFICANCE
    return false / sets


def table(cells: list[Cell]) -> str:
    """The cells as Markdown."""
    lines = [
        "| world | speakers | interval of one system | of a difference | false better + worse | power at 2 points |",
        "|---|---|---|---|---|---|",
    ]
    for cell in cells:
        lines.append(
            f"| {cell.world} | {cell.speakers} | {100 * cell.covered:.1f} | {100 * cell.difference_covered:.1f} | "
            f"{100 * (cell.better + cell.worse):.1f} ({100 * cell.better:.1f} + {100 * cell.worse:.1f}) | "
            f"{100 * cell.power:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000, help="simulated test sets in each cell")
    parser.add_argument("--replicas", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--speakers", nargs="+", type=int, default=SPEAKERS)
    parser.add_argument("--markdown", metavar="FILE", help="write the table to this file")
    args = parser.parse_args()
    clips = 100
    by_clips = {
        speakers: false_by_clips(speakers, clips, args.sets // 4, args.replicas, args.seed) for speakers in (3, 5, 8)
    }
    for speakers, false in by_clips.items():
        print(f"{speakers} speakers with {clips} clips each, tested by clips: {100 * false:.0f} % false verdicts")
    cells = []
    for world in args.worlds:
        for speakers in args.speakers:
            cells.append(simulate(world, speakers, args.sets, args.replicas, args.seed))
            print(table(cells[-1:]).splitlines()[-1], flush=True)
    if args.markdown:
        write_text(Path(args.markdown), table(cells))


if __name__ == "__main__":
    main()
