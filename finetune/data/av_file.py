"""Reads audio with PyAV (FFmpeg's libraries): M4A, MP4, WebM, MKV, WMA, AAC, AMR and the first audio of a video."""

import functools
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.audio_readers import damaged
from finetune.data.audio_source import AudioSource, SourceCache

if TYPE_CHECKING:
    from av import AudioFrame, Packet
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# Demuxers that read only the file itself: a playlist (HLS, concat) would open other files or URLs.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,aac,amr,amrnb,amrwb,avi,flv,mpegts,mpeg,ac3,eac3,dts,wv,tta,ape,tak,"
    "mpc,mpc8,mp3,ogg,flac,wav,w64,aiff,au,caf,rm,voc,gsm,g722,dsf,truehd,mxf,oma,shn,qcp,xwma"
)
SEEKABLE = ("mov", "matroska")  # formats with the time of each packet
WITH_LENGTH = ("mov", "matroska", "asf")  # formats that state the duration; others estimate it
EXACT_SECONDS = 60  # up to here, a position is reached by decoding from the start: the noise in AAC depends on it
PREROLL = 0.5  # seconds that are decoded before a position, because a frame depends on the frames before it
LENGTH_TOLERANCE = 0.3  # seconds by which a stated duration can exceed the last packet
SAME_SIZE = ("aac", "opus", "mp3", "mp3float", "ac3", "eac3", "amrnb", "amrwb", "alac")  # codecs of equal packets
# The first bytes of Matroska, ASF, AMR, FLV, WavPack, TTA, Monkey's Audio and RealMedia.
SIGNATURES = (b"\x1aE\xdf\xa3", b"0&\xb2u", b"#!AMR", b"FLV\x01", b"wvPk", b"TTA1", b"MAC ", b".RMF")
DISCARD_ALL = 48  # FFmpeg's AVDISCARD_ALL
REMEDY = "copy or download it again, or convert it to WAV, FLAC, MP3, Ogg, M4A or WebM"

_timelines = SourceCache["Timeline"](256)


def is_container(head: bytes) -> bool:
    """Whether a file with these first bytes is MP4, Matroska, ASF, AVI, FLV or another container."""
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or head.startswith(SIGNATURES)
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
    )


@dataclass(frozen=True)
class Timeline:
    """The packets of a file.

    Attributes:
        frames: number of frames of the file's sample rate.
        first: index of the packet that gives the first samples, and how many these are.
        size: samples of each later packet; 0 if they differ or are not known.
        times: presentation time of each packet.
    """

    frames: int
    first: tuple[int, int]
    size: int
    times: NDArray[np.int64]


class AvFile:
    """A file that PyAV decodes. Positions are exact: they count decoded samples, not times.

    Args:
        source: an audio or video file.
        problem: what is wrong with it if PyAV does not read it or is not installed, for the message.

    Raises:
        DataError: PyAV is not installed; the file has no audio, or is damaged or truncated.
    """

    def __init__(self, source: AudioSource, problem: str) -> None:
        self._source, self._problem = source, problem
        self._decoder = Decoder(source, problem)
        self._position, self._rest, self._jumped = 0, self._decoder.samples(self._decoder.first), False
        self._blocks = self._decoder.blocks()
        self.samplerate, self.channels = self._decoder.rate, self._decoder.channels

    @functools.cached_property
    def _timeline(self) -> Timeline:
        return _timelines.get(self._source, lambda: _read_timeline(self._source, self._problem))

    @property
    def frames(self) -> int:
        """All frames. Reads the complete file once; raises DataError if it is truncated."""
        return self._timeline.frames

    def tell(self) -> int:
        return self._position

    def seek(self, frame: int) -> None:
        if frame > EXACT_SECONDS * self.samplerate and self._jump(frame):
            return
        if self._jumped or frame < self._position:
            self._decoder.close()
            self._decoder = Decoder(self._source, self._problem)
            self._position, self._rest, self._jumped = 0, self._decoder.samples(self._decoder.first), False
            self._blocks = self._decoder.blocks()
        while self._position < frame and len(self.read(min(frame - self._position, self.samplerate))):
            pass

    def read(self, count: int) -> NDArray[np.float32]:
        blocks, missing = [np.zeros((0, self.channels), np.float32)], count
        while missing > 0:
            if not len(self._rest):
                samples = next(self._blocks, None)
                if samples is None:
                    break
                self._rest = samples
            blocks.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(blocks[-1])
        self._position += count - missing
        return np.concatenate(blocks)

    def close(self) -> None:
        self._decoder.close()

    def _jump(self, frame: int) -> bool:
        """Goes to a frame, and decodes from PREROLL before it. False if the file must be decoded from its start."""
        line = self._timeline
        first, first_samples = line.first
        if not line.size or not self._decoder.seekable or frame >= self.frames:
            return False
        target = first + 1 + (frame - first_samples) // line.size
        packet = target - 1 - math.ceil(PREROLL * self.samplerate / line.size)
        if packet <= first:
            return False
        start = first_samples + (target - first - 1) * line.size
        self._jumped = True
        self._decoder.seek(int(line.times[packet]))
        for decoded in self._decoder.frames:
            index = int(np.searchsorted(line.times, decoded.pts or 0, "right")) - 1
            if index == target:
                self._rest, self._position = self._decoder.samples(decoded)[frame - start :], frame
                self._blocks = self._decoder.blocks()
                return True
            if index > target:
                break
        return False


