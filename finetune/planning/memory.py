"""Memory of training on one device: weights, trained parameters, gradients, AdamW, and the activations of a batch.

docs/check.md has the formula, and how far it is from measured peaks.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from finetune.core.config import Recipe
from finetune.model.float32 import stays_bfloat16
from finetune.model.granite import DTYPES, SpeechModel, resolved_dtype
from finetune.planning.activations import Activations, LargestBatch, count_activations

NF4_BYTES = 0.5 + 4 / 64  # a weight, and its share of the float32 scale of a block of 64 (arXiv 2305.14314)
GRADIENT, MOMENTS = 4, 8  # bytes a trained value: float32, and AdamW's two
MOMENTS_8BIT = 2 + 2 * 4 / 256  # a byte each, and their share of the float32 scale of a block of 256
# Of what is counted: fragmentation and kernels that need space for a moment; on a CPU also freed memory that the
# process keeps.
MARGIN = {"cuda": 0.15, "cpu": 0.5}
LIBRARIES = {"cuda": (400_000_000, 1_200_000_000), "cpu": (400_000_000, 800_000_000)}  # least and most, loaded
# Settings that need less memory, in the order in which to try them: the first changes no result and no speed.
SETTINGS = (
    ("machine", "shard_optimizer", True),
    ("train", "optimizer", "adamw-8bit"),
    ("machine", "gradient_checkpointing", True),
    ("machine", "encoder_checkpointing", True),
)
WORTH = 0.01  # a setting that saves less than this share is not listed


def moment_bytes(recipe: Recipe) -> float:
    """Bytes of the optimizer's moments for a trained value."""
    return MOMENTS_8BIT if recipe.train.optimizer == "adamw-8bit" else MOMENTS


