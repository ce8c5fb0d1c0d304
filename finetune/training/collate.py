"""Clips with their audio as micro-batches of padded tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import log_mel
from finetune.model.ctc import to_labels
from finetune.training.augment import mask_features, sample_rng
from finetune.training.dataset import SpeechDataset
from finetune.training.loss import IGNORE
from finetune.training.sampler import Audio, Unreadable


@dataclass(frozen=True)
class Batch:
    """A micro-batch of padded tensors.

    Attributes:
        kind: type of `audio`: features, states (the encoder's output) or embeds (the projector's output).
        audio: (B, T, D), or (B, A, H) for embeds.
        num_frames: (B,) rows of `audio` without padding.
        ids: (B, L) token ids of prompt and target.
        labels: (B, L) token ids of the target, `IGNORE` elsewhere.
        characters: CTC labels of each clip, None for a translation; empty lists without `train.ctc_weight`.
        silent: it has no clip, only silence: its loss has weight 0.
        unreadable: by utterance id, why the audio of some clips, which are not in this batch, cannot be read.
    """

    kind: str
    audio: Tensor
    num_frames: Tensor
    ids: Tensor
    labels: Tensor
    characters: list[list[int] | None]
    silent: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MicroAudio:
    """The audio of a micro-batch: by clip a waveform (N,), cached output of the encoder, or why it cannot be read.

    `kind` is that of `Batch`; `epoch` seeds the masks.
    """

    indices: list[int]
    audio: Sequence[Audio | Tensor]
    kind: str
    epoch: int


def batch_from_audio(data: SpeechDataset, micro: MicroAudio) -> Batch:
    """The batch of the readable clips. Without one it is silence, so that every rank runs forward and backward."""
    chosen, rows, reasons = list[int](), list[Any](), dict[str, str]()
    for index, audio in zip(micro.indices, micro.audio, strict=True):
        if isinstance(audio, Unreadable):
            reasons |= {name: why for name, why in audio.reasons.items() if name not in data.unreadable}
        elif data.readable([index]):
            chosen.append(index)
            rows.append(audio)
    if not chosen:
        return replace(silent_batch(data), unreadable=reasons)
    if micro.kind == "features":
        batch = batch_from_waves(data, chosen, rows, micro.epoch)
    else:
        batch = batch_from_cache(data, chosen, micro.kind, rows)
    return replace(batch, unreadable=reasons) if reasons else batch


def silent_batch(data: SpeechDataset) -> Batch:
    """A batch of half a second of silence."""
    return replace(batch_from_waves(data, [0], [np.zeros(SAMPLE_RATE // 2, np.float32)], 0), silent=True)


def batch_from_waves(data: SpeechDataset, indices: list[int], waves: list[np.ndarray], epoch: int) -> Batch:
    """A micro-batch from waveforms (N,) of each clip. Features are computed before padding, clip by clip."""
    augment, features = data.recipe.augment, []
    # One transfer for all waveforms.
    joined = _to_device(torch.from_numpy(np.concatenate(waves)), data.model.device)
    for index, wave in zip(indices, torch.split(joined, [len(wave) for wave in waves]), strict=True):
        clip_features = log_mel(wave)
        if augment.mel_mask or augment.time_mask:
            rng = sample_rng(data.recipe.seed, epoch, data.clips[index].id + "/mask")
            clip_features = mask_features(clip_features, augment.mel_mask, augment.time_mask, rng)
        features.append(clip_features)
    return _with_text(data, indices, "features", pad_sequence(features, True), [len(item) for item in features])


def batch_from_cache(data: SpeechDataset, indices: list[int], kind: str, rows: list[Tensor]) -> Batch:
    """A micro-batch from cached encoder states (T, D) or audio embeddings (A, H) of each clip."""
    audio = _to_device(pad_sequence(rows, True), data.model.device)
    return _with_text(data, indices, kind, audio, [len(row) for row in rows])


def _with_text(data: SpeechDataset, indices: list[int], kind: str, audio: Tensor, lengths: list[int]) -> Batch:
    frames, ids, labels, device = torch.tensor(lengths), [], [], data.model.device
    counts = frames if kind == "embeds" else data.model.num_audio_tokens(frames)
    for index, count in zip(indices, counts.tolist(), strict=True):
        prompt, target = data.prompt(index).around(data.model.audio_token_id, count), data.target(index)
        ids.append(torch.tensor(prompt + target))
        labels.append(torch.tensor([IGNORE] * len(prompt) + target))
    with_ctc = data.recipe.train.ctc_weight > 0
    return Batch(
        kind,
        audio,
        _to_device(frames, device),
        _to_device(pad_sequence(ids, True, 0), device),
        _to_device(pad_sequence(labels, True, IGNORE), device),
        [_characters(data, index) if with_ctc else [] for index in indices],
    )


def _characters(data: SpeechDataset, index: int) -> list[int] | None:
    """The CTC labels of a clip; None for a translation."""
    clip = data.clips[index]
    return None if clip.is_translation else to_labels(clip.text, data.model.num_ctc_labels)[0]


def _to_device(value: Tensor, device: torch.device) -> Tensor:
    """Copies to a device; to a GPU from pinned memory, so the copy does not wait for its kernels."""
    return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)
