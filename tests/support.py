"""Helpers of several model tests: batches of clips, transformers' own generate, a model with random weights."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from finetune.data.features import pad_features
from finetune.data.manifest import Utterance
from finetune.data.utterance_table import as_table
from finetune.inference.encode import clip_features
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.prompt import encode_text, render
from finetune.training.augment import WaveAugment
from finetune.training.clip_table import ClipTable
from finetune.training.loss import IGNORE, token_loss
from finetune.training.plan import Groups
from finetune.training.sampler import Clips

INSTRUCTION = "can you transcribe the speech into a written format?"


def waves_from(clips: list[Utterance], augment: WaveAugment) -> Clips:
    """One waveform for each clip, with seed 1 and epoch 0."""
    return Clips(clip_table([], clips), augment, 1, 0)


def clip_table(added: Sequence[Sequence[Utterance]], base: Sequence[Utterance] = ()) -> ClipTable:
    """Utterances as clips, then concatenated ones: those of `base` and of `added`, then `added`."""
    rows = [*base, *(item for items in added for item in items)]
    ends = list(accumulate(map(len, added), initial=len(base)))
    groups = [range(start, end) for start, end in pairwise(ends)]
    return ClipTable(as_table(rows), Groups.of(groups), np.ones(len(groups), np.int32))


def noise(frames: int, seed: int) -> Tensor:
    """Random features (frames, 160) in the range of log-mels."""
    return torch.randn(frames, 160, generator=torch.Generator().manual_seed(seed)) * 0.5


def randomize(model: SpeechModel, end: float = 1.0) -> SpeechModel:
    """Replaces the weights by random ones, large in the language model so that greedy text does not loop.

    `end` scales the logits of the end of text, so that texts end at different lengths.
    """
    torch.manual_seed(5)
    model.hf = type(model.hf)(model.hf.config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
        model.lm_head.weight.normal_(0, 1)
        model.lm_head.weight[model.audio_token_id] = 0  # never generated: transformers would need audio for it
        model.lm_head.weight[model.tokenizer.eos_token_id] *= end
    return model


@torch.inference_mode()
def encoded_noise(model: SpeechModel, frames: Sequence[int]) -> EncodedAudio:
    """Clips of noise with these numbers of frames, after the encoder."""
    return model.encode(*pad_features([noise(count, count) for count in frames]))


def hf_inputs(model: SpeechModel, item: Utterance) -> dict[str, Tensor]:
    """Inputs of transformers' `forward` and `generate` for one clip."""
    features, frames = pad_features([clip_features(model, item)])
    count = int(model.num_audio_tokens(frames)[0])
    prompt = render(model.tokenizer, INSTRUCTION, item.keywords, model.profile)
    ids = torch.tensor([prompt.around(model.audio_token_id, count)])
    return {
        "input_ids": ids,
        "input_features": features,
        "attention_mask": torch.ones_like(ids),
        "input_features_mask": torch.ones(1, count, dtype=torch.bool),
    }


@torch.inference_mode()
def hf_tokens(model: SpeechModel, item: Utterance, max_new_tokens: int) -> tuple[int, ...]:
    """Greedy tokens of transformers' own `generate`, without the end-of-text token."""
    inputs = hf_inputs(model, item)
    eos = model.tokenizer.eos_token_id
    out = model.hf.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=eos,
        pad_token_id=model.tokenizer.pad_token_id,
    )
    tokens = out[0, inputs["input_ids"].shape[1] :].tolist()
    return tuple(tokens[: tokens.index(eos)] if eos in tokens else tokens)


def batch(model: SpeechModel, items: list[Utterance]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (B, T, 160), frame counts (B,), ids and labels (B, L) of clips with transcripts, right-padded."""
    features, frames = pad_features([clip_features(model, item) for item in items])
    ids, labels = [], []
    for item, count in zip(items, model.num_audio_tokens(frames).tolist(), strict=True):
        prompt = render(model.tokenizer, INSTRUCTION, item.keywords).around(model.audio_token_id, count)
        target = [*encode_text(model.tokenizer, item.text), model.tokenizer.eos_token_id]
        ids.append(torch.tensor(prompt + target))
        labels.append(torch.tensor([IGNORE] * len(prompt) + target))
    pad = torch.nn.utils.rnn.pad_sequence
    return features, frames, pad(ids, True, 0), pad(labels, True, IGNORE)


def summed_loss(model: SpeechModel, items: list[Utterance]) -> Tensor:
    """Training loss of a batch, summed over its target tokens."""
    features, frames, ids, labels = batch(model, items)
    hidden, _ = model(features, frames, ids)
    return token_loss(hidden, labels, model.logits, 0.0)