@dataclass(frozen=True)
class LessMemory:
    """Settings that need less memory.

    Attributes:
        setting: the settings as a recipe has them, such as `machine.gradient_checkpointing: true`.
        low, high: bytes with them and all earlier ones, as in `MemoryPlan`.
    """

    setting: str
    low: int
    high: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one process on one device at the peak of a training step.

    Attributes:
        device: cpu or cuda.
        dtype: of the frozen weights.
        weights: frozen weights and buffers.
        trained: trained parameters, in float32.
        gradients, moments: of the trained parameters.
        activations: of the largest batch.
        loss: the logits and what is computed from them.
        encoder: what a layer of the encoder needs for a moment, above all that follows it.
        low, high: the sum with the least and the most that libraries need, the second with a margin.
        available: memory of this machine or of its smallest card; None if the device is not on this machine.
        less: settings that need less memory, in the order in which to try them.
        processes: processes that have `available` together: those of a training on a CPU, 1 on a card.
    """

    device: str
    dtype: str
    weights: int
    trained: int
    gradients: int
    moments: int
    activations: int
    loss: int
    encoder: int
    low: int
    high: int
    available: int | None
    less: list[LessMemory] = field(default_factory=list)
    processes: int = 1


@dataclass(frozen=True)
class StepMemory:
    """What a training step needs, counted once for all settings that change only where it is kept.

    Attributes:
        device, dtype, weights: see `MemoryPlan`.
        values: trained parameters.
        processes: training processes; with several, DDP has one more copy of the gradients while a step accumulates
            micro-batches, because it copies them to its buckets in the last one.
        counted: activations.
        attention: scores of one layer of the encoder.
    """

    device: str
    dtype: str
    weights: int
    values: int
    processes: int
    counted: Activations
    attention: int

    def plan(self, recipe: Recipe, available: int | None = None) -> MemoryPlan:
        """The bytes with the settings of a recipe; `less` is empty."""
        machine, counted = recipe.machine, self.counted
        audio = counted.audio_checkpointed if machine.encoder_checkpointing else counted.audio
        moment = self.attention + counted.encoder_layer * machine.encoder_checkpointing
        language_model = counted.checkpointed if machine.gradient_checkpointing else counted.language_model
        copies = 2 if self.processes > 1 and recipe.train.accumulation > 1 else 1
        trained, gradients = 4 * self.values, GRADIENT * self.values * copies
        moments = round(moment_bytes(recipe) * self.values) // (self.processes if machine.shard_optimizer else 1)
        later = language_model + counted.loss
        total = self.weights + trained + moments + gradients + audio + max(moment, later)
        least, most = LIBRARIES[self.device]
        return MemoryPlan(
            self.device,
            self.dtype,
            self.weights,
            trained,
            gradients,
            moments,
            audio + language_model,
            counted.loss,
            max(0, moment - later),
            total + least,
            round(total * (1 + MARGIN[self.device])) + most,
            available,
            processes=self.processes if self.device == "cpu" else 1,
        )


def count_step(model: SpeechModel, recipe: Recipe, largest: LargestBatch, device: str, processes: int) -> StepMemory:
    """Counts what a step of one training process needs.

    Args:
        model: a model on the meta device whose parts are open; its frozen weights get the dtype of the device.
        recipe: the recipe.
        largest: the sizes of the largest batches.
        device: cpu or cuda.
        processes: training processes.
    """
    dtype = resolved_dtype(recipe.model.dtype, device)
    for value in _frozen(model):
        value.data = value.data.to(DTYPES[dtype])
    autocast = device == "cuda" or dtype == "bfloat16"
    return StepMemory(
        device,
        dtype,
        _weight_bytes(model, recipe, device),
        sum(value.numel() for value in model.hf.parameters() if value.requires_grad),
        processes,
        count_activations(model, largest, autocast),
        _attention_bytes(model, largest, 2 if autocast else 4),
    )


def plan_memory(
    model: SpeechModel, recipe: Recipe, largest: LargestBatch, device: str, processes: int, available: int | None
) -> MemoryPlan:
    """The memory of one training process, and the settings that need less.

    Args:
        model, recipe, largest, device, processes: see `count_step`.
        available: bytes of the device, if it is known.
    """
    step = count_step(model, recipe, largest, device, processes)
    return replace(step.plan(recipe, available), less=list(_less_memory(step, recipe)))


def _less_memory(step: StepMemory, recipe: Recipe) -> Iterator[LessMemory]:
    """Settings that are not set and save memory, each with all earlier ones."""
    high = step.plan(recipe).high
    for section, name, value in SETTINGS:
        updates, sharded = {section: {name: value}}, recipe.machine.shard_optimizer
        if step.processes == 1 and name == "shard_optimizer":
            continue
        if sharded and name == "optimizer":  # 8-bit moments cannot be divided over processes
            if step.processes > 1:
                continue
            updates["machine"] = {"shard_optimizer": False}
        changed = recipe.model_copy(
            update={part: getattr(recipe, part).model_copy(update=change) for part, change in updates.items()}
        )
        plan = step.plan(changed)
        if plan.high < (1 - WORTH) * high:
            settings = [(part, key, to) for part, change in updates.items() for key, to in change.items()]
            shown = ", ".join(f"{part}.{key}: {str(to).lower()}" for part, key, to in settings)
            yield LessMemory(shown, plan.low, plan.high)
            recipe, high = changed, plan.high


def _frozen(model: SpeechModel) -> Iterator[nn.Parameter]:
    return (value for value in model.hf.parameters() if not value.requires_grad)


def _weight_bytes(model: SpeechModel, recipe: Recipe, device: str) -> int:
    """Bytes of frozen weights and buffers; 4-bit linear layers of the language model, or weights that stay bfloat16."""
    settings = recipe.model
    if stays_bfloat16(settings.base, settings.dtype, device, model.hf.config):
        sizes = [value.numel() for value in _frozen(model)]
        buffers = sum(value.numel() * value.element_size() for value in model.hf.buffers())
        return 2 * sum(sizes) + 4 * max(sizes, default=0) + buffers  # the largest is converted for a moment
    layers = model.language_model.layers.modules() if settings.quantize == "4bit" else ()
    linear = {id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)}

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
