"""Encoder and projector: equal to transformers for one clip, and independent of the batch."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import noise
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from trainable_cases import FULL, NOTHING

from finetune.data.features import pad_features
from finetune.model.conformer import conformer_block, encode, frame_mask
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.trainable import open_parts, set_mode, trained_parameters

LENGTHS = [1, 2, 14, 15, 16, 137, 199, 200, 201, 400, 401, 1015]  # frames; a block has 200, a window 15


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, divided by the largest expected value if that is above 1."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max()) / max(1.0, float(expected.abs().max()))


@pytest.fixture(scope="module")
def granite(model: Callable[[], SpeechModel]) -> SpeechModel:
    return model()


@torch.inference_mode()
def encode_clips(granite: SpeechModel, features: list[Tensor]) -> EncodedAudio:
    return granite.encode(*pad_features(features))


@pytest.mark.parametrize("frames", LENGTHS)
@torch.inference_mode()
def test_one_clip_equals_transformers(granite: SpeechModel, frames: int) -> None:
    features = noise(frames, frames)
    actual = encode_clips(granite, [features])
    _, middle = encode(granite.encoder, *pad_features([features]))
    expected_middle: list[Tensor] = []
    hook = granite.encoder.out.register_forward_hook(lambda _, __, output: expected_middle.append(output))
    expected = granite.hf.get_audio_features(features[None])
    hook.remove()
    assert relative_difference(actual.states, expected.last_hidden_state) < 1e-5
    assert relative_difference(middle, expected_middle[0]) < 1e-5
    assert int(actual.num_tokens[0]) == actual.embeds.shape[1] == -(-frames // 15) * 3
    assert relative_difference(actual.embeds, expected.pooler_output) < 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_clip_is_encoded_the_same_in_any_batch(granite: SpeechModel, seed: int) -> None:
    rng = random.Random(seed)
    lengths = rng.sample([1, 15, 37, 130, 137, 199, 200, 201, 310, 415], 4)
    features = [noise(frames, frames) for frames in lengths]
    together = encode_clips(granite, features)
    for row, (frames, clip) in enumerate(zip(lengths, features, strict=True)):
        alone = encode_clips(granite, [clip])
        tokens = int(alone.num_tokens[0])
        assert int(together.num_tokens[row]) == tokens
        assert relative_difference(together.states[row, :frames], alone.states[0]) < 1e-5
        assert relative_difference(together.embeds[row, :tokens], alone.embeds[0, :tokens]) < 1e-5


@torch.inference_mode()
def test_values_in_the_padding_have_no_effect(granite: SpeechModel) -> None:
    features, counts = pad_features([noise(130, 1), noise(310, 2)])
    clean = granite.encode(features, counts)
    dirty = granite.encode(features.masked_fill(~frame_mask(counts, 310)[..., None], 50.0), counts)
    assert relative_difference(dirty.states[0, :130], clean.states[0, :130]) < 1e-5
    assert relative_difference(dirty.embeds[0, :27], clean.embeds[0, :27]) < 1e-5


@torch.inference_mode()
def test_transformers_output_depends_on_the_batch(granite: SpeechModel) -> None:
    """The reason for conformer.py: if this test fails, transformers masks padding and its forward could be used."""
    features, _ = pad_features([noise(130, 1), noise(310, 2)])
    alone = granite.hf.get_audio_features(features[:1, :130])
    together = granite.hf.get_audio_features(features)
    assert float((together.last_hidden_state[0, :130] - alone.last_hidden_state[0]).abs().max()) > 1e-3


def test_block_runs_under_autocast_with_padding(granite: SpeechModel) -> None:
    """Under CUDA autocast a layer norm gives float32 and a product bfloat16; float32 states give the same here."""
    states, counts = pad_features([noise(20, 1), noise(33, 2)])
    mask = frame_mask(counts, 33)
    layer = granite.encoder.layers[0]
    with torch.no_grad():
        exact = conformer_block(layer, states, mask)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = conformer_block(layer, states, mask)
    assert relative_difference(rounded[mask], exact[mask]) < 0.1


def trained_gradients(granite: SpeechModel, batches: list[list[Tensor]]) -> dict[str, Tensor]:
    """Gradients of a sum over audio embeddings and CTC logits, accumulated over batches of clips."""
    granite.zero_grad()
    for batch in batches:
        audio = granite.encode(*pad_features(batch))
        states = granite.ctc_logits(audio.states).log_softmax(-1)[frame_mask(audio.num_frames, audio.states.shape[1])]
        embeds = audio.embeds[frame_mask(audio.num_tokens, audio.embeds.shape[1])]
        (states[:, 0].sum() + embeds.square().sum()).backward()  # type: ignore[no-untyped-call]
    return {name: value.grad.clone() for name, value in trained_parameters(granite).items() if value.grad is not None}


def test_gradients_reach_trainable_parameters_and_do_not_depend_on_the_batch(model: Callable[[], SpeechModel]) -> None:
    granite = model()
    open_parts(granite, replace(NOTHING, projector=FULL, encoder=FULL, ctc_head=True))
    set_mode(granite, training=True)
    clips = [noise(40, 1), noise(97, 2), noise(205, 3)]
    together, alone = trained_gradients(granite, [clips]), trained_gradients(granite, [[clip] for clip in clips])
    assert set(together) == set(trained_parameters(granite))
    largest = max(float(gradient.abs().max()) for gradient in alone.values())
    for name, gradient in together.items():  # some are zero except for rounding, such as the bias of keys
        scale = max(1e-3 * largest, float(alone[name].abs().max()))
        assert float((gradient - alone[name]).abs().max()) < 1e-3 * scale, name
    assert [name for name, gradient in together.items() if not gradient.any()] == []


def test_frozen_encoder_and_projector_build_no_graph(model: Callable[[], SpeechModel]) -> None:
    audio = model().encode(*pad_features([noise(40, 1)]))
    assert not audio.states.requires_grad
    assert not audio.embeds.requires_grad


class MemoryEfficient(torch.autograd.Function):
    """Attention with the arithmetic of CUDA's memory-efficient kernel, in operations that a CPU has.

    Weights are powers of 2, sums are divided at the end, and the backward pass uses the logarithms of the sums
    (arXiv 2112.05682).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        scores = query @ key.mT + bias
        twos = scores * math.log2(math.e)
        top = twos.amax(-1, keepdim=True)
        powers = torch.exp2(twos - top.masked_fill(top == -math.inf, 0.0))
        total = powers.sum(-1, keepdim=True)
        out = (powers @ value) * (1 / total)
        ctx.save_for_backward(query, key, value, scores, out, top / math.log2(math.e) + total.log())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, key, value, scores, out, logs = ctx.saved_tensors
        weights = (scores - logs).exp()
        of_scores = weights * (gradient @ value.mT - (gradient * out).sum(-1, keepdim=True))
        return of_scores @ key, of_scores.mT @ query, weights.mT @ gradient, of_scores


