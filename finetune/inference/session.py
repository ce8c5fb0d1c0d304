"""Decoding state of a batch: the language model's cache over rows that grow by different numbers of tokens."""

import torch
from torch import Tensor

from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.packed_llm import KeyValueCache, PackedPositions, forward_packed


class Session:
    """The rows of a batch, with the tokens that the language model has read in each."""

    def __init__(self, model: SpeechModel, num_rows: int) -> None:
        self.model = model
        self.cache = KeyValueCache(model.language_model, num_rows)
        self.lengths = [0] * num_rows  # tokens in the cache of each row

    def read(self, rows: list[list[int]], audio: EncodedAudio | None = None) -> Tensor:
        """Reads new tokens of each row.

        Args:
            rows: (B) new token ids of each row, of any lengths.
            audio: the batch's clips, for prompts that contain `<|audio|>`.

        Returns:
            Hidden states (N, H) of all N new tokens, in the order of the rows.
        """
        counts = [len(row) for row in rows]
        packed = torch.tensor(
            [
                [token for row in rows for token in row],
                [index for index, count in enumerate(counts) for _ in range(count)],
                [length + step for length, count in zip(self.lengths, counts, strict=True) for step in range(count)],
                [step for count in counts for step in range(count)],
            ]
        ).to(self.model.device)
        ids, owners, slots, offsets = packed
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]
        if audio is None:
            embeds = self.model.embed(ids[None])[0]
        else:  # `embed` compares each row with its clip, so it needs the rows
            padded = ids.new_zeros(len(rows), max(counts))
            padded[owners, offsets] = ids
            embeds = self.model.embed(padded, audio)[owners, offsets]
        positions = PackedPositions(owners, slots, offsets, counts, max(self.lengths))
        return forward_packed(self.model.language_model, embeds, positions, self.cache)

    def forget(self, row: int, count: int) -> None:
        """Removes the last `count` tokens of a row."""
        self.lengths[row] -= count

    def select(self, rows: list[int]) -> None:
        """Keeps only these rows, so that finished rows are no longer computed."""
        self.cache.select(rows)
        self.lengths = [self.lengths[row] for row in rows]
