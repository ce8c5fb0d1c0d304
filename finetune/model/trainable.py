"""What trains: LoRA on linear layers and parts in full; and the proof, after a step, that nothing else changed.

All LoRA is one PEFT adapter. Its targets are full-match patterns anchored to the part they are meant for,
because bare names such as `up_proj` stand in the language model and in the encoder.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from finetune.core.errors import ModelError
from finetune.model.granite import GraniteSpeech

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
CHUNK = 1 << 22  # elements of a tensor that are mixed at once: 32 MiB, a few times over


@dataclass(frozen=True)
class LoraSpec:
    """LoRA on the language model (arXiv 2106.09685), with rank 0 for none.

    `dropout` and `variant` hold for LoRA in the projector and the encoder too.
    """

    rank: int
    alpha: float
    dropout: float
    variant: str  # lora, rslora (arXiv 2312.03732) or dora (arXiv 2402.09353)
    modules: list[str]


@dataclass(frozen=True)
class PartSpec:
    """The projector or the encoder: `mode` is frozen, full or lora; the other two are of lora."""

    mode: str
    rank: int
    alpha: float


@dataclass(frozen=True)
class TrainableParts:
    """Everything that trains."""

    lora: LoraSpec
    projector: PartSpec
    encoder: PartSpec
    encoder_blocks: int  # the upper ones
    ctc_head: bool
    lm_head: bool
    llm_layers: int  # the last ones, in full; LoRA goes on those below


@dataclass(frozen=True)
class PartSummary:
    """What trains in one part, counted; `modules` own the tensors, or carry them as LoRA."""

    part: str
    modules: int
    tensors: int
    parameters: int


def _any(names: list[str] | range) -> str:
    return f"({'|'.join(re.escape(str(name)) for name in names)})"


def target_pattern(modules: list[str], layers: int) -> str:
    """A full-match regular expression for linear layers in the first `layers` layers of the language model."""
    return rf"model\.language_model\.layers\.{_any(range(layers))}\.(self_attn|mlp)\.{_any(modules)}"


def _linear_names(module: nn.Module) -> list[str]:
    """The last names of the linear layers below a module."""
    return sorted({name.rpartition(".")[2] for name, found in module.named_modules() if isinstance(found, nn.Linear)})


def _lora_targets(model: GraniteSpeech, parts: TrainableParts) -> list[tuple[str, int, float]]:
    """(pattern, rank, alpha) of each part that gets LoRA."""
    targets = []
    layers, blocks = len(model.language_model.layers) - parts.llm_layers, len(model.encoder.layers)
    if parts.lora.rank:
        if layers == 0:
            raise ModelError(
                f"parts.language_model.layers: all {parts.llm_layers} train in full and leave none for "
                "LoRA; set parts.lora.rank to 0"
            )
        known = _linear_names(model.language_model.layers[0])
        unknown = sorted(set(parts.lora.modules) - set(known))
        if unknown or not parts.lora.modules:
            raise ModelError(f"parts.lora.modules: {unknown} match nothing in the language model; there are {known}")
        targets.append((target_pattern(parts.lora.modules, layers), parts.lora.rank, parts.lora.alpha))
    if parts.projector.mode == "lora":
        pattern = rf"model\.projector\.(.+\.)?{_any(_linear_names(model.projector))}"
        targets.append((pattern, parts.projector.rank, parts.projector.alpha))
    if parts.encoder.mode == "lora":
        upper = _any(range(blocks - parts.encoder_blocks, blocks))
        pattern = rf"model\.encoder\.layers\.{upper}\..+\.{_any(_linear_names(model.encoder.layers))}"
        targets.append((pattern, parts.encoder.rank, parts.encoder.alpha))
    return targets


def _members(model: GraniteSpeech, parts: TrainableParts, mode: str) -> list[nn.Module]:
    """The modules inside which everything trains in full, or those inside which LoRA may stand."""
    layers, blocks = model.language_model.layers, model.encoder.layers
    first = len(layers) - parts.llm_layers
    found = [model.projector] if parts.projector.mode == mode else []
    if parts.encoder.mode == mode:
        found += blocks[len(blocks) - parts.encoder_blocks :]
    if mode == "lora":
        return [*found, *(layers[:first] if parts.lora.rank else [])]
    heads = [model.encoder.out] * parts.ctc_head + [model.lm_head] * parts.lm_head
    return [*found, *heads, *layers[first:]]


def open_parts(model: GraniteSpeech, parts: TrainableParts) -> PeftModel | None:
    """Makes what the recipe names trainable, in place and in float32; returns PEFT's view where there is LoRA.

    Raises:
        ModelError: the model has fewer layers or other modules than asked for, or cannot train a part in full.
    """
    layers, blocks = len(model.language_model.layers), len(model.encoder.layers)
    if parts.llm_layers > layers:
        raise ModelError(f"parts.language_model.layers: {parts.llm_layers}, but the language model has {layers}")
    if parts.encoder.mode != "frozen" and parts.encoder_blocks > blocks:
        raise ModelError(f"parts.encoder.blocks: {parts.encoder_blocks}, but the encoder has {blocks}")
    if parts.lm_head and model.lm_head.weight is model.language_model.get_input_embeddings().weight:
        raise ModelError(f"parts.lm_head: in {model.source} it is tied to the input embeddings; leave it frozen")
    adapted: PeftModel | None = None
    targets = _lora_targets(model, parts)
    if targets:
        (first, rank, alpha), *others = targets
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=parts.lora.dropout,
            target_modules="|".join([first, *(pattern for pattern, _, _ in others)]),
            rank_pattern={pattern: rank for pattern, rank, _ in others},
            alpha_pattern={pattern: alpha for pattern, _, alpha in others},
            use_rslora=parts.lora.variant == "rslora",
            use_dora=parts.lora.variant == "dora",
        )
        adapted = get_peft_model(model.hf, config)  # freezes all else
        check_landing(model, parts)
    for member in _members(model, parts, "full"):
        if not all(value.is_floating_point() for value in member.parameters()):
            raise ModelError(
                "parts.language_model.layers: quantized layers cannot train in full; set model.quantize "
                "to none, or train them with LoRA alone"
            )
        member.requires_grad_(True).float()  # the buffers too; small updates vanish in bfloat16
    for value in trained_parameters(model).values():
        value.data = value.data.float()
    return adapted


def check_landing(model: GraniteSpeech, parts: TrainableParts) -> None:
    """Raises ModelError when LoRA stands on a module outside the parts that are to have it."""
    inside = {id(module) for member in _members(model, parts, "lora") for module in member.modules()}
    outside = sorted(
        {
            re.sub(r"\.\d+\.", ".*.", name)
            for name, module in model.hf.named_modules()
            if hasattr(module, "lora_A") and id(module) not in inside
        }
    )
    if outside:
        raise ModelError(f"LoRA stands outside the parts that the recipe names: {', '.join(outside)}")


def part_of(name: str) -> str:
    """The part of a parameter, by its name; LoRA inside the projector or the encoder belongs to these."""
    for part, prefix in (
        ("projector", "model.projector."),
        ("ctc_head", "model.encoder.out."),
        ("encoder", "model.encoder."),
        ("lora", "lora_"),
        ("lm_head", "lm_head."),
    ):
        if prefix in name:
            return part
    return "language_model"


def trained_parameters(model: GraniteSpeech) -> dict[str, nn.Parameter]:
    """Everything that requires a gradient, by name."""
    return {name: value for name, value in model.hf.named_parameters() if value.requires_grad}


def summarize_parts(model: GraniteSpeech) -> list[PartSummary]:
    """What trains, one row a part."""
    trained = trained_parameters(model)
    rows = []
    for part in dict.fromkeys(map(part_of, trained)):
        names = [name for name in trained if part_of(name) == part]
        owners = {re.split(r"\.lora_|\.[^.]+$", name)[0] for name in names}
        rows.append(PartSummary(part, len(owners), len(names), sum(trained[name].numel() for name in names)))
    return rows


def set_mode(model: GraniteSpeech, training: bool) -> None:
    """Everything in eval mode; in training, LoRA's own dropout and the LLM's checkpointed layers are not.

    BatchNorm must stay in eval mode even where its block trains: its running statistics belong to the
    base model, no adapter stores them, and other engines fold them into the convolution.

    Below float32 training is under autocast, and PEFT's own cast of what goes into LoRA would only make copies, from
    bfloat16 to float32 and back, and keep them for the backward pass. DoRA takes its norms in that float32.
    """
    model.eval()
    for module in model.hf.modules():
        if hasattr(module, "lora_dropout"):
            module.training = training  # DoRA asks the layer itself whether to drop
            module.lora_dropout.train(training)
            module.cast_input_dtype_enabled = not training or bool(module.lora_magnitude_vector)
        if getattr(module, "gradient_checkpointing", False):
            module.training = training


def fingerprints(model: GraniteSpeech) -> dict[str, int]:
    """A number for the raw bits of each parameter and buffer, made where it lies; one transfer at the end.

    A plain sum of the bits would not do: Adam's first step adds the same amount as often as it takes it
    away. So each element's bits are mixed first, and only a new order would go unseen.
    """
    held = {**dict(model.hf.named_parameters()), **dict(model.hf.named_buffers())}
    sums = []
    for value in held.values():
        total = torch.zeros((), dtype=torch.int64, device=model.device)
        for chunk in value.detach().reshape(-1).view(BITS[value.element_size()]).split(CHUNK):
            mixed = chunk.long() * 0x9E3779B97F4A7C1  # odd, and wraps around
            total += (mixed ^ (mixed >> 29)).sum().to(model.device)
        sums.append(total)
    return dict(zip(held, torch.stack(sums).tolist(), strict=True))


@torch.no_grad()
def with_gradient(parameters: dict[str, nn.Parameter], groups: list[dict[str, Any]]) -> set[str]:
    """Names whose gradient, before AdamW's first step, must move them.

    LoRA's A has none in that step, as B is zero. Below AdamW's epsilon of 1e-8 a step may be lost in
    rounding: a softmax is blind to the bias of its keys, for one, whose gradient is noise. And at the beginning of a
    long warm-up a step, which is about as large as the learning rate, may be less than float32 can add to any element.

    Args:
        groups: the optimizer's, with the learning rates of the step.

    Raises:
        ModelError: a gradient is None: the loss does not reach the parameter, which would never train.
    """
    lost = [name for name, value in parameters.items() if value.grad is None]
    if lost:
        raise ModelError(
            f"{_listed(lost)}: no gradient after the first backward pass, so the loss does not reach it "
            "and it would never train; leave this part frozen"
        )
    rates = {id(value): group["lr"] for group in groups for value in group["params"]}

    def moves(value: Tensor, gradient: Tensor) -> Tensor:
        half = 0.5 * rates.get(id(value), 1.0) * gradient.sign()  # what is in no group is held to account all the more
        return ((gradient.abs() > 1e-7) & (value - half != value)).any()

    felt = [moves(value, value.grad) for value in parameters.values() if value.grad is not None]
    return {name for name, moved in zip(parameters, torch.stack(felt).tolist(), strict=True) if moved}


def check_changed(before: dict[str, int], after: dict[str, int], trained: set[str], with_gradient: set[str]) -> None:
    """Holds the first optimizer step to what was to train.

    Args:
        before: fingerprints before the step.
        after: fingerprints after it.
        trained: names of what trains.
        with_gradient: those of them with a gradient in this step.

    Raises:
        ModelError: a frozen tensor changed, or one with a gradient did not.
    """
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    if changed - trained:
        raise ModelError(f"{_listed(changed - trained)}: frozen, but changed by the first training step")
    if with_gradient - changed:
        raise ModelError(
            f"{_listed(with_gradient - changed)}: has a gradient, but the first training step did not "
            "change it; is it in the optimizer, and the learning rate of its part large enough?"
        )


def _listed(names: set[str] | list[str]) -> str:
    """The first few of many names."""
    first = sorted(names)[:5]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")
