"""How the times of audio in a container differ from its samples, which count from the first one and without gaps."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.core.errors import DataError
from finetune.data.audio_source import AudioSource, audio_source
from finetune.data.av_file import SAME_SIZE, is_container, open_container, packets_of
from finetune.data.byte_range import is_url
from finetune.data.problems import Finding

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

VIDEO = (".mpg", ".mpeg", ".ts", ".mts", ".m2ts")  # those that `is_container` does not know
HEAD = 16  # bytes for `is_container`
LEAST = 0.1  # seconds; encoders delay the audio by a few hundredths
LEAST_GAP = 0.3  # seconds of all gaps together; the times of packets are rounded
LONGEST_PACKET = 0.2  # seconds, of the codecs of `SAME_SIZE`


def video_delay(path: str | Path | AudioSource) -> float:
    """Seconds by which the audio begins after the video; 0.0 if it is less than LEAST, or the file has no video."""
    opened = _open(path)
    if opened is None:
        return 0.0
    container, audio = opened
    try:
        with container:
            streams, index = [audio, *container.streams.video], audio.index
            starts = {
                stream.index: float(stream.start_time * stream.time_base)
                for stream in streams
                if stream.start_time is not None and stream.time_base is not None
            }
            if not any(starts.values()) and container.format.name.startswith("matroska"):  # FFmpeg may not know them
                starts = _first_times(packets_of(audio_source(path), container), len(streams))
    except DataError:  # reported when the audio is read
        return 0.0
    if index not in starts or len(starts) < 2:
        return 0.0
    delay = starts.pop(index) - min(starts.values())
    return delay if delay >= LEAST else 0.0


def _first_times(packets: "Iterable[Packet[Any]]", number: int) -> dict[int, float]:
    """By stream, the time of its first packet; the packets are read until this is known of a number of streams."""
    times = dict[int, float]()
    for packet in packets:
        if packet.pts is not None and packet.time_base is not None and not packet.is_discard:
            times.setdefault(packet.stream_index, float(packet.pts * packet.time_base))
        if len(times) == number:
            break
    return times


def time_gaps(path: str | Path | AudioSource) -> tuple[float, float]:
    """Seconds of audio before the first gap in the times of a file, and seconds of all gaps; (0.0, 0.0) without any.

    A player is silent in a gap, such as one of a lost connection. A file whose packets have no durations has none.
    """
    opened = _open(path)
    if opened is None:
        return 0.0, 0.0
    container, audio = opened
    times, durations = list[float](), list[float]()
    try:
        with container:
            for packet in packets_of(audio_source(path), container, audio):
                if packet.pts is None or packet.time_base is None or packet.is_discard:
                    continue
                times.append(float(packet.pts * packet.time_base))
                durations.append(float((packet.duration or 0) * packet.time_base))
            codec = audio.codec_context.name if audio.codec_context else ""
    except DataError:  # reported when the audio is read
        return 0.0, 0.0
    lengths = np.array(durations)
    if codec in SAME_SIZE and len(lengths) > 1 and not lengths.any():  # Matroska does not state them
        lengths = np.diff(times, append=2 * times[-1] - times[-2])
        lengths[lengths > 2 * np.median(lengths)] = 0
    if codec in SAME_SIZE and len(lengths):  # MP4 counts a gap as a part of the packet before it
        lengths[(lengths == 0) | (lengths > LONGEST_PACKET)] = np.median(lengths)
    if len(lengths) < 2 or not lengths[:-1].all():
        return 0.0, 0.0
    before = np.cumsum(lengths) - lengths
    gaps = np.array(times) - times[0] - before
    if gaps[-1] < LEAST_GAP:
        return 0.0, 0.0
    return float(before[np.argmax(gaps >= LEAST_GAP)]), float(gaps[-1])


def shifts(path: str, end: float) -> list[Finding]:
    """Warnings for a segment of a file whose times can count from the video: late audio, and gaps before its end.

    Args:
        path: the file; one on another machine is not opened.
        end: of the segment, in seconds.
    """
    delay, before, gaps = _shifts_of(path)
    findings = []
    if delay:
        findings.append(Finding("late audio", f"the audio of the file begins {delay:.2f} s after its video"))
    if gaps and end > before:
        findings.append(Finding("gap in audio", f"{gaps:.2f} s are missing in the file, first after {before:.2f} s"))
    return findings


@lru_cache(4096)
def _shifts_of(path: str) -> tuple[float, float, float]:
    return (0.0, 0.0, 0.0) if is_url(path) else (video_delay(path), *time_gaps(path))


def _open(path: str | Path | AudioSource) -> "tuple[InputContainer, AudioStream] | None":
    """The container and the audio of a file; None if it is no container, or cannot be opened."""
    try:
        source = audio_source(path)
        file = source.open()
        try:
            head = file.read(HEAD)
        finally:
            file.close()
        if not is_container(head) and Path(str(path)).suffix.lower() not in VIDEO:
            return None
        return open_container(source, "cannot be opened")
    except (DataError, OSError):  # reported when the audio is read
        return None
