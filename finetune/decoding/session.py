"""The language model's cache over a batch of rows that grow at different speeds.

Every pass appends one slot per fed token to all rows. A token that a row rejects keeps its slot but
is marked dead, so rows may accept different lengths in the same pass and nothing is ever re-fed.
"""

import torch
from torch import Tensor
from transformers import DynamicCache

from finetune.model.granite import Audio, GraniteSpeech


class Session:
    """Rows of a batch: what each has read, and which cache slots are alive."""

    def __init__(self, model: GraniteSpeech) -> None:
        self.model = model
        self.cache = DynamicCache()
        self.alive = torch.zeros(0, 0, dtype=torch.bool)  # (B, S) cache slots a row may attend to
        self.lengths = torch.zeros(0, dtype=torch.long)  # (B,) alive slots, the next position

    def read(self, rows: list[list[int]], audio: Audio | None = None) -> Tensor:
        """Feeds token ids, right-padded, and returns hidden states (B, K, H); all fed tokens are alive after."""
        device = self.model.device
        counts = torch.tensor([len(row) for row in rows], device=device)
        width = int(counts.max())
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        embeds = self.model.embed(ids.to(device), audio)
        if audio is not None:
            self.alive = torch.zeros(len(rows), 0, dtype=torch.bool, device=device)
            self.lengths = torch.zeros(len(rows), dtype=torch.long, device=device)
        steps = torch.arange(width, device=device)
        causal = (steps[None, :] <= steps[:, None]).expand(len(rows), width, width)
        past = self.alive[:, None, :].expand(-1, width, -1)
        output = self.model.language_model(
            inputs_embeds=embeds, past_key_values=self.cache, use_cache=True,
            attention_mask=torch.cat([past, causal], dim=-1)[:, None],
            position_ids=self.lengths[:, None] + steps[None, :])
        self.alive = torch.cat([self.alive, steps[None, :] < counts[:, None]], dim=-1)
        self.lengths = self.lengths + counts
        hidden: Tensor = output.last_hidden_state
        return hidden

    def forget(self, row: int, start: int, stop: int) -> None:
        """Kills the slots of fed tokens `start` to `stop` of the last pass, counted from the cache's end."""
        if stop > start:
            self.alive[row, start:stop] = False
            self.lengths[row] -= stop - start

    def select(self, rows: list[int]) -> None:
        """Keeps only these rows: a finished row costs nothing."""
        index = torch.tensor(rows, device=self.alive.device)
        self.cache.batch_select_indices(index)
        self.alive, self.lengths = self.alive[index], self.lengths[index]
