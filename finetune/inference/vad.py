"""Where in a file somebody speaks: by the level of the sound or by silero-vad, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.core.extras import require
from finetune.data.audio import SAMPLE_RATE

LEVEL_SAMPLES = 320  # 20 ms
SILENCE_DB = -65.0  # below full scale; nobody is heard in less, whatever else the file holds
PAUSE_SHARE = 0.25  # of the way up from the background to the loudest speech; below it is a pause
BACKGROUND_DB = 6.0  # a steady background stays within so much of its level ...
CLEAR_DB = 12.0  # ... which is known only where speech is so much louder
LOUD_SECONDS = 0.5  # the loudest speech is the loudest stretch of this length; a click is shorter
SILERO_SAMPLES = 512  # what silero-vad reads at a time
SILERO_SPEECH, SILERO_SILENCE = 0.5, 0.3  # its probabilities


@dataclass(frozen=True)
class Activity:
    """A file of `duration` seconds in F frames of `frame` seconds.

    `level` (F,) is higher where speech is likelier. `speech` and `silent` (F,) are the frames that surely are; what
    is neither can be cut, but must be encode_batches to.
    """

    duration: float
    frame: float
    level: NDArray[np.float32]
    speech: NDArray[np.bool_]
    silent: NDArray[np.bool_]


Blocks = Iterable[NDArray[np.float32]]  # consecutive samples (n,) of one recording, mono, 16 kHz
Finder = Callable[[Blocks], Activity]


def by_level(blocks: Blocks) -> Activity:
    """Activity from the level of each 20 ms, whatever it is that sounds."""
    levels, samples = [], 0
    for frames, count in _framed(blocks, LEVEL_SAMPLES):
        levels.append(20 * np.log10(np.maximum(frames.std(axis=1), 1e-6)))  # of a constant the standard deviation is 0
        samples += count
    level = np.concatenate(levels)
    pause = silence = SILENCE_DB
    sounding = level[level >= SILENCE_DB]
    if len(sounding):
        width = min(round(LOUD_SECONDS * SAMPLE_RATE / LEVEL_SAMPLES), len(level))
        loudest = np.convolve(level, np.full(width, 1 / width), "valid").max()
        background = np.percentile(sounding, 10)
        pause = max(pause, background + PAUSE_SHARE * (loudest - background))
        if loudest - background >= CLEAR_DB:
            silence = min(pause, background + BACKGROUND_DB)
    return Activity(samples / SAMPLE_RATE, LEVEL_SAMPLES / SAMPLE_RATE, level, level >= pause, level < silence)


def by_silero() -> Finder:
    """Activity from silero-vad (github.com/snakers4/silero-vad), which knows speech from noise and music.

    Raises:
        MissingExtraError: silero-vad is not installed.
    """
    threads = torch.get_num_threads()
    try:
        silero = require("silero_vad", extra="vad")
    finally:
        torch.set_num_threads(threads)  # importing it sets one thread for the whole process
    network = silero.load_silero_vad()

    @torch.inference_mode()
    def find(blocks: Blocks) -> Activity:
        network.reset_states()
        likely, samples = [], 0
        for frames, count in _framed(blocks, SILERO_SAMPLES):
            likely += [network(frame, SAMPLE_RATE).item() for frame in torch.from_numpy(frames)]
            samples += count
        level = np.array(likely, np.float32)
        return Activity(
            samples / SAMPLE_RATE, SILERO_SAMPLES / SAMPLE_RATE, level, level >= SILERO_SPEECH, level < SILERO_SILENCE
        )

    return find


def _framed(blocks: Blocks, span: int) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Blocks as frames (n, span), the last one filled with zeros, and how many samples are new in them."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        samples = np.concatenate([rest, block])
        whole = len(samples) // span * span
        rest = samples[whole:]
        if whole:
            yield samples[:whole].reshape(-1, span), whole
    if len(rest):
        yield np.pad(rest, (0, span - len(rest)))[None], len(rest)