class Decoder:
    """The decoded frames of the first audio of a file."""

    def __init__(self, source: AudioSource, problem: str) -> None:
        self._source, self._av = source, _import_av(source, problem)
        self._container, self._stream = open_container(source, problem)
        self._resamplers: dict[tuple[int, str, str], Any] = {}
        self.seekable = self._container.format.name.startswith(SEEKABLE)
        if self._stream.codec_context is None:
            self._container.close()
            raise DataError(f"{source}: its encoding is not supported; {REMEDY}")
        self.codec = self._stream.codec_context.name
        self.frames = self._decode()  # those after the first
        first = next(self.frames, None)
        if first is None:
            self._container.close()
            raise DataError(f"{source}: the file has a header without samples; replace it")
        self.first, self.rate, self.channels = first, int(first.sample_rate), len(first.layout.channels)

    def close(self) -> None:
        self.frames.close()
        self._container.close()

    def seek(self, time: int) -> None:
        """Makes `frames` continue with a packet at or before a time, in units of the stream."""
        self.frames.close()
        try:
            self._container.seek(time, stream=self._stream)
        except _av_errors() as error:
            raise damaged(self._source) from error
        self.frames = self._decode()

    def blocks(self) -> "Iterator[NDArray[np.float32]]":
        """The samples (n, C) of each further frame."""
        for frame in self.frames:
            yield self.samples(frame)

    def samples(self, frame: "AudioFrame") -> NDArray[np.float32]:
        """The samples (n, C) of a frame; a frame of another rate or layout is converted to that of the first."""
        if frame.sample_rate == self.rate and len(frame.layout.channels) == self.channels:
            return _to_float(frame)
        key = int(frame.sample_rate), str(frame.layout.name), str(frame.format.name)
        try:
            if key not in self._resamplers:
                self._resamplers[key] = self._av.AudioResampler("fltp", self.first.layout.name, self.rate)
            converted = self._resamplers[key].resample(frame)
        except _av_errors() as error:
            raise damaged(self._source) from error
        return np.concatenate([np.zeros((0, self.channels), np.float32), *map(_to_float, converted)])

    def _decode(self) -> "Generator[AudioFrame, None, None]":
        """Decoded frames from the current packet. A last packet that is not complete is ignored."""
        failed: Exception | None = None
        for packet in packets_of(self._source, self._container, self._stream):
            try:
                frames: Any = packet.decode()
            except _av_errors() as error:
                failed = failed or error
                continue
            if failed and frames:
                raise damaged(self._source) from failed
            yield from frames


