"""Audio files to transcripts: windows of all files in common batches, silence left out, words with their times."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from finetune.core.errors import DataError, ModelError
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import FRAME_SECONDS, num_frames
from finetune.data.manifest import Utterance
from finetune.inference.longform import cut
from finetune.inference.options import Settings, Wish
from finetune.inference.recognize import DecodeOptions, Hypothesis, encode_batches, transcribe_batch
from finetune.inference.thresholds import Thresholds
from finetune.inference.transcript import Segment, Transcript, Word, joined, split_words
from finetune.inference.vad import Finder, by_level, by_silero
from finetune.inference.word_times import word_frames
from finetune.model.ctc import BLANK
from finetune.model.granite import GraniteSpeech, load_model
from finetune.model.prompt import render

BATCHES = 2  # of audio heard before the files that are complete are handed out


@dataclass(frozen=True)
class Request:
    """How to transcribe.

    `language` is of the text, where it is known. `longest` is the limit of a window in seconds; `vad` finds pauses by
    `level` or by `silero`. `word_times` must be off for a translation: its words were not spoken.
    """

    decode: DecodeOptions
    language: str
    keywords: tuple[str, ...]
    longest: float
    vad: str
    word_times: bool


def request_for(settings: Settings, wish: Wish) -> Request:
    """No draft for a translation, nor for Japanese: the CTC head writes neither."""
    drafts = settings.decoder != "greedy" and not wish.written and wish.heard != "ja"
    relaxed = Thresholds(settings.max_entropy, settings.min_probability) if settings.decoder == "relaxed" else None
    decode = DecodeOptions(
        wish.instruction or settings.instruction,
        drafts,
        settings.batch_seconds,
        settings.max_new_tokens,
        relaxed if drafts else None,
    )
    return Request(
        decode, wish.written or wish.heard, wish.keywords, settings.max_window, settings.vad, not wish.written
    )


def load(model: str) -> GraniteSpeech:
    """A model to transcribe with, on the GPU where there is one."""
    return load_model(model, "auto", "cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class _File:
    """A file on its way: its windows, and what has been heard in the first of them; None is no speech."""

    path: str
    duration: float = 0.0
    windows: list[Utterance] = field(default_factory=list)
    heard: list[tuple[Segment, Hypothesis] | None] = field(default_factory=list)
    seconds: float = 0.0
    error: DataError | None = None


def transcripts(
    model: GraniteSpeech,
    paths: Sequence[str],
    request: Request,
    failed: Callable[[str, DataError], None] | None = None,
    watch: Callable[[float, float], None] | None = None,
) -> Iterator[Transcript]:
    """Transcripts in the order of `paths`, each as soon as it and those before it are ready.

    A window in which the CTC head finds no character is not given to the language model, which would make words up.

    Args:
        failed: called for a file that cannot be read, which is then left out; without it the error is raised.
        watch: called with the seconds of audio heard and those found so far.

    Raises:
        ModelError: the prompt holds a special token or is too long; silero-vad is wanted and not installed; a batch
            does not fit into the GPU's memory.
    """
    _check_prompt(model, request)
    find = by_silero() if request.vad == "silero" else by_level
    waiting: list[_File] = []
    group: list[tuple[_File, Utterance]] = []
    heard = found = 0.0

    def hear() -> None:
        nonlocal heard
        _hear_apart(model, group, request)
        heard += _seconds(group)
        group.clear()
        if watch:
            watch(heard, found)

    def complete() -> Iterator[Transcript]:
        while waiting and (waiting[0].error or len(waiting[0].heard) == len(waiting[0].windows)):
            file = waiting.pop(0)
            if not file.error:
                yield _transcript(file, request.language)
            elif failed:
                failed(file.path, file.error)
            else:
                raise file.error

    for path in paths:
        file = _look(path, find, request)
        waiting.append(file)
        found += sum(window.duration for window in file.windows)
        for window in file.windows:
            group.append((file, window))
            if _seconds(group) >= BATCHES * request.decode.batch_seconds:
                hear()
                yield from complete()
    hear()
    yield from complete()


def _check_prompt(model: GraniteSpeech, request: Request) -> None:
    """Raises ModelError where the longest window would not fit between the prompt's words and the text."""
    prompt = render(model.tokenizer, request.decode.instruction, request.keywords)
    audio = int(model.num_audio_tokens(torch.tensor(num_frames(round(request.longest * SAMPLE_RATE)))))
    words, text = len(prompt.prefix) + len(prompt.suffix), request.decode.max_new_tokens
    if words + audio + text > model.max_positions:
        raise ModelError(
            f"the prompt's words ({words} tokens, {len(request.keywords)} keywords), a window of audio "
            f"({audio}) and its text ({text}) are more than the model's {model.max_positions} positions; "
            f"{'give fewer keywords' if request.keywords else 'lower --max-new-tokens'}"
        )


