"""Nested random parts of a training manifest, by clips or by speakers, for a learning curve."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.data.utterance_table import UtteranceTable
from finetune.metrics.curve_results import Unit
from finetune.training.augment import sample_rng

MIN_SPEAKERS = 20  # of which parts by speakers are made without being asked for


def unit_for(speakers: Sequence[str]) -> Unit:
    """Whether parts consist of whole speakers or of clips: speakers if all are known and there are enough."""
    known = {*speakers}
    return "speakers" if "" not in known and len(known) >= MIN_SPEAKERS else "clips"


def nested_parts(clips: UtteranceTable, shares: Sequence[float], unit: Unit, seed: int) -> list[NDArray[np.int64]]:
    """The rows of each part, in the order of the manifest. A smaller part is contained in each larger one.

    Each clip or speaker has a random number, which depends on nothing but its name and the seed; a part has those with
    the lowest numbers, up to its share of the audio. Of speakers, it has at least one.

    Args:
        clips: the training clips.
        shares: fractions of the audio, ascending.
        unit: what a part consists of.
        seed: seed of the random numbers.
    """
    names = list(clips.texts("speaker" if unit == "speakers" else "id"))
    number = {name: sample_rng(seed, 0, f"{name}/curve").random() for name in dict.fromkeys(names)}
    order = np.argsort([number[name] for name in names], kind="stable")
    seconds = np.cumsum(clips.durations[order])
    ends = np.flatnonzero([names[row] != names[after] for row, after in zip(order, [*order[1:], -1], strict=True)])
    ends = np.union1d(ends, [len(order) - 1])  # the last row of each speaker, or every row
    parts = []
    for share in shares:
        within = ends[seconds[ends] <= share * seconds[-1] * (1 + 1e-9)]
        last = int(within[-1]) if len(within) else int(ends[0])
        parts.append(np.sort(order[: last + 1]))
    return parts
