"""Reverberation: a waveform convolved with the impulse response of a room, recorded or simulated (pyroomacoustics)."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from finetune.core.extras import require
from finetune.data.audio import SAMPLE_RATE
from finetune.data.effects.generated import fast_length, rms

Wave = NDArray[np.float32]

ROOMS = 64  # simulated rooms of a seed; a room takes 10 to 100 ms once in each process
MAX_RESPONSE = 2 * SAMPLE_RATE  # samples; what follows is inaudible
SMALLEST, LARGEST = (2.5, 2.5, 2.3), (10.0, 8.0, 4.0)  # metres
DECAY = (0.15, 0.7)  # seconds until the sound has fallen by 60 dB
MAX_ORDER = 20  # reflections of an image source
WALL = 0.3  # metres between a wall and the voice or the microphone


def reverberate(wave: Wave, response: Wave) -> Wave:
    """Convolves (N,) with an impulse response (M,): (N,) with the same RMS.

    The direct sound, which is the peak of the response, keeps its time. What is longer than the waveform is cut.
    """
    response = response[:MAX_RESPONSE]
    start, count = int(np.abs(response).argmax()), len(wave)
    size = fast_length(count + len(response))
    changed = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)[start : start + count]
    return (changed * (rms(wave) / max(rms(changed), 1e-12))).astype(np.float32)


@lru_cache(ROOMS)
def simulated_response(seed: int, number: int) -> Wave:
    """The impulse response of a shoebox room of random size, decay, voice and microphone.

    It is computed by image sources (Allen et al. 1979, doi 10.1121/1.382599).

    Args:
        seed: of the run.
        number: of the room, from 0 to ROOMS.

    Raises:
        MissingExtraError: pyroomacoustics is not installed.
    """
    acoustics = require("pyroomacoustics", extra="rooms")
    acoustics.constants.set("num_threads", 1)  # the order of a sum over threads would change its last bits
    rng = np.random.default_rng((seed, number, 60))
    size = rng.uniform(SMALLEST, LARGEST)
    area = 2 * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0])
    absorption = min(0.95, 0.161 * size.prod() / (area * rng.uniform(*DECAY)))  # Sabine
    room = acoustics.ShoeBox(
        size, fs=SAMPLE_RATE, materials=acoustics.Material(float(absorption)), max_order=MAX_ORDER, air_absorption=True
    )
    room.add_source(rng.uniform(WALL, size - WALL))
    room.add_microphone(rng.uniform(WALL, size - WALL))
    room.compute_rir()
    return np.asarray(room.rir[0][0], np.float32)