def _look(path: str, find: Finder, request: Request) -> _File:
    """The file's windows, or why it cannot be read."""
    started = time.perf_counter()
    try:
        activity = find(path)
    except DataError as error:
        return _File(path, error=error)
    windows = [
        Utterance(
            f"{path}@{start:.2f}",
            path,
            end - start,
            "",
            offset=start,
            language=request.language,
            keywords=request.keywords,
        )
        for start, end in cut(activity, request.longest)
    ]
    return _File(path, activity.duration, windows, seconds=time.perf_counter() - started)


def _hear_apart(model: GraniteSpeech, group: list[tuple[_File, Utterance]], request: Request) -> None:
    """All windows together; where a file breaks that now cannot be read any more, each file by itself."""
    group = [(file, window) for file, window in group if not file.error]
    started = time.perf_counter()
    try:
        heard = _hear(model, [window for _, window in group], request)
    except DataError as error:
        files = {id(file): file for file, _ in group}
        for file in files.values():
            if len(files) == 1:
                file.error = error
            else:
                _hear_apart(model, [piece for piece in group if piece[0] is file], request)
        return
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{request.decode.batch_seconds:g} s of audio at once are more than the GPU's memory holds; "
            "lower batch_seconds"
        ) from error
    spent = time.perf_counter() - started
    for (file, window), result in zip(group, heard, strict=True):
        file.heard.append(result)
        file.seconds += spent * window.duration / _seconds(group)


@torch.inference_mode()
def _hear(model: GraniteSpeech, windows: list[Utterance], request: Request) -> list[tuple[Segment, Hypothesis] | None]:
    """What is said in each window, with the times of its words where they are wanted; the encoder hears it once."""
    heard: list[tuple[Segment, Hypothesis] | None] = [None] * len(windows)
    for batch, audio, _ in encode_batches(model, windows, request.decode.batch_seconds):
        probs = model.ctc_logits(audio.states).float().log_softmax(-1)
        evidence = [row[:count].cpu().numpy() for row, count in zip(probs, audio.num_frames.tolist(), strict=True)]
        spoken = [row for row, found in enumerate(evidence) if (found.argmax(1) != BLANK).any()]
        said = transcribe_batch(model, audio.rows(spoken), [windows[batch[row]] for row in spoken], request.decode)
        for row, hypothesis in zip(spoken, said, strict=True):
            start, text = windows[batch[row]].offset, hypothesis.text
            end = start + windows[batch[row]].duration
            words: tuple[Word, ...] = ()
            if request.word_times:
                frames = word_frames(evidence[row], text)
                words = tuple(
                    Word(text[a:b], start + first * FRAME_SECONDS, min(end, start + behind * FRAME_SECONDS))
                    for (a, b), (first, behind) in zip(split_words(text), frames, strict=True)
                )
            heard[batch[row]] = Segment(start, end, text, words), hypothesis
    return heard


def _transcript(file: _File, language: str) -> Transcript:
    heard = [item for item in file.heard if item and item[0].text]
    drafted = sum(hypothesis.drafted for _, hypothesis in heard)
    return Transcript(
        file.path,
        joined(segment.text for segment, _ in heard),
        file.duration,
        tuple(segment for segment, _ in heard),
        language,
        file.seconds,
        sum(hypothesis.accepted for _, hypothesis in heard) / drafted if drafted else None,
        any(hypothesis.truncated for _, hypothesis in heard),
    )


def _seconds(group: list[tuple[_File, Utterance]]) -> float:
    return sum(window.duration for _, window in group)