class UseMemoryEfficient(TorchFunctionMode):
    """Replaces `scaled_dot_product_attention` by `MemoryEfficient` in this context."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention or kwargs.get("attn_mask") is None:
            return func(*args, **kwargs)
        assert set(kwargs) == {"attn_mask", "scale"} and kwargs["scale"] == 1.0
        self.calls += 1
        return MemoryEfficient.apply(*args, kwargs["attn_mask"])  # type: ignore[no-untyped-call]


def test_block_of_padding_gives_no_nan_in_the_memory_efficient_kernel(model: Callable[[], SpeechModel]) -> None:
    """Forward and backward with 410 and 130 frames: two blocks of the shorter clip contain only padding."""
    granite = model()
    open_parts(granite, replace(NOTHING, encoder=FULL, ctc_head=True, projector=FULL))
    clips = [noise(130, 1), noise(410, 2)]
    exact = encode_clips(granite, clips)
    expected = trained_gradients(granite, [clips])
    with UseMemoryEfficient() as mode:
        actual = encode_clips(granite, clips)
        gradients = trained_gradients(granite, [clips])
    assert mode.calls == 2 * len(granite.encoder.layers), "the encoder's attention was not replaced"
    real = frame_mask(exact.num_frames, 410)
    assert relative_difference(actual.states[real], exact.states[real]) < 1e-5
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        assert float((gradient - expected[name]).abs().max()) < 1e-3 * max(1.0, float(expected[name].abs().max())), name
