"""The language model's cache over a batch of rows that grow at different speeds."""

import torch
from torch import Tensor

from finetune.model.granite import EncodedAudio, GraniteSpeech
from finetune.model.packed_llm import KeyValueCache, PackedPositions, forward_packed


class Session:
    """Rows of a batch, each with what it has read so far."""

    def __init__(self, model: GraniteSpeech, rows: int) -> None:
        self.model = model
        self.cache = KeyValueCache(model.language_model, rows)
        self.lengths = [0] * rows  # tokens that each row has read and not forgotten

    def read(self, rows: list[list[int]], audio: EncodedAudio | None = None) -> Tensor:
        """Reads new tokens of each row; returns their hidden states (N, H), one row behind the other."""
        counts = [len(row) for row in rows]
        packed = torch.tensor(
            [
                [token for row in rows for token in row],
                [index for index, count in enumerate(counts) for _ in range(count)],
                [before + step for before, count in zip(self.lengths, counts, strict=True) for step in range(count)],
                [step for count in counts for step in range(count)],
            ]
        ).to(self.model.device)
        ids, owners, slots, offsets = packed
        self.lengths = [before + count for before, count in zip(self.lengths, counts, strict=True)]
        if audio is None:
            embeds = self.model.embed(ids[None])[0]
        else:  # row by row, so that each is compared with its clip
            padded = ids.new_zeros(len(rows), max(counts))
            padded[owners, offsets] = ids
            embeds = self.model.embed(padded, audio)[owners, offsets]
        positions = PackedPositions(owners, slots, offsets, counts, max(self.lengths))
        return forward_packed(self.model.language_model, embeds, positions, self.cache)

    def forget(self, row: int, count: int) -> None:
        """Takes back a row's last tokens."""
        self.lengths[row] -= count

    def select(self, rows: list[int]) -> None:
        """Keeps only these rows: a finished row costs nothing."""
        self.cache.select(rows)
        self.lengths = [self.lengths[row] for row in rows]
