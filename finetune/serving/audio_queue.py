"""Audio and marks that a client of a live session has sent and the session has not processed, in order, with limits."""

import asyncio
import base64
import binascii
from enum import Enum
from typing import Any

import numpy as np
import soxr

from finetune.data.audio import SAMPLE_RATE
from finetune.serving.errors import ApiError
from finetune.serving.live_audio import Wave

STEP = 0.2  # seconds of new audio after which a session processes it
MAX_WAITING = 60.0  # seconds of audio that a client can be ahead
MAX_EVENTS = 10_000  # events that a client can be ahead


class Mark(Enum):
    """An event between the audio."""

    COMMIT = "commit"
    CLEAR = "clear"


class AudioQueue:
    """The queue of a session.

    Args:
        rate: sample rate of the client's audio in Hz.

    Attributes:
        has_audio: whether the client has sent any audio.
    """

    def __init__(self, rate: int) -> None:
        self.has_audio = self._ended = False
        self._items: list[Wave | Mark] = []
        self._samples = 0  # that wait, at 16 kHz
        self._ready = asyncio.Event()
        self.set_rate(rate)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def ended(self) -> bool:
        """Whether the queue is empty and gets no more items."""
        return self._ended and not self._items

    def set_rate(self, rate: int) -> None:
        """Changes the sample rate, before the first audio."""
        self._rate = rate
        self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, quality="HQ")

    def append(self, event: dict[str, Any]) -> None:
        """Adds the audio of an `input_audio_buffer.append`.

        Raises:
            ApiError: not 16-bit PCM in base64; or too much waits.
        """
        try:
            pcm = np.frombuffer(base64.b64decode(event["audio"], validate=True), "<i2")
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ApiError(400, "audio must be 16-bit PCM in base64", "audio", "invalid_audio") from error
        if not len(pcm):
            return
        self._check_room()
        self._add(self._resampler.resample_chunk(pcm.astype(np.float32) / 32768))
        self.has_audio = True
        waiting = self._samples / SAMPLE_RATE
        if waiting > MAX_WAITING:
            raise ApiError(429, f"{MAX_WAITING:g} s of audio wait already; send it slower", None, "too_fast")
        if waiting >= STEP:
            self._ready.set()

    def mark(self, mark: Mark) -> None:
        """Adds a mark, after all audio before it. Raises ApiError if too many events wait."""
        self._check_room()
        self._add_mark(mark)

    def end(self) -> None:
        """Commits what waits, also at the limit of events; nothing is added afterwards."""
        self._ended = True
        self._add_mark(Mark.COMMIT)

    async def take(self) -> tuple[Wave, Mark | None]:
        """Waits for a mark or enough audio. Returns the samples (N,) up to the next mark, or all, and the mark."""
        await self._ready.wait()
        waves = list[Wave]()
        mark: Mark | None = None
        for item in self._items:
            if isinstance(item, Mark):
                mark = item
                break
            waves.append(item)
        del self._items[: len(waves) + (mark is not None)]
        samples = np.concatenate([np.zeros(0, np.float32), *waves])
        self._samples -= len(samples)
        if not self._items:
            self._ready.clear()
        return samples, mark

    def _add(self, wave: Wave) -> None:
        if len(wave):
            self._items.append(wave)
            self._samples += len(wave)

    def _add_mark(self, mark: Mark) -> None:
        """The resampler keeps some samples until it has those that follow; a mark ends its audio."""
        self._add(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        self.set_rate(self._rate)
        self._items.append(mark)
        self._ready.set()

    def _check_room(self) -> None:
        if len(self._items) >= MAX_EVENTS:
            raise ApiError(429, f"{MAX_EVENTS} events wait already; send fewer and larger ones", None, "too_fast")
