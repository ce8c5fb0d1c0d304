"""Chooses between the average of several channels and one of them: the average of opposite channels is silence.

The decision is made from the first minute of a file or an array, so it is the same for every segment and every command.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SECONDS = 60.0  # of audio that decide; more only while they are quiet
MAX_SECONDS = 600.0
QUIET = 1e-6  # mean power below -60 dB of full scale, in which noise would decide
# The power of the sum of the channels, relative to the sum of their powers: 1 for unrelated channels or one channel
# with sound, the number of channels for equal ones, 0 for opposite ones. Below this (for two equally loud channels, a
# correlation below -0.5), the average loses more speech than noise. WER of average and channel 0 for right = -g left
# and noise at 15 dB: 93 and 12 % with g 0.8 (sum 0.06), 50 and 22 % with 0.6 (0.16), 21 and 12 % with 0.4 (0.35).
MIN_SUM = 0.5
MIN_LEVEL = 0.1  # relative to the power of the loudest channel; a quieter one is not chosen


def channel_for_mix(blocks: Iterable[NDArray[np.float32]], rate: float) -> int | None:
    """The channel to read in place of the average: the first one with sound; None if the channels can be averaged.

    Args:
        blocks: consecutive samples (n, C) from the start; no more are read than needed.
        rate: samples per second.
    """
    frames, total, powers = 0, 0.0, np.zeros(1)
    for block in blocks:
        samples = block.astype(np.float64)
        samples -= samples.mean(axis=0)  # a constant offset is no sound
        total += float((samples.sum(axis=1) ** 2).sum())
        powers = powers + (samples**2).sum(axis=0)
        frames += len(block)
        if frames >= MAX_SECONDS * rate or (frames >= SECONDS * rate and powers.max() >= QUIET * frames):
            break
    if not powers.sum() or not total < MIN_SUM * powers.sum():
        return None
    return int(np.argmax(powers >= MIN_LEVEL * powers.max()))


def describe_mix(channels: int, used: int | None) -> str:
    """How several channels became one, for a message."""
    if used is None:
        return f"{channels} channels, averaged"
    return f"{channels} channels that cancel each other in their average; channel {used} is used"
