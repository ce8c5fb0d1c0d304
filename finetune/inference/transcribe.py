"""Transcribes recordings of any length: skips silence, batches the windows of all recordings, adds word times."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.errors import DataError, ModelError
from finetune.core.options import MAX_KEYWORDS, TranscribeOptions
from finetune.core.wording import count
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import num_frames
from finetune.data.manifest import Utterance
from finetune.inference.recognize import transcribe_batch
from finetune.inference.recordings import Detector, Job, Source, activity_detector, open_recording
from finetune.inference.transcript import Transcript
from finetune.inference.window_batches import BatchDecoder, transcribe_windows
from finetune.model.float32 import load_for_inference
from finetune.model.granite import SpeechModel, default_device
from finetune.model.prompt import Prompt, render

log = logging.getLogger(__name__)

BATCHES_AHEAD = 2  # batches of audio that are collected before they are transcribed together


def load(model: str | Path, say: Callable[[str], object] = log.info) -> SpeechModel:
    """Loads a model for inference, on the GPU if there is one; on a CPU with the memory of its files.

    Args:
        model: folder or hub name.
        say: called with a line about the arithmetic, if it is not that of the files.
    """
    return load_for_inference(str(model), "auto", default_device(), say=say)


def check_prompt(model: SpeechModel, options: TranscribeOptions, tokenizer: Tokenizer | None = None) -> Prompt:
    """The prompt of the options.

    Args:
        tokenizer: a copy of that of the model, for another thread: a tokenizer is not safe in several.

    Raises:
        ModelError: prompt, longest window and text together exceed the context length, the prompt or a keyword has a
            special token, or there are too many keywords.
    """
    instruction, profile = options.prompt(model.profile), model.profile
    keywords = options.decoding.in_prompt(options.keywords)
    tokenizer, searched = tokenizer or model.tokenizer, options.decoding.by_ctc(options.keywords)
    if len(searched) > MAX_KEYWORDS:
        raise ModelError(
            f"{count(len(searched), 'keyword')}, {len(options.decoding.terms):,} of them the terms of the model: the "
            f"CTC head searches for at most {MAX_KEYWORDS:,}; give fewer, or leave out the terms of the model"
        )
    render(tokenizer, instruction, searched, profile)  # a special token is refused
    prompt = render(tokenizer, instruction, keywords, profile)
    audio = int(model.num_audio_tokens(torch.tensor(num_frames(round(options.decoding.max_window * SAMPLE_RATE)))))
    words, text = len(prompt.prefix) + len(prompt.suffix), options.decoding.max_new_tokens
    if words + audio + text > model.max_positions:
        raise ModelError(
            f"the prompt ({count(words, 'token')}, {count(len(keywords), 'keyword')}), the audio of a "
            f"window ({audio}) and its text ({text}) need more than the model's {model.max_positions} positions; "
            f"{'give fewer keywords' if keywords else 'shorten the prompt, or lower max_new_tokens'}"
        )
    return prompt


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

        Args:
            failed: called with the name and the error of a recording that cannot be read; it is then skipped.
                If None, the error is raised.
            progress: called with the seconds of audio transcribed and those read so far.

        Raises:
            ModelError: the prompt contains a special token or is too long; a batch does not fit into GPU memory.
        """
        check_prompt(self.model, self.options)
        waiting: list[Job] = []
        group: list[tuple[Job, Utterance]] = []
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
                    yield job.transcript()
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

    def _open(self, source: Source) -> Iterator[Job]:
        return open_recording(source, self.options, self.model.profile, self.detect)

    def _transcribe_group(self, group: list[tuple[Job, Utterance]]) -> None:
        """Transcribes all windows together; if a file can no longer be read, each recording separately."""
        group = [(job, window) for job, window in group if not job.error]
        started = time.perf_counter()
        try:
            windows = [job.window(window) for job, window in group]
            results = transcribe_windows(self.model, windows, self.options.decoding.batch_seconds, self.decode)
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


def transcripts(
    model: SpeechModel,
    sources: Sequence[Source],
    options: TranscribeOptions,
    failed: Callable[[str, DataError], None] | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Iterator[Transcript]:
    """`Transcriber.stream` with the default functions."""
    return Transcriber(model, options).stream(sources, failed, progress)


def _seconds(group: list[tuple[Job, Utterance]]) -> float:
    return sum(window.duration for _, window in group)
