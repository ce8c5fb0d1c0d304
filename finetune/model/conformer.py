"""Forward pass of the conformer encoder and the Q-Former projector; the output of a clip is independent of its batch.

transformers' own forward pads without a mask: the last block of a clip attends to padding, and the depthwise
convolution reads padding. Here padded keys are masked, and padded frames are set to zero after the GLU and before the
projector's windows. A block of attention is no longer than the longest clip of the batch. For a single clip the
result equals that of transformers.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Module = Any  # transformers' modules; torch would give each of their attributes the type Tensor | Module
Block = Callable[[Module, Tensor, Tensor], Tensor]  # see `conformer_block`

# Added to the attention scores of padded keys; their weight is then exactly 0. In a block of padding only, every score
# has this value. The minimum of the dtype would overflow to NaN in CUDA's memory-efficient kernel, which computes in
# powers of 2 (pytorch#110213), and the convolution would spread the NaN to real frames.
MASKED_SCORE = -1e4


def frame_mask(num_frames: Tensor, length: int) -> Tensor:
    """Mask that is True on real frames: counts (B,) -> (B, length)."""
    return torch.arange(length, device=num_frames.device)[None, :] < num_frames[:, None]


def _attend(attn: Module, x: Tensor, mask: Tensor) -> Tensor:
    """Block attention with relative positions (arXiv 1803.02155): x (B, T, D), mask (B, T) -> (B, T, D)."""
    batch, length, _ = x.shape
    block = min(length, attn.context_size)
    blocks = math.ceil(length / block)
    pad = blocks * block - length
    x = F.pad(attn.pre_norm(x), (0, 0, 0, pad))
    real = F.pad(mask, (0, pad)).view(batch * blocks, 1, 1, block)

    def heads(y: Tensor) -> Tensor:
        return y.reshape(batch * blocks, block, attn.num_heads, attn.dim_head).transpose(1, 2)

    query = heads(attn.to_q(x)) * attn.scale
    key, value = (heads(y) for y in attn.to_kv(x).chunk(2, dim=-1))
    # Row i of `distance` holds the scores of relative positions block - 1 down to 1 - block, from one matrix product
    # instead of one for each query. The strided view starts each row one element earlier and so aligns the scores
    # with the keys, without a copy.
    offsets = torch.arange(block - 1, -block, -1, device=x.device) + attn.max_pos_emb
    distance = (query @ attn.rel_pos_emb(offsets).to(query.dtype).t()).contiguous()
    aligned = distance.as_strided((*distance.shape[:3], block), (*distance.stride()[:2], 2 * block - 2, 1), block - 1)
    padding = torch.zeros_like(real, dtype=distance.dtype).masked_fill(~real, MASKED_SCORE)
    bias = aligned + padding  # bfloat16 under autocast
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)  # `query` is already scaled
    out = out.transpose(1, 2).reshape(batch, blocks * block, -1)
    return attn.dropout(attn.to_out(out[:, :length]))


def _convolve(conv: Module, x: Tensor, mask: Tensor) -> Tensor:
    """Convolution module with padded frames set to zero before the depthwise kernel: x (B, T, D) -> (B, T, D)."""
    x = F.glu(_pointwise(conv.up_conv, conv.norm(x))) * mask[..., None]
    x = conv.silu(conv.batch_norm(_depthwise(conv.depth_conv, x)))
    return conv.dropout(_pointwise(conv.down_conv, x.transpose(1, 2)))


def _depthwise(depth: Module, x: Tensor) -> Tensor:
    """Depthwise convolution over time: x (B, T, D) -> (B, D, T).

    On a CPU it runs as a 2-D convolution of an image of height 1. The image is channels-last without a copy, and oneDNN
    is fastest in this layout (measured in recipes/RESULTS.md).
    """
    if x.device.type != "cpu":
        return depth(x.transpose(1, 2))
    image = F.pad(x, (0, 0, *depth.padding)).transpose(1, 2)[:, :, None]
    return F.conv2d(image, depth.conv.weight[:, :, None], groups=x.shape[2])[:, :, 0]


def _pointwise(conv: Module, x: Tensor) -> Tensor:
    """Convolution with kernel width 1, computed as a matrix product: x (B, T, D) -> (B, T, D')."""
    return F.linear(x, conv.weight.squeeze(-1), conv.bias)


def conformer_block(layer: Module, x: Tensor, mask: Tensor) -> Tensor:
    """One conformer block (arXiv 2005.08100): x (B, T, D), mask (B, T) -> (B, T, D)."""
    x = 0.5 * layer.ff1(x) + x
    x = _attend(layer.attn, x, mask) + x
    x = _convolve(layer.conv, x, mask) + x
    x = 0.5 * layer.ff2(x) + x
    return layer.post_norm(x)


def checkpointed_block(layer: Module, x: Tensor, mask: Tensor) -> Tensor:
    """`conformer_block` that keeps only its input: the backward pass computes it again (arXiv 1604.06174)."""
    if not torch.is_grad_enabled():
        return conformer_block(layer, x, mask)
    out: Tensor = checkpoint(conformer_block, layer, x, mask, use_reentrant=False)
    return out


def encode(
    encoder: Module,
    features: Tensor,
    num_frames: Tensor,
    cat_layers: Sequence[int] = (),
    block: Block = conformer_block,
) -> tuple[Tensor, Tensor]:
    """Computes encoder states from log-mel features.

    Args:
        encoder: transformers' `GraniteSpeechCTCEncoder`.
        features: (B, T, 160) stacked log-mel features, right-padded.
        num_frames: (B,) number of real frames of each clip.
        cat_layers: layers whose states precede those of the last layer in D (4.1-plus); 0 is the input of layer 1.
        block: runs a layer.

    Returns:
        Encoder states (B, T, D), valid on real frames only, and the CTC logits (B, T, 348) of the middle layer, whose
        softmax is added back to the states (self-conditioned CTC, arXiv 2104.02724).
    """
    mask = frame_mask(num_frames, features.shape[1])
    x = encoder.input_linear(features)
    middle = x
    earlier = [x] if 0 in cat_layers else []
    for index, layer in enumerate(encoder.layers, start=1):
        x = block(layer, x, mask)
        if index == encoder.num_layers // 2:
            middle = encoder.out(x)
            x = x + encoder.out_mid(middle.softmax(dim=-1))
        if index in cat_layers:
            earlier.append(x)
    return torch.cat([*earlier, x], dim=-1) if earlier else x, middle


def project(projector: Module, states: Tensor, num_frames: Tensor) -> Tensor:
    """Projects encoder states (B, T, D) to audio embeddings (B, A, H): 3 for each window of 15 frames.

    Embeddings from index `ceil(num_frames / 15) * 3` on are padding.
    """
    states = states.masked_fill(~frame_mask(num_frames, states.shape[1])[..., None], 0.0)
    return projector(states)
