"""Passes of the language model in fixed shapes, each recorded once as a CUDA graph and then replayed.

A pass over a few tokens starts hundreds of small kernels, and a GPU can need longer to start than to compute them. A
CUDA graph starts all of them with one call (docs.pytorch.org, "CUDA semantics", section "CUDA Graphs"), but with the
shapes and the addresses of its recording. So the cache has a fixed size, and a pass is padded to a number of rows, and
of tokens in a row, from a short list.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.model.packed_llm import KeyValueCache, PackedPositions, forward_packed

Module = Any  # transformers' modules; torch would give each of their attributes the type Tensor | Module
Run = Callable[[], Tensor]
Recorder = Callable[[Run, torch.device], tuple[Callable[[], object], Tensor]]  # see `record_cuda_graph`

WIDTHS = (1, 2, 4, 8, 16, 32)  # new tokens of a row in a recorded pass
SLOT_STEP = 128  # the slots of a row are a multiple of this


class RecordedPass(NamedTuple):
    """A pass of B rows of K new tokens each."""

    inputs: Tensor  # (3, B * K) token ids, their slots, and the positions that are read from `hidden`
    replay: Callable[[], object]
    hidden: Tensor  # (B * K, H), overwritten by each replay


def record_cuda_graph(run: Run, device: torch.device) -> tuple[Callable[[], object], Tensor]:
    """Records the kernels of `run`, which is called twice: once to let libraries allocate their memory.

    Returns:
        A function that starts the kernels again, and the tensor that they write.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = run()
    return graph.replay, result


def can_record(llm: Module) -> bool:
    """Whether all weights are floating-point numbers; kernels for 4 bits were not tried."""
    return all(weight.is_floating_point() for weight in llm.parameters())


def _recorded_state(llm: Module) -> list[object]:
    """What a recording depends on: the addresses of the weights, and which LoRA beside them is active."""
    lora = [(part.disable_adapters, *part.active_adapters) for part in llm.modules() if hasattr(part, "lora_A")]
    return [*(weight.data_ptr() for weight in llm.parameters()), *lora]


class PassGraphs:
    """The recorded passes of a language model, and the memory of its cache, which they share.

    One batch is decoded at a time, because the next one overwrites the cache.

    Args:
        llm: transformers' Granite model body, without the head.
        record: records a pass.
    """

    def __init__(self, llm: Module, record: Recorder = record_cuda_graph) -> None:
        self._llm, self._record = llm, record
        self._memory = KeyValueCache(llm, 0).data.flatten()
        self._passes: dict[tuple[int, int, int], RecordedPass] = {}
        self._state = list[object]()

    def start(self) -> None:
        """Forgets the recorded passes if they are of other weights, and clears the cache.

        The keys of an earlier batch are masked, but a masked NaN would stay NaN.
        """
        state = _recorded_state(self._llm)
        if state != self._state:
            self._state = state
            self._passes.clear()
        self._memory.zero_()

    def keys_and_values(self, rows: int, slots: int) -> Tensor:
        """The cache (layers, 2, R, slots, key heads, head size) of R rows, a power of 2 that is at least `rows`.

        If it needs more memory than before, its content is lost.
        """
        layers, both, size, _, heads, width = KeyValueCache(self._llm, _power_of_two(rows)).data.shape
        shape = (layers, both, size, slots, heads, width)
        count = torch.Size(shape).numel()
        if count > len(self._memory):
            self._passes.clear()
            self._memory = self._memory.new_zeros(count)
        return self._memory[:count].view(shape)

    def read(self, rows: list[list[int]], lengths: list[int], slots: int) -> Tensor:
        """Reads new tokens of each row.

        Args:
            rows: (B) new token ids of each row, at most `WIDTHS[-1]` in a row.
            lengths: (B) tokens that are in the cache.
            slots: those of `keys_and_values`.

        Returns:
            Hidden states (N, H) of all N new tokens, in the order of the rows.
        """
        size, longest = _power_of_two(len(rows)), max(map(len, rows))
        width = next(width for width in WIDTHS if width >= longest)
        tokens, places = torch.zeros(size, width, dtype=torch.long), torch.arange(width).repeat(size, 1)
        kept = list[int]()
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            tokens[index, : len(row)] = torch.tensor(row)
            places[index] += length
            kept += range(index * width, index * width + len(row))
        inputs = torch.stack([tokens.flatten(), places.flatten(), torch.zeros(size * width, dtype=torch.long)])
        inputs[2, : len(kept)] = torch.tensor(kept)
        recorded = self._recorded(size, width, slots, inputs)
        recorded.inputs.copy_(inputs)
        recorded.replay()
        return recorded.hidden[recorded.inputs[2, : len(kept)]]  # a copy

    def _recorded(self, size: int, width: int, slots: int, inputs: Tensor) -> RecordedPass:
        """The recorded pass of this shape; a new one is recorded with `inputs`, because recording writes the cache."""
        if recorded := self._passes.get((size, width, slots)):
            return recorded
        device = self._memory.device
        static = inputs.to(device)
        cache = KeyValueCache(self._llm, size)
        cache.data = self.keys_and_values(size, slots)
        rows = torch.arange(size, device=device).repeat_interleave(width)
        offsets = torch.arange(width, device=device).repeat(size)
        positions = PackedPositions(rows, static[1], offsets, [width] * size, slots, exact=False)

        def run() -> Tensor:
            embeds = self._llm.get_input_embeddings()(static[0])
            return forward_packed(self._llm, embeds, positions, cache)

        recorded = RecordedPass(static, *self._record(run, device))
        self._passes[size, width, slots] = recorded
        return recorded


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
