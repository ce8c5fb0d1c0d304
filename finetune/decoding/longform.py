"""Long audio: windows that end in the quietest place near their limit, and the times of what was heard."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEARCH_SECONDS = 6.0  # how far back from a window's limit a pause is looked for
PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Segment:
    """A piece of text and its place in the file, in seconds."""

    start: float
    end: float
    text: str


def cut(wave: NDArray[np.float32], sample_rate: int, longest: float) -> list[tuple[float, float]]:
    """Windows (start, end) in seconds that cover `wave` (N,), none above `longest`, each cut at a pause."""
    span, total = int(PAUSE_SECONDS * sample_rate), len(wave)
    windows, start = [], 0
    while total - start > longest * sample_rate:
        limit = start + int(longest * sample_rate)
        first = max(start + span, limit - int(SEARCH_SECONDS * sample_rate))
        energy = np.cumsum(np.square(wave[first:limit], dtype=np.float64))
        quiet = energy[span:] - energy[:-span]
        stop = first + int(quiet.argmin()) + span // 2 if len(quiet) else limit
        windows.append((start / sample_rate, stop / sample_rate))
        start = stop
    return [*windows, (start / sample_rate, total / sample_rate)]


def srt(segments: Sequence[Segment]) -> str:
    """SubRip subtitles, one cue a segment that has text."""
    cues = [segment for segment in segments if segment.text]
    return "\n".join(f"{number}\n{_clock(cue.start)} --> {_clock(cue.end)}\n{cue.text}\n"
                     for number, cue in enumerate(cues, start=1))


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d},{rest % 1000:03d}"
