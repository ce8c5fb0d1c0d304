"""A recording that is being transcribed: its source, its windows, the results of its windows, its transcript."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.options import TranscribeOptions
from finetune.core.prompts import PromptProfile
from finetune.data.audio import SAMPLE_RATE, audio_channels, load_segments, stream_audio
from finetune.data.audio_file import count_channels
from finetune.data.audio_source import AudioSource, audio_source
from finetune.data.downmix import describe_mix
from finetune.data.manifest import Utterance
from finetune.data.truncation import truncation_sign
from finetune.data.video_delay import time_gaps, video_delay
from finetune.data.waveform import Recording
from finetune.inference.encode import Waveform, load_waveforms
from finetune.inference.longform import speech_windows
from finetune.inference.segments import join_texts
from finetune.inference.transcript import Transcript
from finetune.inference.vad import Activity, energy_vad, silero_vad
from finetune.inference.window_batches import Result, Window


@dataclass(frozen=True)
class FileChannel:
    """One channel of an audio file."""

    path: str | Path | AudioSource
    channel: int


Source = str | Path | AudioSource | FileChannel | Recording
Detector = Callable[[Source], Activity]


def activity_detector(vad: str, watch: Callable[[float], None] | None = None) -> Detector:
    """The detector of speech and pauses for `options.vad`.

    Args:
        vad: as in the options.
        watch: called with the seconds of a file that were read so far; an error that it raises ends the reading.

    Raises:
        MissingExtraError: silero-vad is not installed.
    """
    detect = silero_vad() if vad == "silero" else energy_vad

    def detect_in(source: Source) -> Activity:
        if isinstance(source, Recording):
            return detect([source.samples])
        path, channel = (source.path, source.channel) if isinstance(source, FileChannel) else (source, None)
        blocks = stream_audio(path, channel)
        return detect(blocks if watch is None else _watched(blocks, watch))

    return detect_in


def _watched(blocks: Iterable[Waveform], watch: Callable[[float], None]) -> Iterator[Waveform]:
    samples = 0
    for block in blocks:
        samples += len(block)
        watch(samples / SAMPLE_RATE)
        yield block


@dataclass(eq=False)
class Job:
    """One recording: its windows, and the results of the windows that are already transcribed."""

    source: Source
    options: TranscribeOptions
    note: str = ""
    delay: float = 0.0
    duration: float = 0.0
    windows: list[Utterance] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    error: DataError | None = None

    @property
    def name(self) -> str:
        if isinstance(self.source, Recording):
            return self.source.name
        return str(self.source.path if isinstance(self.source, FileChannel) else self.source)

    @property
    def channel(self) -> int | None:
        return self.source.channel if isinstance(self.source, FileChannel | Recording) else None

    @property
    def complete(self) -> bool:
        return self.error is not None or len(self.results) == len(self.windows)

    def window(self, utterance: Utterance) -> Window:
        """One of the windows, with all that transcribing it needs."""
        return Window(utterance, self.options, self.load)

    def load(self, windows: Sequence[Utterance]) -> list[Waveform]:
        """The samples of some windows of this recording."""
        if isinstance(self.source, Recording):
            edges = [(round(w.offset * SAMPLE_RATE), round(w.duration * SAMPLE_RATE)) for w in windows]
            return [self.source.samples[start : start + count] for start, count in edges]
        path = self.source.path if isinstance(self.source, FileChannel) else self.source
        if isinstance(path, AudioSource):
            return load_segments(path, [(window.offset, window.duration, window.channel) for window in windows])
        return load_waveforms(windows)

    def transcript(self) -> Transcript:
        """The transcript of a complete job without an error."""
        results = [part for result in self.results for part in result if part[0].text]
        drafted = sum(hypothesis.drafted for _, hypothesis in results)
        return Transcript(
            path=self.name,
            text=join_texts(segment.text for segment, _ in results),
            duration=self.duration,
            segments=tuple(segment for segment, _ in results),
            language=self.options.text_language,
            seconds=self.seconds,
            acceptance=sum(hypothesis.accepted for _, hypothesis in results) / drafted if drafted else None,
            truncated=any(hypothesis.truncated for _, hypothesis in results),
            channel=self.channel,
            note=self.note,
            delay=self.delay,
            no_speech_windows=sum(not result for result in self.results),
        )


def open_recording(
    source: Source, options: TranscribeOptions, profile: PromptProfile, detect: Detector
) -> Iterator[Job]:
    """Creates the jobs of a recording, one for each chosen channel; each has its windows, or an error.

    Args:
        source: the recording.
        options: how it is transcribed.
        profile: the prompts of the model.
        detect: finds speech and pauses.
    """
    note, chosen, delay, gaps = "", [source], 0.0, (0.0, 0.0)
    try:
        if isinstance(source, Recording):
            note = source.note
        elif not isinstance(source, FileChannel) and options.channel in ("", "mix"):
            note = _mix_note(source, options.channel)
        elif not isinstance(source, FileChannel):
            each = options.channel == "each"
            numbers = range(count_channels(source)) if each else [int(options.channel)]
            chosen = [FileChannel(source, number) for number in numbers]
        if not isinstance(source, Recording):
            path = source.path if isinstance(source, FileChannel) else source
            delay, gaps = video_delay(path), time_gaps(path)
        note = "; ".join(filter(None, (_truncation_note(source), _delay_note(delay), _gap_note(*gaps), note)))
    except DataError as error:
        yield Job(source, options, error=error)
        return
    for item in chosen:
        yield _find_windows(Job(item, options, note, delay), profile, detect)


def _find_windows(job: Job, profile: PromptProfile, detect: Detector) -> Job:
    """Adds the windows, or the error if the recording cannot be read."""
    started = time.perf_counter()
    try:
        activity = detect(job.source)
    except DataError as error:
        job.error = error
        return job
    job.duration = activity.duration
    options = job.options
    job.windows = [
        Utterance(
            f"{job.name}@{start:.2f}",
            job.name,
            end - start,
            "",
            offset=start,
            language=options.text_language,
            keywords=options.keywords,
            channel=job.channel,
            instruction=options.prompt(profile),
        )
        for start, end in speech_windows(activity, options.decoding.max_window)
    ]
    job.seconds = time.perf_counter() - started
    return job


def _truncation_note(source: Source) -> str:
    if isinstance(source, Recording):
        return ""
    sign = truncation_sign(audio_source(source.path if isinstance(source, FileChannel) else source))
    return f"the file seems to be truncated: {sign}" if sign else ""


def _delay_note(delay: float) -> str:
    if not delay:
        return ""
    return (
        f"the audio begins {delay:.2f} s after the pictures: times of srt and vtt count from the pictures, others from "
        "the audio"
    )


def _gap_note(first: float, seconds: float) -> str:
    if not seconds:
        return ""
    return (
        f"the audio has gaps of {seconds:.1f} s, the first after {first:.1f} s: players are silent there, but times of "
        "the transcript leave the gaps out; fill them, such as with `ffmpeg -i IN -af aresample=async=1 OUT.wav`"
    )


def _mix_note(path: str | Path | AudioSource, chosen: str) -> str:
    """How the channels of a file are mixed; "" for one channel, or for an average that the options ask for."""
    channels, used = audio_channels(path)
    if channels == 1 or (used is None and chosen == "mix"):
        return ""
    return f"{describe_mix(channels, used)}; --channel 0 (channel=0) reads one, --channel each all"
