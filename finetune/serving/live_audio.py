"""Finds utterances in audio that is still arriving: from the first speech to a pause, or to the longest window.

Without turn detection, an utterance is all audio up to a commit of the client, or to the longest window.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE
from finetune.inference.longform import speech_windows, split_window
from finetune.inference.vad import ENERGY_FRAME, Activity, energy_vad

PAUSE = 0.5  # seconds without speech that end an utterance
PADDING = 0.2  # seconds around speech
MIN_SPEECH = 0.08  # seconds; a click is no longer
HISTORY = 8.0  # seconds before the buffer that tell the level of the background

Wave = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Spoken:
    """Samples (N,) of an utterance that starts `start` seconds after the start of the session."""

    start: float
    samples: Wave

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / SAMPLE_RATE


class LiveAudio:
    """The audio of a session after its last utterance.

    Args:
        max_window: seconds of the longest utterance.
        turn_detection: whether a pause ends an utterance.
    """

    def __init__(self, max_window: float, turn_detection: bool = True) -> None:
        self._max_window, self._turn_detection = max_window, turn_detection
        self._history = self._buffer = np.zeros(0, np.float32)
        self._start = 0  # samples before the buffer
        self._min_speech = MIN_SPEECH  # less after a cut inside speech: it is the end of a word

    @property
    def seconds(self) -> float:
        """Length of the session."""
        return (self._start + len(self._buffer)) / SAMPLE_RATE

    def add(self, samples: Wave) -> None:
        self._buffer = np.concatenate([self._buffer, samples])

    def clear(self) -> None:
        """Drops the audio of the utterance that has not ended."""
        self._drop(len(self._buffer))

    def finished(self) -> Spoken | None:
        """The next utterance that has ended; it leaves the buffer. Called until there is none."""
        if not self._turn_detection:
            return self._longest()
        activity = self._activity()
        speech = np.flatnonzero(activity.speech)
        if len(speech) * activity.frame_seconds <= self._min_speech:
            keep = round((PADDING + PAUSE) * SAMPLE_RATE)
            self._drop(max(0, len(self._buffer) - keep))
            return None
        quiet = len(activity.speech) - 1 - int(speech[-1])
        gaps = np.flatnonzero(np.diff(speech) * activity.frame_seconds > PAUSE)
        ended = len(gaps) or quiet * activity.frame_seconds >= PAUSE
        last = int(speech[gaps[0] if len(gaps) else -1])
        if ended and (last + 1 - speech[0]) * activity.frame_seconds <= self._max_window:
            return self._take(int(speech[0]), last)
        begin = self._edge(int(speech[0]), -PADDING)  # silence before it does not make an utterance longer
        utterance = activity.after(begin // ENERGY_FRAME)
        if utterance.duration > self._max_window:
            first, *_ = speech_windows(utterance, self._max_window)
            return self._cut(*(begin + round(edge * SAMPLE_RATE) for edge in first))
        return None

    def current(self) -> Spoken | None:
        """The utterance that has not ended; None without speech."""
        activity = self._activity()
        if not self._turn_detection:
            return None if activity.silent.all() else Spoken(self._start / SAMPLE_RATE, self._buffer)
        speech = np.flatnonzero(activity.speech)
        if len(speech) * activity.frame_seconds <= self._min_speech:
            return None
        first = self._edge(int(speech[0]), -PADDING)
        return Spoken((self._start + first) / SAMPLE_RATE, self._buffer[first:])

    def rest(self) -> Spoken | None:
        """The utterance that the end of the audio ends; the buffer is empty afterwards."""
        spoken = self.finished() or self.current()
        if spoken is not None and spoken.end * SAMPLE_RATE > self._start:
            self._drop(min(len(self._buffer), round(spoken.end * SAMPLE_RATE) - self._start))
        elif spoken is None:
            self._drop(len(self._buffer))
        return spoken

    def _longest(self) -> Spoken | None:
        """The start of audio that is longer than the longest window, up to a pause in its second half, if it has one.

        Silence before the first sound is dropped.
        """
        if len(self._buffer) <= self._max_window * SAMPLE_RATE:
            return None
        silent = self._activity().silent
        first = len(silent) if silent.all() else int(np.argmin(silent))
        self._drop(self._edge(first, -PADDING))
        activity = self._activity()
        if activity.duration <= self._max_window:
            return None
        (_, stop), *_ = split_window(activity, 0, len(activity.speech), int(self._max_window / activity.frame_seconds))
        return self._cut(0, stop * ENERGY_FRAME)

    def _activity(self) -> Activity:
        """Speech and pauses in the buffer, with the levels of what was before."""
        skipped = len(self._history) // ENERGY_FRAME
        history = self._history[len(self._history) - skipped * ENERGY_FRAME :]
        if not len(self._buffer):
            empty = np.zeros(0, bool)
            return Activity(0.0, ENERGY_FRAME / SAMPLE_RATE, np.zeros(0, np.float32), empty, empty)
        activity = energy_vad([history, self._buffer])
        before = activity.speech[max(0, skipped - round(MIN_SPEECH / activity.frame_seconds)) : skipped]
        self._min_speech = 0.0 if before.any() else MIN_SPEECH
        return activity.after(skipped)

    def _take(self, first: int, last: int) -> Spoken:
        """The utterance between two frames of speech, with padding up to the longest window."""
        room = self._max_window - (last + 1 - first) * ENERGY_FRAME / SAMPLE_RATE
        padding = min(PADDING, room / 2)
        return self._cut(self._edge(first, -padding), self._edge(last + 1, padding))

    def _edge(self, frame: int, padding: float) -> int:
        return max(0, min(len(self._buffer), frame * ENERGY_FRAME + round(padding * SAMPLE_RATE)))

    def _cut(self, first: int, stop: int) -> Spoken:
        spoken = Spoken((self._start + first) / SAMPLE_RATE, self._buffer[first:stop])
        self._drop(stop)
        return spoken

    def _drop(self, count: int) -> None:
        kept = np.concatenate([self._history, self._buffer[:count]])
        self._history = kept[max(0, len(kept) - round(HISTORY * SAMPLE_RATE)) :]
        self._buffer = self._buffer[count:]
        self._start += count
