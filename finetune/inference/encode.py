"""Encodes utterances in batches: sorts by length, reads, computes features and the encoder's output."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, zip_longest

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.data.audio import load_segments, load_utterance
from finetune.data.features import log_mel, pad_features
from finetune.data.manifest import Utterance
from finetune.data.read_ahead import fetch_all
from finetune.model.granite import EncodedAudio, SpeechModel

# The cost of an encoder call beside its frames, in seconds of audio: calls, reading the weights. On one CPU core
# the embedded model has 1.2 to 1.5; the CUDA value is an estimate.
ENCODER_COST = {"cpu": 1.5, "cuda": 15.0}
Waveform = NDArray[np.float32]
Loader = Callable[[Sequence[Utterance]], list[Waveform]]


def batches(durations: list[float], batch_seconds: float) -> list[list[int]]:
    """Indices of utterances by batch, longest first, so that a batch that does not fit into memory fails at once."""
    order = sorted(range(len(durations)), key=lambda i: -durations[i])
    plan: list[list[int]] = []
    for index in order:
        if plan and durations[plan[-1][0]] * (len(plan[-1]) + 1) <= batch_seconds:
            plan[-1].append(index)
        else:
            plan.append([index])
    return plan


def encoder_groups(durations: Sequence[float], call_cost: float) -> list[int]:
    """Divides a batch into groups of similar lengths, with the least padded audio and calls together.

    Args:
        durations: of the clips, longest first.
        call_cost: of each group, in seconds of audio.

    Returns:
        The number of clips in each group, in order.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first n clips: the cost, and the start of the last group
    for end in range(1, len(durations) + 1):
        costs = ((best[start][0] + call_cost + durations[start] * (end - start), start) for start in range(end))
        best.append(min(costs))
    groups, end = list[int](), len(durations)
    while end:
        start = best[end][1]
        groups.append(end - start)
        end = start
    return groups[::-1]


def clip_features(model: SpeechModel, utterance: Utterance) -> Tensor:
    """Features (T, 160) of one utterance on the model's device. Raises DataError for unusable audio."""
    return _features(model, load_utterance(utterance))


def load_waveforms(utterances: Sequence[Utterance]) -> list[Waveform]:
    """The samples (N,) of each utterance; each file is opened once. Raises DataError for unusable audio."""
    by_file: dict[str, list[int]] = {}
    for row, item in enumerate(utterances):
        by_file.setdefault(item.audio_filepath, []).append(row)
    waves: dict[int, Waveform] = {}
    for source, rows in zip(fetch_all([*by_file]), by_file.values(), strict=True):
        chosen = [utterances[row] for row in rows]
        segments = load_segments(source, [(item.offset, item.duration, item.channel) for item in chosen])
        waves |= dict(zip(rows, segments, strict=True))
    return [waves[row] for row in range(len(utterances))]


def encode_batches(
    model: SpeechModel,
    utterances: Sequence[Utterance],
    batch_seconds: float,
    load: Loader = load_waveforms,
    grouped: bool = False,
) -> Iterator[tuple[list[int], EncodedAudio, float]]:
    """Encodes utterances batch by batch. The audio of the next batch is read meanwhile.

    Args:
        load: returns the samples (N,) at 16 kHz of some of the utterances; another thread calls it.
        grouped: encode clips of similar lengths together, to compute less padding; a batch can be several calls.

    Yields:
        The indices of a batch, its encoder output, and the seconds that encoding took.

    Raises:
        DataError: unusable audio.
    """
    plan = batches([item.duration for item in utterances], batch_seconds)
    chosen = [[utterances[index] for index in batch] for batch in plan]
    for batch, loaded in zip(plan, _read_ahead(load, chosen), strict=True):
        waves = iter(loaded)
        durations = [utterances[index].duration for index in batch]
        sizes = encoder_groups(durations, ENCODER_COST[model.device.type]) if grouped else [len(batch)]
        started = time.perf_counter()
        with torch.inference_mode():
            parts = [
                model.encode(*pad_features([_features(model, wave) for wave in islice(waves, size)])) for size in sizes
            ]
            audio = EncodedAudio.concat(parts)
        yield batch, audio, time.perf_counter() - started


def _read_ahead(load: Loader, groups: list[list[Utterance]]) -> Iterator[list[Waveform]]:
    """The samples of each group; a thread reads those of the next one."""
    with ThreadPoolExecutor(1) as reader:
        ahead: Future[list[Waveform]] | None = None
        for group, following in zip_longest(groups, groups[1:]):
            ready = (ahead or reader.submit(load, group)).result()
            ahead = reader.submit(load, following) if following else None
            yield ready


def _features(model: SpeechModel, wave: Waveform) -> Tensor:
    return log_mel(torch.from_numpy(wave).to(model.device))
