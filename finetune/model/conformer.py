"""The conformer encoder and the Q-Former projector, run so that a clip's output never depends on its batch.

transformers' own forward pads without a mask: a clip's last block attends to padding, and its
depthwise convolution reads it. Here padded keys are masked, padded frames are zeroed after the
GLU and before the projector's windows, and attention is computed on blocks no longer than the
batch needs. For one clip alone the result equals transformers'.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Module = Any  # transformers' modules; torch would give each of their attributes the type Tensor | Module

# Added to the scores of padded keys, whose weight is then exactly 0. Where a whole block is padding it is all there is:
# the smallest number of a dtype would overflow in CUDA's memory-efficient kernel, which counts in powers of 2, and come
# out as NaN (pytorch#110213), and the convolution would carry that into real frames.
HIDDEN = -1e4


def frame_mask(num_frames: Tensor, length: int) -> Tensor:
    """True on real frames: (B,) counts -> (B, length)."""
    return torch.arange(length, device=num_frames.device)[None, :] < num_frames[:, None]


def _attend(attn: Module, x: Tensor, mask: Tensor) -> Tensor:
    """Block attention with Shaw's relative positions (arXiv 1803.02155): x (B, T, D), mask (B, T)."""
    batch, length, _ = x.shape
    block = min(length, attn.context_size)
    blocks = math.ceil(length / block)
    pad = blocks * block - length
    x = F.pad(attn.pre_norm(x), (0, 0, 0, pad))
    keep = F.pad(mask, (0, pad)).view(batch * blocks, 1, 1, block)

    def heads(y: Tensor) -> Tensor:
        return y.reshape(batch * blocks, block, attn.num_heads, attn.dim_head).transpose(1, 2)

    query = heads(attn.to_q(x)) * attn.scale
    key, value = (heads(y) for y in attn.to_kv(x).chunk(2, dim=-1))
    # Row i of `distance` scores positions i - key from block - 1 down to 1 - block: one matrix product instead of one
    # per query position. Read with each row starting one place earlier, it is in line with the keys; no copy is made.
    offsets = torch.arange(block - 1, -block, -1, device=x.device) + attn.max_pos_emb
    distance = (query @ attn.rel_pos_emb(offsets).to(query.dtype).t()).contiguous()
    lined_up = distance.as_strided((*distance.shape[:3], block), (*distance.stride()[:2], 2 * block - 2, 1), block - 1)
    hidden = torch.zeros_like(keep, dtype=distance.dtype).masked_fill(~keep, HIDDEN)
    bias = lined_up + hidden  # bfloat16 under autocast
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)  # the query is scaled
    out = out.transpose(1, 2).reshape(batch, blocks * block, -1)
    return attn.dropout(attn.to_out(out[:, :length]))


def _convolve(conv: Module, x: Tensor, mask: Tensor) -> Tensor:
    """The convolution module with padded frames zeroed where the depthwise kernel would read them."""
    x = F.glu(_pointwise(conv.up_conv, conv.norm(x))) * mask[..., None]
    x = conv.silu(conv.batch_norm(_depthwise(conv.depth_conv, x)))
    return conv.dropout(_pointwise(conv.down_conv, x.transpose(1, 2)))


def _depthwise(depth: Module, x: Tensor) -> Tensor:
    """The convolution of each channel over time: x (B, T, D) -> (B, D, T).

    On a CPU as one of an image of height 1: its channels come last, as they lie in x, which is what oneDNN is
    fast with (recipes/RESULTS.md).
    """
    if x.device.type != "cpu":
        return depth(x.transpose(1, 2))
    image = F.pad(x, (0, 0, *depth.padding)).transpose(1, 2)[:, :, None]
    return F.conv2d(image, depth.conv.weight[:, :, None], groups=x.shape[2])[:, :, 0]


def _pointwise(conv: Module, x: Tensor) -> Tensor:
    """A convolution of width 1 as the matrix product that it is: x (B, T, D) -> (B, T, D')."""
    return F.linear(x, conv.weight.squeeze(-1), conv.bias)


def conform(layer: Module, x: Tensor, mask: Tensor) -> Tensor:
    """One conformer block: x (B, T, D) -> (B, T, D)."""
    x = 0.5 * layer.ff1(x) + x
    x = _attend(layer.attn, x, mask) + x
    x = _convolve(layer.conv, x, mask) + x
    x = 0.5 * layer.ff2(x) + x
    return layer.post_norm(x)


def encode(encoder: Module, features: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
    """Log-mel features to encoder states.

    Args:
        encoder: transformers' `GraniteSpeechCTCEncoder`.
        features: (B, T, 160), padded at the right.
        num_frames: (B,) real frames of each clip.

    Returns:
        States (B, T, D), meaningful on real frames only, and the middle CTC logits (B, T, 348)
        whose softmax was fed back (self-conditioned CTC, arXiv 2104.02724).
    """
    mask = frame_mask(num_frames, features.shape[1])
    x = encoder.input_linear(features)
    middle = x
    for index, layer in enumerate(encoder.layers, start=1):
        x = conform(layer, x, mask)
        if index == encoder.num_layers // 2:
            middle = encoder.out(x)
            x = x + encoder.out_mid(middle.softmax(dim=-1))
    return x, middle


def project(projector: Module, states: Tensor, num_frames: Tensor) -> Tensor:
    """Encoder states (B, T, D) to audio embeddings (B, A, H): 3 for each window of 15 frames.

    Embeddings from index `ceil(num_frames / 15) * 3` on belong to padding.
    """
    states = states.masked_fill(~frame_mask(num_frames, states.shape[1])[..., None], 0.0)
    return projector(states)
