"""Scores of the CTC head for a recording of any length, in overlapping windows, for the labels of a text."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.core.options import DecodingOptions
from finetune.core.progress import advance
from finetune.curation.transcript_words import SPACE
from finetune.data.audio import MIN_SAMPLES, SAMPLE_RATE
from finetune.data.features import FRAME_SECONDS, log_mel, num_frames, pad_features
from finetune.model.ctc import BLANK
from finetune.model.granite import SpeechModel

FRAME_SAMPLES = round(FRAME_SECONDS * SAMPLE_RATE)
WINDOW_FRAMES = 1200  # frames that a window adds, 24 s
CONTEXT_FRAMES = 150  # frames on each side that are encoded too; a window is then as long as the longest training clip
FLOOR = 12.0  # nats below the most probable label; a lower score is no more evidence, and float16 is precise up to it


@dataclass(frozen=True)
class Posteriors:
    """Log probabilities of a recording's T frames of 20 ms, relative to the most probable label of each frame.

    Attributes:
        scores: (T, K) float16, 0 or less, for blank, space, and the labels of `columns`.
        speech: (T,) float16, probability that the frame has a character.
        levels: (T,) float16, sound level in dB.
        columns: column of each label.
    """

    scores: NDArray[np.float16]
    speech: NDArray[np.float16]
    levels: NDArray[np.float16]
    columns: dict[int, int]

    def part(self, start: int, end: int) -> "Posteriors":
        """The frames from `start` to the one before `end`."""
        return Posteriors(self.scores[start:end], self.speech[start:end], self.levels[start:end], self.columns)


def read_posteriors(
    model: SpeechModel,
    blocks: Iterable[NDArray[np.float32]],
    labels: Collection[int],
    batch_seconds: float | None = None,
) -> Posteriors:
    """Encodes a recording.

    An hour takes about 15 MB for a text in one language, because only the columns of its labels are kept.

    Args:
        blocks: consecutive samples (n,) of the recording, mono, 16 kHz, together at least `MIN_SAMPLES`.
        labels: CTC labels of the text.
        batch_seconds: audio in a batch; the default is that of decoding.
    """
    kept = [BLANK, SPACE, *sorted(set(labels) - {BLANK, SPACE})]
    batch = max(1, int((batch_seconds or DecodingOptions().batch_seconds) / (WINDOW_FRAMES * FRAME_SECONDS)))
    encoded, group = list[tuple[NDArray[np.float16], ...]](), list[_Window]()
    for window in _windows(blocks):
        group.append(window)
        if len(group) == batch:
            encoded += _encode(model, group, kept)
            group = []
    encoded += _encode(model, group, kept) if group else []
    scores, speech, levels = (np.concatenate(parts) for parts in zip(*encoded, strict=True))
    return Posteriors(scores, speech, levels, {label: column for column, label in enumerate(kept)})


@dataclass(frozen=True)
class _Window:
    """Samples of a window, and its frames that are not context."""

    samples: NDArray[np.float32]
    first: int
    last: int


def _windows(blocks: Iterable[NDArray[np.float32]]) -> Iterator[_Window]:
    """The windows of a recording, from at most one window and one block of samples in memory."""
    buffer, start, position = np.zeros(0, np.float32), 0, 0  # `start` and `position` are frames of the recording
    context = CONTEXT_FRAMES
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        # More than a window, so that the rest is never too short to be encoded.
        while len(buffer) >= (position + WINDOW_FRAMES + context - start) * FRAME_SAMPLES + MIN_SAMPLES:
            end = position + WINDOW_FRAMES + context
            first = position - start
            yield _Window(buffer[: (end - start) * FRAME_SAMPLES], first, first + WINDOW_FRAMES)
            position += WINDOW_FRAMES
            kept_from = max(0, position - context)
            buffer, start = buffer[(kept_from - start) * FRAME_SAMPLES :], kept_from
    yield _Window(buffer, position - start, num_frames(len(buffer)))


@torch.inference_mode()
def _encode(model: SpeechModel, windows: list[_Window], kept: list[int]) -> list[tuple[NDArray[np.float16], ...]]:
    """Scores (T, K), speech probabilities (T,) and levels (T,) of each window, without its context."""
    features = [log_mel(torch.from_numpy(window.samples).to(model.device)) for window in windows]
    logits = model.ctc_logits(model.encode(*pad_features(features)).states).float()
    encoded = list[tuple[NDArray[np.float16], ...]]()
    for window, row in zip(windows, logits, strict=True):
        log_probs = row[window.first : window.last].log_softmax(-1)
        relative = (log_probs - log_probs.amax(-1, keepdim=True))[:, kept].clamp_min(-FLOOR)
        speech = (1 - log_probs[:, [BLANK, SPACE]].exp().sum(-1)).clamp(0, 1)
        levels = _levels(window.samples)[window.first : window.last]
        encoded.append((relative.half().cpu().numpy(), speech.half().cpu().numpy(), levels))
        advance((window.last - window.first) * FRAME_SECONDS)
    return encoded


def _levels(samples: NDArray[np.float32]) -> NDArray[np.float16]:
    """Sound level in dB of each frame (T,); the last frame can be shorter."""
    frames = np.zeros(num_frames(len(samples)) * FRAME_SAMPLES, np.float32)
    frames[: len(samples)] = samples[: len(frames)]
    power = np.square(frames.reshape(-1, FRAME_SAMPLES)).mean(axis=1)
    return (10 * np.log10(np.maximum(power, 1e-10))).astype(np.float16)
