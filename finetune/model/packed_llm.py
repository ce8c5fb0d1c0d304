"""The Granite language model over rows of different lengths: no padding, no dead slots, few operations.

transformers' own forward pads all rows to the longest and its caches grow by the same width for each. Here the new
tokens of all rows lie one behind the other (N), and each row's keys and values lie side by side from slot 0 on, at
the slot of their position. A row forgets tokens when its length is set back: the next ones overwrite them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Module = Any  # transformers' modules; torch would give each of their attributes the type Tensor | Module

SPARE = 64  # slots that a cache grows by beyond what it must hold


class Cache:
    """Keys and values of all layers: (layers, 2, B, S, key heads, head size)."""

    def __init__(self, llm: Module, rows: int) -> None:
        config = llm.config
        weight = llm.embed_tokens.weight
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.data = torch.zeros(
            len(llm.layers), 2, rows, 0, config.num_key_value_heads, size, dtype=weight.dtype, device=weight.device
        )

    def hold(self, slots: int) -> None:
        """Makes room for `slots` in each row. New ones are zero: a masked NaN would still be one."""
        short = slots - self.data.shape[3]
        if short > 0:
            self.data = F.pad(self.data, (0, 0, 0, 0, 0, short + SPARE))

    def select(self, rows: list[int]) -> None:
        """Keeps only these rows."""
        self.data = self.data[:, :, torch.tensor(rows, device=self.data.device)]


@dataclass(frozen=True)
class Places:
    """Where N packed tokens belong: row, slot in its cache, and offset among the row's new tokens."""

    rows: Tensor  # (N,)
    slots: Tensor  # (N,)
    offsets: Tensor  # (N,)
    counts: list[int]  # (B,) new tokens of each row
    longest: int  # slots in use after these tokens


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864): x (N, heads, size), cos and sin (N, 1, size)."""
    one, two = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-two, one), dim=-1) * sin


def _mask(places: Places, groups: int, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores, (B, 1, K * groups, S): a token attends to its own slot and those before it."""
    width, rows = max(places.counts), len(places.counts)
    if width == 1 and rows == 1:
        return None
    own = torch.full((rows, width), places.longest, device=places.slots.device)  # padded queries: any, but not none
    own[places.rows, places.offsets] = places.slots
    hidden = torch.arange(places.longest, device=own.device) > own[..., None]  # (B, K, S)
    mask = torch.zeros(hidden.shape, dtype=dtype, device=own.device).masked_fill_(hidden, float("-inf"))
    return mask.repeat_interleave(groups, dim=1)[:, None]


def read_on(llm: Module, embeds: Tensor, places: Places, cache: Cache) -> Tensor:
    """Embeddings of the new tokens (N, H) -> their hidden states (N, H); their keys and values are in the cache."""
    first = llm.layers[0].self_attn
    heads, size = llm.config.num_attention_heads, first.head_dim
    keys_of = llm.config.num_key_value_heads
    groups, width, rows = heads // keys_of, max(places.counts), len(places.counts)
    even = width * rows == len(embeds)
    cache.hold(places.longest)
    x = embeds * llm.embedding_multiplier
    cos, sin = (part[0, :, None] for part in llm.rotary_emb(x, places.slots[None]))
    mask = _mask(places, groups, cache.data.dtype)
    for layer, (keys, values) in zip(llm.layers, cache.data, strict=True):
        attn = layer.self_attn
        normed = _norm(layer.input_layernorm, x)
        turned = torch.cat((attn.q_proj(normed), attn.k_proj(normed)), dim=-1).view(len(x), -1, size)
        turned = _rotate(turned, cos, sin).to(keys.dtype)  # under autocast it is another
        query = turned[:, :heads]
        keys[places.rows, places.slots] = turned[:, heads:]
        values[places.rows, places.slots] = attn.v_proj(normed).view(len(x), -1, size).to(keys.dtype)
        if not even:
            padded = query.new_zeros(rows, width, heads, size)
            padded[places.rows, places.offsets] = query
            query = padded
        # The heads that share a key stand as further queries beside each other: nothing is repeated.
        query = query.reshape(rows, width, keys_of, groups, size).transpose(1, 2).reshape(rows, keys_of, -1, size)
        key, value = (part[:, : places.longest].transpose(1, 2) for part in (keys, values))
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attn.scaling)
        out = out.view(rows, keys_of, width, groups, size).transpose(1, 2).reshape(rows, width, -1)
        out = out.flatten(0, 1) if even else out[places.rows, places.offsets]
        x = torch.add(x, attn.o_proj(out), alpha=layer.residual_multiplier)
        x = torch.add(x, layer.mlp(_norm(layer.post_attention_layernorm, x)), alpha=layer.residual_multiplier)
    return _norm(llm.norm, x)


def _norm(norm: Module, x: Tensor) -> Tensor:
    return F.rms_norm(x.to(norm.weight.dtype), (x.shape[-1],), norm.weight, norm.variance_epsilon)
