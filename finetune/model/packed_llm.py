"""Incremental forward pass of the Granite language model over rows of different lengths, without padding.

transformers' own forward pads all rows to the longest, and its caches grow by the same number of slots for each row.
Here the new tokens of all rows are packed into one sequence of N tokens. The key and value of a token are stored in
its row of the cache, at the slot that equals its position. To remove a row's last tokens, the caller reduces the
row's length; the next tokens overwrite their slots.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Module = Any  # transformers' modules; torch would give each of their attributes the type Tensor | Module

EXTRA_SLOTS = 64  # additional slots when a cache grows, to copy it less often


class KeyValueCache:
    """Keys and values of all layers: (layers, 2, B, S, key heads, head size), with S slots for each of B rows."""

    def __init__(self, llm: Module, rows: int) -> None:
        config = llm.config
        weight = llm.norm.weight
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.data = torch.zeros(
            len(llm.layers), 2, rows, 0, config.num_key_value_heads, size, dtype=weight.dtype, device=weight.device
        )

    def reserve(self, slots: int) -> None:
        """Grows to at least `slots` slots for each row. New slots are zero, because a masked NaN would stay NaN."""
        missing = slots - self.data.shape[3]
        if missing > 0:
            self.data = F.pad(self.data, (0, 0, 0, 0, 0, missing + EXTRA_SLOTS))

    def select(self, rows: list[int]) -> None:
        """Keeps only these rows, in this order."""
        self.data = self.data[:, :, torch.tensor(rows, device=self.data.device)]


@dataclass(frozen=True)
class PackedPositions:
    """The row and position of each of N packed tokens."""

    rows: Tensor  # (N,) index of the token's row
    slots: Tensor  # (N,) slot in the row's cache, equal to the position in the row
    offsets: Tensor  # (N,) index among the row's new tokens
    counts: list[int]  # (B,) new tokens of each row
    used_slots: int  # slots that attention reads, at least those in use after these tokens in the longest row
    exact: bool = True  # whether `used_slots` has no slot more


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864): x (N, heads, size), cos and sin (N, 1, size)."""
    lower, upper = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-upper, lower), dim=-1) * sin


def _causal_mask(positions: PackedPositions, groups: int, dtype: torch.dtype) -> Tensor | None:
    """Attention bias (B, 1, K * groups, S) for K queries per row: a token attends to its own slot and earlier slots.

    Returns None for one row with one token, which attends to all slots in use.
    """
    width, rows = max(positions.counts), len(positions.counts)
    if width == 1 and rows == 1 and positions.exact:
        return None
    # A padded query attends to every slot: its output is not used, and a query without any slot would give NaN.
    last_slot = torch.full((rows, width), positions.used_slots, device=positions.slots.device)
    last_slot[positions.rows, positions.offsets] = positions.slots
    later = torch.arange(positions.used_slots, device=last_slot.device) > last_slot[..., None]  # (B, K, S)
    mask = torch.zeros(later.shape, dtype=dtype, device=last_slot.device).masked_fill_(later, float("-inf"))
    return mask.repeat_interleave(groups, dim=1)[:, None]


def forward_packed(llm: Module, embeds: Tensor, positions: PackedPositions, cache: KeyValueCache) -> Tensor:
    """Runs the language model on new tokens and adds their keys and values to the cache.

    Args:
        llm: transformers' Granite model body, without the head.
        embeds: (N, H) embeddings of the new tokens of all rows.
        positions: row and position of each token.
        cache: keys and values of earlier tokens, extended in place.

    Returns:
        Hidden states (N, H) after the last norm.
    """
    first_attention = llm.layers[0].self_attn
    heads, size = llm.config.num_attention_heads, first_attention.head_dim
    key_heads = llm.config.num_key_value_heads
    groups, width, rows = heads // key_heads, max(positions.counts), len(positions.counts)
    equal_counts = width * rows == len(embeds)
    cache.reserve(positions.used_slots)
    x = embeds * llm.embedding_multiplier
    cos, sin = (part[0, :, None] for part in llm.rotary_emb(x, positions.slots[None]))
    mask = _causal_mask(positions, groups, cache.data.dtype)
    for layer, (keys, values) in zip(llm.layers, cache.data, strict=True):
        attn = layer.self_attn
        normed = _norm(layer.input_layernorm, x)
        rotated = torch.cat((attn.q_proj(normed), attn.k_proj(normed)), dim=-1).view(len(x), -1, size)
        rotated = _rotate(rotated, cos, sin).to(keys.dtype)  # under autocast the dtype differs
        query = rotated[:, :heads]
        keys[positions.rows, positions.slots] = rotated[:, heads:]
        values[positions.rows, positions.slots] = attn.v_proj(normed).view(len(x), -1, size).to(keys.dtype)
        if not equal_counts:
            padded = query.new_zeros(rows, width, heads, size)
            padded[positions.rows, positions.offsets] = query
            query = padded
        # Heads that share a key become additional queries, so keys and values are not repeated.
        query = query.reshape(rows, width, key_heads, groups, size).transpose(1, 2).reshape(rows, key_heads, -1, size)
        key, value = (part[:, : positions.used_slots].transpose(1, 2) for part in (keys, values))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attn.scaling)
        out = out.view(rows, key_heads, width, groups, size).transpose(1, 2).reshape(rows, width, -1)
        out = out.flatten(0, 1) if equal_counts else out[positions.rows, positions.offsets]
        x = torch.add(x, attn.o_proj(out), alpha=layer.residual_multiplier)
        x = torch.add(x, layer.mlp(_norm(layer.post_attention_layernorm, x)), alpha=layer.residual_multiplier)
    return _norm(llm.norm, x)


def _norm(norm: Module, x: Tensor) -> Tensor:
    """RMS norm over the last dimension, as one fused operation."""
    return F.rms_norm(x.to(norm.weight.dtype), (x.shape[-1],), norm.weight, norm.variance_epsilon)
