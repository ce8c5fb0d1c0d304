"""Transcribes recordings of any length: skips silence, batches the windows of all recordings, adds word times."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.core.errors import DataError, ModelError
from finetune.core.options import DecodingOptions, TranscribeOptions
from finetune.data.audio import SAMPLE_RATE, audio_channels, stream_audio
from finetune.data.audio_file import count_channels
from finetune.data.downmix import describe_mix
from finetune.data.features import FRAME_SECONDS, num_frames
from finetune.data.manifest import Utterance
from finetune.data.waveform import Recording
from finetune.inference.guards import cut_again, speech_score
from finetune.inference.longform import speech_windows
from finetune.inference.recognize import Hypothesis, Waveform, encode_batches, load_waveforms, transcribe_batch
from finetune.inference.segments import Segment, Word, join_texts, split_words
from finetune.inference.transcript import Transcript
from finetune.inference.vad import Activity, energy_vad, silero_vad
from finetune.inference.word_times import word_frames
from finetune.model.granite import EncodedAudio, SpeechModel, default_device, load_model
from finetune.model.prompt import render

BATCHES_AHEAD = 2  # batches of audio that are collected before they are transcribed together


@dataclass(frozen=True)
class FileChannel:
    """One channel of an audio file."""

    path: str | Path
    channel: int


Source = str | Path | FileChannel | Recording
Detector = Callable[[Source], Activity]
BatchDecoder = Callable[[SpeechModel, EncodedAudio, Sequence[Utterance], str, DecodingOptions], list[Hypothesis]]
Result = list[tuple[Segment, Hypothesis]]  # of one window: several if it was cut again, empty if it has no speech


def load(model: str | Path) -> SpeechModel:
    """Loads a model for inference, on the GPU if there is one."""
    return load_model(str(model), "auto", default_device())


def activity_detector(vad: str) -> Detector:
    """The detector of speech and pauses for `options.vad`. Raises MissingExtraError if silero-vad is not installed."""
    detect = silero_vad() if vad == "silero" else energy_vad

    def detect_in(source: Source) -> Activity:
        if isinstance(source, Recording):
            return detect([source.samples])
        if isinstance(source, FileChannel):
            return detect(stream_audio(source.path, source.channel))
        return detect(stream_audio(source))

    return detect_in


@dataclass
class _Job:
    """One recording: its windows, and the results of the windows that are already transcribed."""

    source: Source
    note: str = ""
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
        return None if isinstance(self.source, str | Path) else self.source.channel

    @property
    def complete(self) -> bool:
        return self.error is not None or len(self.results) == len(self.windows)

    def load(self, windows: Sequence[Utterance]) -> list[Waveform]:
        """The samples of some windows of this recording."""
        if not isinstance(self.source, Recording):
            return load_waveforms(windows)
        edges = [(round(w.offset * SAMPLE_RATE), round(w.duration * SAMPLE_RATE)) for w in windows]
        return [self.source.samples[start : start + count] for start, count in edges]


class Transcriber:
    """A model with the options and functions to transcribe with.

    Args:
        detect: finds speech and pauses in a recording; the default is the detector of `options.vad`.
        decode: decodes a batch of encoded windows.
    """

    def __init__(
        self,
        model: SpeechModel,
        options: TranscribeOptions,
        detect: Detector | None = None,
        decode: BatchDecoder = transcribe_batch,
    ) -> None:
        self.model, self.options, self.decode = model, options, decode
        self.detect = detect or activity_detector(options.vad)

    def stream(
        self,
        sources: Sequence[Source],
        failed: Callable[[str, DataError], None] | None = None,
        progress: Callable[[float, float], None] | None = None,
    ) -> Iterator[Transcript]:
        """Yields transcripts in the order of `sources`, each as soon as it and all earlier ones are complete.

        The language model does not read a window in which the CTC head finds no speech (`options.no_speech`): it would
        invent words. If it leaves out most of a window, the window is cut into two, again and again if necessary.

        Args:
            failed: called with the name and the error of a recording that cannot be read; it is then skipped.
                If None, the error is raised.
            progress: called with the seconds of audio transcribed and those read so far.

        Raises:
            ModelError: the prompt contains a special token or is too long; a batch does not fit into GPU memory.
        """
        self._check_prompt()
        waiting: list[_Job] = []
        group: list[tuple[_Job, Utterance]] = []
        transcribed = total = 0.0

        def flush() -> Iterator[Transcript]:
            nonlocal transcribed
            self._transcribe_group(group)
            transcribed += _seconds(group)
            group.clear()
            if progress:
                progress(transcribed, total)
            while waiting and waiting[0].complete:
                job = waiting.pop(0)
                if not job.error:
                    yield _transcript(job, self.options.text_language)
                elif failed:
                    failed(job.name, job.error)
                else:
                    raise job.error

        for job in (job for source in sources for job in self._open(source)):
            waiting.append(job)
            total += sum(window.duration for window in job.windows)
            for window in job.windows:
                group.append((job, window))
                if _seconds(group) >= BATCHES_AHEAD * self.options.decoding.batch_seconds:
                    yield from flush()
        yield from flush()

    def _check_prompt(self) -> None:
        """Raises ModelError if prompt, longest window and text together exceed the context length."""
        options = self.options
        instruction, profile = options.prompt(self.model.profile), self.model.profile
        prompt = render(self.model.tokenizer, instruction, options.keywords, profile)
        audio = int(self.model.num_audio_tokens(torch.tensor(num_frames(round(options.max_window * SAMPLE_RATE)))))
        words, text = len(prompt.prefix) + len(prompt.suffix), options.decoding.max_new_tokens
        if words + audio + text > self.model.max_positions:
            raise ModelError(
                f"the prompt ({words} tokens, {len(options.keywords)} keywords), the audio of a window ({audio}) and "
                f"its text ({text}) need more than the model's {self.model.max_positions} positions; "
                f"{'give fewer keywords' if options.keywords else 'lower max_new_tokens'}"
            )

    def _open(self, source: Source) -> Iterator[_Job]:
        """Creates the jobs of a recording, one for each chosen channel."""
        note, chosen = "", [source]
        try:
            if isinstance(source, Recording):
                note = source.note
            elif isinstance(source, str | Path) and self.options.channel in ("", "mix"):
                note = _mix_note(source, self.options.channel)
            elif isinstance(source, str | Path):
                each = self.options.channel == "each"
                numbers = range(count_channels(source)) if each else [int(self.options.channel)]
                chosen = [FileChannel(source, number) for number in numbers]
        except DataError as error:
            yield _Job(source, error=error)
            return
        for item in chosen:
            yield self._open_channel(_Job(item, note))

    def _open_channel(self, job: _Job) -> _Job:
        """Adds the windows, or the error if the recording cannot be read."""
        started = time.perf_counter()
        try:
            activity = self.detect(job.source)
        except DataError as error:
            job.error = error
            return job
        job.duration = activity.duration
        job.windows = [
            Utterance(
                f"{job.name}@{start:.2f}",
                job.name,
                end - start,
                "",
                offset=start,
                language=self.options.text_language,
                keywords=self.options.keywords,
                channel=job.channel,
            )
            for start, end in speech_windows(activity, self.options.max_window)
        ]
        job.seconds = time.perf_counter() - started
        return job

    def _transcribe_group(self, group: list[tuple[_Job, Utterance]]) -> None:
        """Transcribes all windows together; if a file can no longer be read, each recording separately."""
        group = [(job, window) for job, window in group if not job.error]
        started = time.perf_counter()
        try:
            results = self._transcribe_windows(group)
        except DataError as error:
            jobs = {id(job): job for job, _ in group}
            for job in jobs.values():
                if len(jobs) == 1:
                    job.error = error
                else:
                    self._transcribe_group([pair for pair in group if pair[0] is job])
            return
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"a batch of {self.options.decoding.batch_seconds:g} s of audio does not fit into GPU memory; lower "
                "batch_seconds"
            ) from error
        elapsed, audio = time.perf_counter() - started, _seconds(group)
        for (job, window), result in zip(group, results, strict=True):
            job.results.append(result)
            job.seconds += elapsed * window.duration / audio

    @torch.inference_mode()
    def _transcribe_windows(self, group: list[tuple[_Job, Utterance]]) -> list[Result]:
        """The segments and hypotheses of each window. Each window is encoded once."""
        windows = [window for _, window in group]
        results: list[Result] = [[] for _ in windows]
        halves: list[tuple[int, float]] = []  # windows that are cut again, and where
        for batch, audio, _ in encode_batches(self.model, windows, self.options.decoding.batch_seconds, _loader(group)):
            log_probs = self.model.ctc_logits(audio.states).float().log_softmax(-1)
            counts = audio.num_frames.tolist()
            evidence = [row[:count].cpu().numpy() for row, count in zip(log_probs, counts, strict=True)]
            speech = [row for row, frames in enumerate(evidence) if self._has_speech(frames)]
            hypotheses = self.decode(
                self.model,
                audio.select(speech),
                [windows[batch[row]] for row in speech],
                self.options.prompt(self.model.profile),
                self.options.effective_decoding(self.model.bpe_file is not None),
            )
            for row, hypothesis in zip(speech, hypotheses, strict=True):
                window = windows[batch[row]]
                results[batch[row]] = [(self._segment(window, hypothesis.text, evidence[row]), hypothesis)]
                complete = self.options.translate_to or hypothesis.truncated  # no comparison, or the user's limit
                cut = None if complete else cut_again(evidence[row], hypothesis.text)
                halves += [] if cut is None else [(batch[row], cut)]
        if halves:
            parts = self._transcribe_windows(
                [(group[index][0], part) for index, cut in halves for part in _cut(windows[index], cut)]
            )
            for (index, _), first, second in zip(halves, parts[::2], parts[1::2], strict=True):
                if _characters([*first, *second]) > _characters(results[index]):
                    results[index] = [*first, *second]
        return results

    def _has_speech(self, evidence: NDArray[np.float32]) -> bool:
        score = speech_score(evidence)
        return score > 0 and score >= self.options.no_speech

    def _segment(self, window: Utterance, text: str, evidence: NDArray[np.float32]) -> Segment:
        """The text of a window with word times from the CTC log probabilities (T, V); a translation has no times."""
        start, end = window.offset, window.offset + window.duration
        if self.options.translate_to:
            return Segment(start, end, text)
        words = tuple(
            Word(text[a:b], min(end, start + first_frame * FRAME_SECONDS), min(end, start + end_frame * FRAME_SECONDS))
            for (a, b), (first_frame, end_frame) in zip(split_words(text), word_frames(evidence, text), strict=True)
        )
        return Segment(start, end, text, words)


def transcripts(
    model: SpeechModel,
    sources: Sequence[Source],
    options: TranscribeOptions,
    failed: Callable[[str, DataError], None] | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Iterator[Transcript]:
    """`Transcriber.stream` with the default functions."""
    return Transcriber(model, options).stream(sources, failed, progress)


def _loader(group: list[tuple[_Job, Utterance]]) -> Callable[[Sequence[Utterance]], list[Waveform]]:
    """A function that returns the samples of some of the windows; each recording reads its own."""
    jobs = {id(window): job for job, window in group}  # ids of windows repeat if recordings have the same name

    def load(chosen: Sequence[Utterance]) -> list[Waveform]:
        by_job: dict[int, list[int]] = {}
        for row, window in enumerate(chosen):
            by_job.setdefault(id(jobs[id(window)]), []).append(row)
        waves: dict[int, Waveform] = {}
        for rows in by_job.values():
            samples = jobs[id(chosen[rows[0]])].load([chosen[row] for row in rows])
            waves |= dict(zip(rows, samples, strict=True))
        return [waves[row] for row in range(len(chosen))]

    return load


def _cut(window: Utterance, seconds: float) -> tuple[Utterance, Utterance]:
    """The two parts of a window that is cut `seconds` after its start."""
    start = window.offset + seconds
    name = f"{window.audio_filepath}@{start:.2f}"
    return (
        replace(window, duration=seconds),
        replace(window, id=name, offset=start, duration=window.offset + window.duration - start),
    )


def _characters(result: Result) -> int:
    return sum(len(segment.text) for segment, _ in result)


def _transcript(job: _Job, language: str) -> Transcript:
    results = [part for result in job.results for part in result if part[0].text]
    drafted = sum(hypothesis.drafted for _, hypothesis in results)
    return Transcript(
        path=job.name,
        text=join_texts(segment.text for segment, _ in results),
        duration=job.duration,
        segments=tuple(segment for segment, _ in results),
        language=language,
        seconds=job.seconds,
        acceptance=sum(hypothesis.accepted for _, hypothesis in results) / drafted if drafted else None,
        truncated=any(hypothesis.truncated for _, hypothesis in results),
        channel=job.channel,
        note=job.note,
        no_speech_windows=sum(not result for result in job.results),
    )


def _mix_note(path: str | Path, chosen: str) -> str:
    """How the channels of a file are mixed; "" for one channel, or for an average that the options ask for."""
    channels, used = audio_channels(path)
    if channels == 1 or (used is None and chosen == "mix"):
        return ""
    return f"{describe_mix(channels, used)}; --channel 0 (channel=0) reads one, --channel each all"


def _seconds(group: list[tuple[_Job, Utterance]]) -> float:
    return sum(window.duration for _, window in group)
