"""Forward passes of one clip that torch.onnx can export: fixed blocks of attention, explicit keys and values.

The frames of a clip are padded to a multiple of `frame_unit`, which both the blocks of the encoder's attention and the
windows of the projector divide. Padded frames are masked as in `model.conformer`. transformers' own forward is exported
too, but its graph fails on clips whose last block is full.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.model.conformer import MASKED_SCORE
from finetune.model.granite import SpeechModel

Module = Any


def frame_unit(model: SpeechModel) -> int:
    """Frames of which a clip has a multiple after padding."""
    return math.lcm(int(model.hf.config.encoder_config.context_size), int(model.window))


class AudioGraph(nn.Module):
    """Encoder and projector: features (1, T, 160) with `frames` (1,) real frames -> audio embeddings (1, A, H)."""

    def __init__(self, model: SpeechModel) -> None:
        super().__init__()
        self.encoder, self.projector = model.encoder, model.projector
        self.window, self.cat_layers = int(model.window), model.cat_layers

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        mask = torch.arange(features.shape[1])[None] < frames[:, None]
        x = self.encoder.input_linear(features)
        earlier = [x] if 0 in self.cat_layers else []
        for index, layer in enumerate(self.encoder.layers, start=1):
            x = 0.5 * layer.ff1(x) + x
            x = _attend(layer.attn, x, mask) + x
            x = _convolve(layer.conv, x, mask) + x
            x = layer.post_norm(0.5 * layer.ff2(x) + x)
            if index == self.encoder.num_layers // 2:
                x = x + self.encoder.out_mid(self.encoder.out(x).softmax(dim=-1))
            if index in self.cat_layers:
                earlier.append(x)
        return self._project(torch.cat([*earlier, x], dim=-1) * mask[..., None])

    def _project(self, states: Tensor) -> Tensor:
        windows = states.reshape(-1, self.window, states.shape[-1])
        former = self.projector.qformer
        x = former.layernorm(self.projector.query).expand(windows.shape[0], -1, -1)
        for layer in former.encoder.layer:
            x = layer.attention.output(_cross(layer.attention.attention, x, x), x)
            if layer.has_cross_attention:
                cross = layer.crossattention
                x = cross.output(_cross(cross.attention, x, windows), x)
            x = layer.output_query(layer.intermediate_query(x), x)
        return self.projector.linear(x.reshape(1, -1, x.shape[-1]))


def _cross(attn: Module, x: Tensor, source: Tensor) -> Tensor:
    """Attention of the Q-Former: x (N, Q, H) reads source (N, S, D)."""

    def heads(y: Tensor, width: int) -> Tensor:
        return y.reshape(-1, width, attn.num_attention_heads, attn.attention_head_size).transpose(1, 2)

    query, key = heads(attn.query(x), x.shape[1]), heads(attn.key(source), source.shape[1])
    weights = (query @ key.transpose(2, 3) * attn.scaling).softmax(dim=-1)
    return (weights @ heads(attn.value(source), source.shape[1])).transpose(1, 2).reshape(-1, x.shape[1], x.shape[2])


def _attend(attn: Module, x: Tensor, mask: Tensor) -> Tensor:
    """Attention in blocks with relative positions: x (1, T, D), mask (1, T) -> (1, T, D)."""
    block, heads, size = int(attn.context_size), int(attn.num_heads), int(attn.dim_head)
    x = attn.pre_norm(x).reshape(-1, block, x.shape[-1])

    def split(y: Tensor) -> Tensor:
        return y.reshape(-1, block, heads, size).transpose(1, 2)

    key, value = (split(y) for y in attn.to_kv(x).chunk(2, dim=-1))
    query = split(attn.to_q(x)) * attn.scale
    places = torch.arange(block)
    positions = attn.rel_pos_emb((places[:, None] - places[None]) + attn.max_pos_emb)  # (block, block, size)
    rows = query.permute(2, 0, 1, 3).reshape(block, -1, size) @ positions.transpose(1, 2)  # one product for each query
    distance = rows.reshape(block, -1, heads, block).permute(1, 2, 0, 3)
    padding = (~mask.reshape(-1, 1, 1, block)).to(x.dtype) * MASKED_SCORE
    weights = (query @ key.transpose(2, 3) + distance + padding).softmax(dim=-1)
    return attn.to_out((weights @ value).transpose(1, 2).reshape(1, -1, heads * size))


def _convolve(conv: Module, x: Tensor, mask: Tensor) -> Tensor:
    """Convolution module: x (1, T, D), mask (1, T) -> (1, T, D)."""
    x = F.glu(conv.up_conv(conv.norm(x).transpose(1, 2)), dim=1) * mask[:, None]
    depth = conv.depth_conv
    x = F.conv1d(F.pad(x, depth.padding), depth.conv.weight, groups=x.shape[1])
    return conv.down_conv(conv.silu(conv.batch_norm(x))).transpose(1, 2)


class EmbeddingGraph(nn.Module):
    """Token ids (1, L) -> embeddings (1, L, H)."""

    def __init__(self, model: SpeechModel) -> None:
        super().__init__()
        self.embeddings = model.language_model.get_input_embeddings()

    def forward(self, ids: Tensor) -> Tensor:
        return self.embeddings(ids)


class DecoderGraph(nn.Module):
    """Language model: embeddings (1, L, H) after a cache (layers, 2, heads, P, size) -> logits (1, V), longer cache."""

    def __init__(self, model: SpeechModel) -> None:
        super().__init__()
        self.llm, self.head, self.scaling = model.language_model, model.lm_head, model.logits_scaling

    def forward(self, embeds: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        llm, length, past = self.llm, embeds.shape[1], cache.shape[3]
        heads, key_heads = llm.config.num_attention_heads, llm.config.num_key_value_heads
        positions = torch.arange(length) + past
        angles = positions[:, None].to(torch.float32) * llm.rotary_emb.inv_freq[None]
        angles = torch.cat((angles, angles), dim=-1)
        scale = llm.rotary_emb.attention_scaling
        cos, sin = angles.cos() * scale, angles.sin() * scale
        later = torch.arange(length + past)[None] > positions[:, None]
        x, layers = embeds * llm.embedding_multiplier, []
        for index, layer in enumerate(llm.layers):
            attn, normed = layer.self_attn, layer.input_layernorm(x)

            def split(y: Tensor, count: int) -> Tensor:
                return y.reshape(1, -1, count, attn.head_dim).transpose(1, 2)  # noqa: B023

            query = _rotate(split(attn.q_proj(normed), heads), cos, sin)
            key = torch.cat((cache[index, :1], _rotate(split(attn.k_proj(normed), key_heads), cos, sin)), dim=2)
            value = torch.cat((cache[index, 1:], split(attn.v_proj(normed), key_heads)), dim=2)
            layers.append(torch.cat((key, value), dim=0))
            key, value = (y.repeat_interleave(heads // key_heads, dim=1) for y in (key, value))
            scores = (query @ key.transpose(2, 3) * attn.scaling).masked_fill(later, -math.inf)
            out = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(1, -1, heads * attn.head_dim)
            x = x + attn.o_proj(out) * layer.residual_multiplier
            x = x + layer.mlp(layer.post_attention_layernorm(x)) * layer.residual_multiplier
        return self.head(llm.norm(x[:, -1])) / self.scaling, torch.stack(layers)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    lower, upper = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-upper, lower), dim=-1) * sin
