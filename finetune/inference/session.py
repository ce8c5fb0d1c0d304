"""Decoding state of a batch: the language model's cache over rows that grow by different numbers of tokens."""

import threading
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.packed_llm import KeyValueCache, PackedPositions, forward_packed
from finetune.model.pass_graphs import SLOT_STEP, WIDTHS, PassGraphs, can_record


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


class GraphSession(Session):
    """A session with a cache of fixed size, whose short passes are replayed as CUDA graphs.

    Args:
        max_length: tokens that a row can reach, prompt included.
        graphs: those of the model; they serve one session at a time.
    """

    def __init__(self, model: SpeechModel, num_rows: int, max_length: int, graphs: PassGraphs) -> None:
        super().__init__(model, num_rows)
        self._graphs = graphs
        self._slots = -(-(max_length + WIDTHS[-1]) // SLOT_STEP) * SLOT_STEP  # padding takes slots too
        graphs.start()
        self.cache.data = graphs.keys_and_values(num_rows, self._slots)[:, :, :num_rows]

    def read(self, rows: list[list[int]], audio: EncodedAudio | None = None) -> Tensor:
        if audio is not None or max(map(len, rows)) > WIDTHS[-1]:
            return super().read(rows, audio)
        hidden = self._graphs.read(rows, self.lengths, self._slots)
        self.lengths = [length + len(row) for length, row in zip(self.lengths, rows, strict=True)]
        return hidden

    def select(self, rows: list[int]) -> None:
        super().select(rows)
        kept = self.cache.data
        self.cache.data = self._graphs.keys_and_values(len(rows), self._slots)[:, :, : len(rows)]
        self.cache.data.copy_(kept)


class _Recorded(threading.local):
    """The recorded passes of each model. Each thread has its own, because they are not safe to share."""

    def __init__(self) -> None:
        self.by_model = WeakKeyDictionary[SpeechModel, PassGraphs]()


_recorded = _Recorded()


def open_session(model: SpeechModel, prompts: list[list[int]], max_new_tokens: int, cuda_graphs: bool) -> Session:
    """The decoding state of a new batch.

    Args:
        prompts: (B) token ids, the first that each row will read.
        max_new_tokens: the most that a row will write.
        cuda_graphs: on a GPU, replay short passes as CUDA graphs. Not under autocast, which casts weights for one pass.
    """
    llm = model.language_model
    if cuda_graphs and model.device.type == "cuda" and not torch.is_autocast_enabled("cuda") and can_record(llm):
        graphs = _recorded.by_model.setdefault(model, PassGraphs(llm))
        return GraphSession(model, len(prompts), max(map(len, prompts)) + max_new_tokens, graphs)
    return Session(model, len(prompts))
