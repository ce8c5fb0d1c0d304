"""Transcribes windows of recordings in batches, each window with its own options; the batch changes no text.

The language model does not read a window in which the CTC head finds no speech (`options.no_speech`): it would invent
words. If it leaves out most of a window, the window is cut into two, again and again if necessary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.core.options import DecodingOptions, TranscribeOptions
from finetune.data.manifest import Utterance
from finetune.inference.encode import Loader, Waveform, encode_batches
from finetune.inference.guards import cut_again, speech_score
from finetune.inference.recognize import Hypothesis, transcribe_batch
from finetune.inference.segments import Segment, Word, split_words
from finetune.inference.word_times import word_times
from finetune.model.granite import EncodedAudio, SpeechModel

BatchDecoder = Callable[[SpeechModel, EncodedAudio, Sequence[Utterance], str, DecodingOptions], list[Hypothesis]]
Result = list[tuple[Segment, Hypothesis]]  # of one window: several if it was cut again, empty if it has no speech


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a recording.

    Attributes:
        utterance: its place in the recording, and its prompt.
        options: how it is transcribed; `batch_seconds` is not used.
        load: returns the samples (N,) of some windows of the recording.
    """

    utterance: Utterance
    options: TranscribeOptions
    load: Loader


@torch.inference_mode()
def transcribe_windows(
    model: SpeechModel,
    windows: Sequence[Window],
    batch_seconds: float,
    decode: BatchDecoder = transcribe_batch,
    grouped: bool = False,
) -> list[Result]:
    """The segments and hypotheses of each window. Each window is encoded once.

    Args:
        batch_seconds: padded audio in a batch of the encoder.
        decode: decodes a batch of encoded windows that have the same decoding options.
        grouped: as in `encode_batches`.

    Raises:
        DataError: audio cannot be read.
    """
    results: list[Result] = [[] for _ in windows]
    halves: list[tuple[int, float]] = []  # windows that are cut again, and where
    utterances = [window.utterance for window in windows]
    for batch, audio, _ in encode_batches(model, utterances, batch_seconds, _loader(windows), grouped):
        log_probs = model.ctc_logits(audio.states).float().log_softmax(-1)
        counts = audio.num_frames.tolist()
        evidence = [row[:count].cpu().numpy() for row, count in zip(log_probs, counts, strict=True)]
        speech = [row for row, frames in enumerate(evidence) if _has_speech(frames, windows[batch[row]].options)]
        for rows, hypotheses in _decode(model, audio, speech, [windows[index] for index in batch], decode):
            for row, hypothesis in zip(rows, hypotheses, strict=True):
                window = windows[batch[row]]
                results[batch[row]] = [(_segment(window, hypothesis.text, evidence[row]), hypothesis)]
                complete = window.options.translate_to or hypothesis.truncated  # no comparison, or the user's limit
                cut = None if complete else cut_again(evidence[row], hypothesis.text)
                halves += [] if cut is None else [(batch[row], cut)]
    if halves:
        cuts = [part for index, cut in halves for part in _cut(windows[index], cut)]
        parts = transcribe_windows(model, cuts, batch_seconds, decode, grouped)
        for (index, _), first, second in zip(halves, parts[::2], parts[1::2], strict=True):
            if _characters([*first, *second]) > _characters(results[index]):
                results[index] = [*first, *second]
    return results


def _decode(
    model: SpeechModel, audio: EncodedAudio, speech: list[int], windows: list[Window], decode: BatchDecoder
) -> list[tuple[list[int], list[Hypothesis]]]:
    """The rows of a batch that have the same decoding options, with their hypotheses."""
    groups: dict[DecodingOptions, list[int]] = {}
    for row in speech:
        groups.setdefault(windows[row].options.effective_decoding(model.bpe_file is not None), []).append(row)
    return [
        (
            rows,
            decode(
                model,
                audio.select(rows),
                [windows[row].utterance for row in rows],
                windows[rows[0]].options.prompt(model.profile),  # each window has its own instruction
                options,
            ),
        )
        for options, rows in groups.items()
    ]


def _has_speech(evidence: NDArray[np.float32], options: TranscribeOptions) -> bool:
    score = speech_score(evidence)
    return score > 0 and score >= options.no_speech


def _segment(window: Window, text: str, evidence: NDArray[np.float32]) -> Segment:
    """The text of a window with word times from the CTC log probabilities (T, V); a translation has no times."""
    start = window.utterance.offset
    end = start + window.utterance.duration
    if window.options.translate_to:
        return Segment(start, end, text)
    words = tuple(
        Word(text[a:b], min(end, start + word_start), min(end, start + word_end))
        for (a, b), (word_start, word_end) in zip(split_words(text), word_times(evidence, text), strict=True)
    )
    return Segment(start, end, text, words)


def _loader(windows: Sequence[Window]) -> Loader:
    """A function that returns the samples of some of the windows; each recording reads its own."""
    loaders = {id(window.utterance): window.load for window in windows}  # ids of windows repeat, if names do

    def load(chosen: Sequence[Utterance]) -> list[Waveform]:
        by_recording: dict[Loader, list[int]] = {}
        for row, utterance in enumerate(chosen):
            by_recording.setdefault(loaders[id(utterance)], []).append(row)
        waves: dict[int, Waveform] = {}
        for load_own, rows in by_recording.items():
            waves |= dict(zip(rows, load_own([chosen[row] for row in rows]), strict=True))
        return [waves[row] for row in range(len(chosen))]

    return load


def _cut(window: Window, seconds: float) -> tuple[Window, Window]:
    """The two parts of a window that is cut `seconds` after its start."""
    utterance = window.utterance
    start = utterance.offset + seconds
    name = f"{utterance.audio_filepath}@{start:.2f}"
    first = replace(utterance, duration=seconds)
    second = replace(utterance, id=name, offset=start, duration=utterance.offset + utterance.duration - start)
    return replace(window, utterance=first), replace(window, utterance=second)


def _characters(result: Result) -> int:
    return sum(len(segment.text) for segment, _ in result)
