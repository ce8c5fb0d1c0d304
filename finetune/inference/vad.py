"""Voice activity detection (VAD) by signal energy or with silero-vad, in bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.core.extras import require
from finetune.data.audio import SAMPLE_RATE

ENERGY_FRAME = 320  # samples: 20 ms
SILENCE_DB = -65.0  # relative to full scale; quieter frames are always silent
PAUSE_FRACTION = 0.25  # fraction of the level difference between background and loudest speech; a pause is below it
BACKGROUND_RANGE_DB = 6.0  # a steady background exceeds its level by less than this
MIN_CONTRAST_DB = 12.0  # the background level is used only if the loudest speech exceeds it by this much
LOUD_SECONDS = 0.5  # length of the loudest section, which counts as the loudest speech; a click is shorter
SILERO_FRAME = 512  # samples: the input length of silero-vad
SILERO_SPEECH, SILERO_SILENCE = 0.5, 0.3  # speech probability: at least the first is speech, below the second silence


@dataclass(frozen=True)
class Activity:
    """Speech and silence in a recording of F frames.

    A frame can be neither speech nor silent. A recording can be cut there, but the frame must be transcribed.
    """

    duration: float  # seconds
    frame_seconds: float
    scores: NDArray[np.float32]  # (F,) higher for more probable speech
    speech: NDArray[np.bool_]  # (F,) certainly speech
    silent: NDArray[np.bool_]  # (F,) certainly silence

    def after(self, frames: int) -> "Activity":
        """The activity without the first frames."""
        return Activity(
            round(self.duration - frames * self.frame_seconds, 9),  # a multiple of a sample again
            self.frame_seconds,
            self.scores[frames:],
            self.speech[frames:],
            self.silent[frames:],
        )


Blocks = Iterable[NDArray[np.float32]]  # consecutive samples (n,) of one recording, mono, 16 kHz
ActivityDetector = Callable[[Blocks], Activity]


def energy_vad(blocks: Blocks) -> Activity:
    """Detects activity from the level of 20 ms frames; any sound counts, not only speech."""
    levels, samples = [], 0
    for frames, count in _frames(blocks, ENERGY_FRAME):
        levels.append(20 * np.log10(np.maximum(frames.std(axis=1), 1e-6)))  # std ignores a constant offset
        samples += count
    level = np.concatenate(levels)
    pause = silence = SILENCE_DB
    audible = level[level >= SILENCE_DB]
    if len(audible):
        width = min(round(LOUD_SECONDS * SAMPLE_RATE / ENERGY_FRAME), len(level))
        loudest = np.convolve(level, np.full(width, 1 / width), "valid").max()
        background = np.percentile(audible, 10)
        pause = max(pause, background + PAUSE_FRACTION * (loudest - background))
        if loudest - background >= MIN_CONTRAST_DB:
            silence = min(pause, background + BACKGROUND_RANGE_DB)
    return Activity(samples / SAMPLE_RATE, ENERGY_FRAME / SAMPLE_RATE, level, level >= pause, level < silence)


def silero_vad() -> ActivityDetector:
    """Loads silero-vad (github.com/snakers4/silero-vad), which distinguishes speech from noise and music.

    Raises:
        MissingExtraError: silero-vad is not installed.
    """
    threads = torch.get_num_threads()
    try:
        silero = require("silero_vad", extra="vad")
    finally:
        torch.set_num_threads(threads)  # the import sets the number of threads of the process to 1
    network = silero.load_silero_vad()

    @torch.inference_mode()
    def detect(blocks: Blocks) -> Activity:
        network.reset_states()
        probs, samples = [], 0
        for frames, count in _frames(blocks, SILERO_FRAME):
            probs += [network(frame, SAMPLE_RATE).item() for frame in torch.from_numpy(frames)]
            samples += count
        scores = np.array(probs, np.float32)
        return Activity(
            samples / SAMPLE_RATE, SILERO_FRAME / SAMPLE_RATE, scores, scores >= SILERO_SPEECH, scores < SILERO_SILENCE
        )

    return detect


def _frames(blocks: Blocks, length: int) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Splits blocks into frames (n, length), each with its number of samples; the last frame is padded with zeros."""
    remainder = np.zeros(0, np.float32)
    for block in blocks:
        samples = np.concatenate([remainder, block])
        complete = len(samples) // length * length
        remainder = samples[complete:]
        if complete:
            yield samples[:complete].reshape(-1, length), complete
    if len(remainder):
        yield np.pad(remainder, (0, length - len(remainder)))[None], len(remainder)
