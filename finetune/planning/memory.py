"""Memory of training on one device: weights, trained parameters, gradients, AdamW, and the activations of a batch.

docs/check.md has the formula, and how far it is from measured peaks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from finetune.core.config import Recipe
from finetune.model.granite import DTYPES, SpeechModel, resolved_dtype
from finetune.planning.activations import LargestBatch, count_activations

NF4_BYTES = 0.5 + 4 / 64  # a weight, and its share of the float32 scale of a block of 64 (arXiv 2305.14314)
GRADIENT, MOMENTS = 4, 8  # bytes a trained value: float32, and AdamW's two
# Of what is counted: fragmentation and kernels that need space for a moment; on a CPU also freed memory that the
# process keeps.
MARGIN = {"cuda": 0.15, "cpu": 0.5}
LIBRARIES = {"cuda": (400_000_000, 1_200_000_000), "cpu": (400_000_000, 800_000_000)}  # least and most, loaded


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one device at the peak of a training step.

    Attributes:
        device: cpu or cuda.
        dtype: of the frozen weights.
        weights: frozen weights and buffers.
        trained: trained parameters, in float32.
        gradients, moments: of the trained parameters.
        activations: of the largest batch, with the setting of the recipe.
        activations_checkpointed: of the largest batch, with `machine.gradient_checkpointing`.
        loss: the logits and what is computed from them.
        encoder: what the attention of the encoder needs for a moment, above all that follows it.
        low, high: the sum with the least and the most that libraries need, the second with a margin.
        low_checkpointed, high_checkpointed: the same with `machine.gradient_checkpointing`.
        available: memory of this machine or of its smallest card; None if the device is not on this machine.
    """

    device: str
    dtype: str
    weights: int
    trained: int
    gradients: int
    moments: int
    activations: int
    activations_checkpointed: int
    loss: int
    encoder: int
    low: int
    high: int
    low_checkpointed: int
    high_checkpointed: int
    available: int | None


def plan_memory(
    model: SpeechModel, recipe: Recipe, largest: LargestBatch, device: str, processes: int, available: int | None
) -> MemoryPlan:
    """The memory of one training process.

    Args:
        model: a model on the meta device whose parts are open; its frozen weights get the dtype of the device.
        recipe: the recipe.
        largest: the sizes of the largest batches.
        device: cpu or cuda.
        processes: training processes; with several, DDP keeps one more copy of the gradients.
        available: bytes of the device, if it is known.
    """
    dtype = resolved_dtype(recipe.model.dtype, device)
    for value in _frozen(model):
        value.data = value.data.to(DTYPES[dtype])
    trained = sum(value.numel() for value in model.hf.parameters() if value.requires_grad)
    weights = _weight_bytes(model, recipe.model.quantize == "4bit")
    autocast = device == "cuda" or dtype == "bfloat16"
    counted = count_activations(model, largest, autocast)
    attention = _attention_bytes(model, largest, 2 if autocast else 4)
    gradients = GRADIENT * trained * (1 + (processes > 1))
    moments = MOMENTS * trained // (processes if recipe.machine.shard_optimizer else 1)
    whole, checkpointed = counted.language_model, counted.checkpointed

    def bounds(language_model: int) -> tuple[int, int]:
        batch = counted.audio + max(attention, language_model + counted.loss)
        total = weights + 4 * trained + moments + gradients + batch
        least, most = LIBRARIES[device]
        return total + least, round(total * (1 + MARGIN[device])) + most

    used = checkpointed if recipe.machine.gradient_checkpointing else whole
    return MemoryPlan(
        device,
        dtype,
        weights,
        4 * trained,
        gradients,
        moments,
        counted.audio + used,
        counted.audio + checkpointed,
        counted.loss,
        max(0, attention - used - counted.loss),
        *bounds(used),
        *bounds(checkpointed),
        available,
    )


def _frozen(model: SpeechModel) -> Iterator[nn.Parameter]:
    return (value for value in model.hf.parameters() if not value.requires_grad)


def _weight_bytes(model: SpeechModel, quantized: bool) -> int:
    """Bytes of frozen weights and buffers; `quantized`: linear layers of the language model have 4 bits a weight."""
    layers = model.language_model.layers.modules()
    linear = {id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)} if quantized else set()

    def size(value: Tensor) -> float:
        return value.numel() * (NF4_BYTES if id(value) in linear else value.element_size())

    return round(sum(map(size, [*_frozen(model), *model.hf.buffers()])))


def _attention_bytes(model: SpeechModel, largest: LargestBatch, itemsize: int) -> int:
    """Scores of the encoder's block attention with relative positions, in one layer, as `conformer` computes them."""
    if largest.kind != "features":
        return 0
    attention = model.encoder.layers[0].attn
    block = min(largest.frames, attention.context_size)
    queries = largest.clips * -(-largest.frames // block) * block
    return int(queries * attention.num_heads * (4 * block - 1) * itemsize)