def _read_timeline(source: AudioSource, problem: str) -> Timeline:
    """Reads all packets of a file, and decodes them if they do not have the same number of samples."""
    times, durations = _read_packets(source, problem)
    decoder = Decoder(source, problem)
    try:
        second = next(decoder.frames, None)
        first_samples, size = int(decoder.first.samples), int(second.samples) if second else 0
        regular = (
            second is not None
            and decoder.codec in SAME_SIZE
            and decoder.first.pts is not None
            and len(times) > 2
            and bool((np.diff(times) > 0).all())
            and int(np.ptp(durations[1:-1])) <= 1
        )
        if not regular:
            rest = sum(round(frame.samples * decoder.rate / frame.sample_rate) for frame in decoder.frames)
            return Timeline(first_samples + size + rest, (0, 0), 0, times)
    finally:
        decoder.close()
    first = int(np.searchsorted(times, decoder.first.pts or 0, "right")) - 1
    last = round(size * min(1.0, float(durations[-1] / durations[1]))) if durations[-1] else size
    return Timeline(first_samples + (len(times) - first - 2) * size + last, (first, first_samples), size, times)


def _read_packets(source: AudioSource, problem: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Time and duration of each audio packet. Raises DataError if they end before the duration in the header."""
    container, stream = open_container(source, problem)
    times, durations, end = list[int](), list[int](), 0.0
    with container:
        name = container.format.name
        in_container = name.startswith("matroska")  # which states the duration of its longest stream
        for packet in packets_of(source, container, *([] if in_container else [stream])):
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream.index == stream.index:
                    times.append(packet.pts)
                    durations.append(packet.duration or 0)
        stated = 0.0
        if name.startswith(WITH_LENGTH):
            stated = (container.duration or 0) / 1_000_000
            if name.startswith("mov") and stream.duration and stream.time_base:
                stated = float(stream.duration * stream.time_base)
    if stated - end > LENGTH_TOLERANCE + 0.01 * stated:
        raise DataError(
            f"{source}: truncated: the header states {stated:.2f} s, but only {end:.2f} s are in the file; "
            "copy or download it again"
        )
    return np.array(times, np.int64), np.array(durations, np.int64)


def packets_of(source: AudioSource, container: "InputContainer", *streams: "AudioStream") -> "Iterator[Packet[Any]]":
    """The packets of some streams, or of all. Raises DataError if they cannot be read."""
    try:
        yield from container.demux(*streams)
    except _av_errors() as error:
        raise damaged(source) from error


def open_container(source: AudioSource, problem: str) -> "tuple[InputContainer, AudioStream]":
    """The container and its first audio. Raises DataError with `problem` if it cannot be opened, or has no audio."""
    av, local = _import_av(source, problem), source.local_path
    file = source.open() if local is None else f"file:{Path(local).absolute()}"
    try:
        container = av.open(file, container_options={"format_whitelist": FORMATS})
    except _av_errors() as error:
        raise DataError(f"{source}: {problem}; {REMEDY}") from error
    if not container.streams.audio:
        container.close()
        raise DataError(f"{source}: the file has no audio; replace it")
    stream = container.streams.audio[0]
    if not container.format.name.startswith("matroska"):
        for other in container.streams:
            if other is not stream and hasattr(other, "discard"):  # older versions read the video and ignore it
                other.discard = DISCARD_ALL
    return container, stream


def _av_errors() -> tuple[type[Exception], ...]:
    """What PyAV raises; its own errors are evaluated only after it is imported."""
    import av

    return (av.FFmpegError, OSError, ValueError, EOFError, RuntimeError, LookupError)


def _import_av(source: AudioSource, problem: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise DataError(f"{source}: {problem}; for formats such as M4A, WebM and video run: pip install av") from error
    return av


def _to_float(frame: "AudioFrame") -> NDArray[np.float32]:
    """The samples (n, C) of a decoded frame, with full scale 1."""
    array: NDArray[Any] = frame.to_ndarray()
    samples = array.T if frame.format.is_planar else array.reshape(-1, len(frame.layout.channels))
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / np.float32(128)
    scale = -float(np.iinfo(samples.dtype).min) if samples.dtype.kind == "i" else 1.0
    converted: NDArray[np.float32] = (samples / scale).astype(np.float32)
    return converted
