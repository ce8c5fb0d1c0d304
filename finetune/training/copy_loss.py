"""The copy loss teaches a language model to copy the keywords of its prompt.

A token of the text is copied if the prompt has it next to the same neighbour: after the token that precedes it in the
text, or before the token that follows it. The loss has two terms, both in the layers after the first one:

- attention: minus the logarithm of the attention, as a mean over heads and layers, from the position that predicts the
  token to these places of the prompt. One head that attends to the right place is enough for a small loss.
- value: the cross entropy of the token in what a layer writes if all its heads attend to such a place alone.

A model that was trained on much text has heads that copy ("induction heads", arXiv 2209.11895). A small one can need
thousands of steps until they appear from the cross entropy of the text alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.granite.modeling_granite import apply_rotary_pos_emb

from finetune.model.granite import SpeechModel
from finetune.training.loss import IGNORE

FLOOR = 1e-6  # added to an attention before its logarithm
OUTSIDE, NOWHERE = -1, -2  # no token: they differ, so that padding matches nothing


@dataclass(frozen=True)
class CopiedTokens:
    """The tokens of the texts of a batch that its prompts contain; Q is the length of the longest text.

    Attributes:
        queries: (B, Q) position that predicts each token of the text, one before it.
        places: (B, Q, L) where the prompt has a copied token; nowhere for other tokens and for padding.
    """

    queries: Tensor
    places: Tensor


def predicting(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The positions (B, Q) that predict each token of the texts, and the number of tokens (B,) of each text."""
    is_target = labels != IGNORE
    counts, starts = is_target.sum(1), is_target.int().argmax(1)
    offsets = torch.arange(int(counts.max()), device=labels.device)
    return (starts[:, None] + offsets - 1).clamp(0, labels.shape[1] - 2), counts


def copied_tokens(ids: Tensor, labels: Tensor) -> CopiedTokens:
    """Finds the copied tokens.

    Args:
        ids: (B, L) prompts with targets, right-padded.
        labels: (B, L) token ids of the target, `IGNORE` elsewhere; position i is predicted from i - 1.
    """
    queries, counts = predicting(labels)
    starts, offsets = queries[:, 0] + 1, torch.arange(queries.shape[1], device=ids.device)
    text = F.pad(torch.where(labels != IGNORE, ids, OUTSIDE), (1, 1), value=OUTSIDE)  # position i is at i + 1
    before, token, after = (text.gather(1, queries + shift)[..., None] for shift in (1, 2, 3))
    is_prompt = torch.arange(ids.shape[1], device=ids.device) < starts[:, None]
    prompt = F.pad(torch.where(is_prompt, ids, NOWHERE), (1, 1), value=NOWHERE)[:, None]
    left, here, right = prompt[..., :-2], prompt[..., 1:-1], prompt[..., 2:]
    places = (here == token) & ((left == before) | (right == after))
    return CopiedTokens(queries, places & (offsets < counts[:, None])[..., None])


class CopyLoss:
    """Computes the copy loss of a batch from the queries, keys and values of its forward pass.

    Args:
        model: the model; hooks on its language model record them.
    """

    def __init__(self, model: SpeechModel) -> None:
        self.model, self._open = model, False
        self._outputs: dict[tuple[int, str], Tensor] = {}
        count = len(model.language_model.layers)
        self.layers = range(min(1, count - 1), count)
        for number in self.layers:
            for name in ("q_proj", "k_proj", "v_proj"):
                module = getattr(model.language_model.layers[number].self_attn, name)
                module.register_forward_hook(self._hook(number, name))

    def _hook(self, layer: int, name: str) -> Any:
        def keep(module: Any, args: Any, output: Tensor) -> None:
            if self._open:
                self._outputs[layer, name] = output

        return keep

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records the forward pass inside of this context for the next call of the loss."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def __call__(self, ids: Tensor, labels: Tensor) -> Tensor:
        """The loss of the recorded forward pass, summed over the copied tokens; the value term over all their places.

        Args:
            ids: (B, L) its token ids.
            labels: (B, L) see `copied_tokens`.
        """
        copied = copied_tokens(ids, labels)
        loss = self.attention_loss(ids, copied, self.layers)
        outputs, self._outputs = self._outputs, {}
        times = copied.places.sum(1)  # (B, L) how many tokens are copied from a place
        sources = times > 0
        for layer in self.layers:
            logits = self.model.logits(self._written(layer, outputs[layer, "v_proj"][sources]))
            values = F.cross_entropy(logits, ids[sources], reduction="none")
            loss = loss + (times[sources] * values).sum() / len(self.layers)
        return loss

    def attention_loss(self, ids: Tensor, tokens: CopiedTokens, layers: Sequence[int]) -> Tensor:
        """The attention term of the recorded forward pass for any tokens and places, summed over the tokens.

        Args:
            ids: (B, L) its token ids.
            tokens: where the prompt has them.
            layers: some of `layers`.
        """
        outputs = self._outputs
        rotations = self.model.language_model.rotary_emb(
            outputs[layers[0], "k_proj"].float(), torch.arange(ids.shape[1], device=ids.device)[None]
        )
        attention = torch.stack([self._attention(outputs, layer, tokens, rotations) for layer in layers])
        return -(attention.mean(0)[tokens.places.any(2)] + FLOOR).log().sum()

    def _attention(
        self, outputs: dict[tuple[int, str], Tensor], layer: int, copied: CopiedTokens, rotations: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The attention (B, Q) of the queries to their places, as a mean over the heads of a layer."""
        module = self.model.language_model.layers[layer].self_attn
        query, key = (outputs[layer, name].float() for name in ("q_proj", "k_proj"))
        query, key = (part.view(*part.shape[:2], -1, module.head_dim).transpose(1, 2) for part in (query, key))
        query, key = apply_rotary_pos_emb(query, key, *rotations)
        rows = torch.arange(len(query), device=query.device)[:, None]
        query = query.transpose(1, 2)[rows, copied.queries].transpose(1, 2)  # (B, heads, Q, size)
        key = key.repeat_interleave(module.num_key_value_groups, dim=1)
        scores = query @ key.transpose(2, 3) * module.scaling  # (B, heads, Q, L)
        later = torch.arange(scores.shape[-1], device=scores.device) > copied.queries[..., None]
        weights = scores.masked_fill(later[:, None], float("-inf")).softmax(-1)
        return (weights * copied.places[:, None]).sum(-1).mean(1)

    def _written(self, layer: int, values: Tensor) -> Tensor:
        """What a layer writes, normalized (n, H), if all its heads attend to one position with these values (n, D)."""
        module = self.model.language_model.layers[layer].self_attn
        values = values.view(len(values), values.shape[1] // module.head_dim, module.head_dim)
        values = values.repeat_interleave(module.num_key_value_groups, dim=1)
        normed: Tensor = self.model.language_model.norm(module.o_proj(values.flatten(-2)))
        return normed
