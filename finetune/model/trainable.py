"""Trainable parameters: LoRA on linear layers, and parts trained in full.

All LoRA layers belong to one PEFT adapter. Its targets are full-match patterns for one part of the model, because
names such as `up_proj` occur in the language model and in the encoder.
"""

import re
from dataclasses import dataclass, replace

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from finetune.core.errors import ModelError
from finetune.model.granite import SpeechModel

FULL_MODULE = re.compile(r"model\.projector|model\.encoder\.out|lm_head|model\.(encoder|language_model)\.layers\.\d+")


@dataclass(frozen=True)
class LoraSpec:
    """LoRA on the language model (arXiv 2106.09685); rank 0 means no LoRA.

    `dropout` and `variant` also apply to LoRA in the projector and the encoder.
    """

    rank: int
    alpha: float
    dropout: float
    variant: str  # lora, rslora (arXiv 2312.03732) or dora (arXiv 2402.09353)
    modules: list[str]


@dataclass(frozen=True)
class PartSpec:
    """Training mode of the projector or the encoder: frozen, full or lora; `rank` and `alpha` are for lora."""

    mode: str
    rank: int
    alpha: float


ALL = -1  # a number of layers or blocks


@dataclass(frozen=True)
class TrainableParts:
    """All trainable parts; a number of layers or blocks can be `ALL`."""

    lora: LoraSpec
    projector: PartSpec
    encoder: PartSpec
    encoder_blocks: int  # number of blocks, counted from the last block
    ctc_head: bool
    lm_head: bool
    llm_layers: int  # number of layers that train in full, counted from the last layer; the others get LoRA


@dataclass(frozen=True)
class PartSummary:
    """Number of trainable parameters and tensors in one part, and of the modules that own them or have LoRA."""

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
    """The last name components of the linear layers in a module."""
    return sorted({name.rpartition(".")[2] for name, layer in module.named_modules() if isinstance(layer, nn.Linear)})


def _lora_targets(model: SpeechModel, parts: TrainableParts) -> list[tuple[str, int, float]]:
    """Pattern, rank and alpha for each part with LoRA."""
    targets = []
    layers, blocks = len(model.language_model.layers) - parts.llm_layers, len(model.encoder.layers)
    if parts.lora.rank:
        if layers == 0:
            raise ModelError(
                f"parts.language_model.layers: all {parts.llm_layers} layers train in full, so no layer remains for "
                "LoRA; set parts.lora.rank to 0"
            )
        available = _linear_names(model.language_model.layers[0])
        if not parts.lora.modules:
            raise ModelError(
                f"parts.lora.modules: is empty; choose from {available}, or set parts.lora.rank to 0 for no LoRA"
            )
        if unknown := sorted(set(parts.lora.modules) - set(available)):
            raise ModelError(
                f"parts.lora.modules: {unknown} do not exist in the language model; choose from {available}"
            )
        targets.append((target_pattern(parts.lora.modules, layers), parts.lora.rank, parts.lora.alpha))
    if parts.projector.mode == "lora":
        pattern = rf"model\.projector\.(.+\.)?{_any(_linear_names(model.projector))}"
        targets.append((pattern, parts.projector.rank, parts.projector.alpha))
    if parts.encoder.mode == "lora":
        upper = _any(range(blocks - parts.encoder_blocks, blocks))
        pattern = rf"model\.encoder\.layers\.{upper}\..+\.{_any(_linear_names(model.encoder.layers))}"
        targets.append((pattern, parts.encoder.rank, parts.encoder.alpha))
    return targets


def _modules_with_mode(model: SpeechModel, parts: TrainableParts, mode: str) -> list[nn.Module]:
    """The modules that train in full (`full`), or the modules whose submodules can have LoRA (`lora`)."""
    layers, blocks = model.language_model.layers, model.encoder.layers
    num_lora_layers = len(layers) - parts.llm_layers
    modules = [model.projector] if parts.projector.mode == mode else []
    if parts.encoder.mode == mode:
        modules += blocks[len(blocks) - parts.encoder_blocks :]
    if mode == "lora":
        return [*modules, *(layers[:num_lora_layers] if parts.lora.rank else [])]
    heads = [model.encoder.out] * parts.ctc_head + [model.lm_head] * parts.lm_head
    return [*modules, *heads, *layers[num_lora_layers:]]


def full_module_of(name: str) -> str:
    """The module that trains in full and has this parameter, by name. Raises ModelError if there is none."""
    match = FULL_MODULE.match(name)
    if match is None:
        raise ModelError(f"{name}: not in a module that trains in full")
    return match[0]


def open_parts(model: SpeechModel, parts: TrainableParts) -> PeftModel | None:
    """Makes the parts of the recipe trainable, in place and in float32.

    Returns:
        PEFT's view of the model, or None without LoRA.

    Raises:
        ModelError: the model does not have these layers or modules, or cannot train a part in full.
    """
    layers, blocks = len(model.language_model.layers), len(model.encoder.layers)
    parts = replace(
        parts,
        llm_layers=layers if parts.llm_layers == ALL else parts.llm_layers,
        encoder_blocks=blocks if parts.encoder_blocks == ALL else parts.encoder_blocks,
    )
    if parts.llm_layers > layers:
        raise ModelError(f"parts.language_model.layers: {parts.llm_layers}, but the language model has only {layers}")
    if parts.encoder.mode != "frozen" and parts.encoder_blocks > blocks:
        raise ModelError(
            f"parts.encoder.blocks: {parts.encoder_blocks}, but the encoder has only {blocks}; set "
            "parts.encoder.blocks: all or at most that, also if train.goal chose the number"
        )
    if parts.lm_head and model.lm_head.weight is model.language_model.get_input_embeddings().weight:
        raise ModelError(
            f"parts.lm_head.mode: the head is tied to the input embeddings in {model.source}, and training it would "
            "change these too; set parts.lm_head.mode to frozen"
        )
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
        adapted = get_peft_model(model.hf, config)  # freezes all other parameters
        check_lora_targets(model, parts)
    for module in _modules_with_mode(model, parts, "full"):
        if not all(value.is_floating_point() for value in module.parameters()):
            raise ModelError(
                "parts.language_model.layers: quantized layers cannot train in full; set model.quantize "
                "to none, or use only LoRA"
            )
        module.requires_grad_(True).float()  # buffers too; small updates are lost in bfloat16
    for value in trained_parameters(model).values():
        value.data = value.data.float()
    return adapted


def check_lora_targets(model: SpeechModel, parts: TrainableParts) -> None:
    """Checks that LoRA is only inside the parts that the recipe names.

    Raises:
        ModelError: a module outside these parts has LoRA.
    """
    allowed = {
        id(module) for module_group in _modules_with_mode(model, parts, "lora") for module in module_group.modules()
    }
    unexpected = sorted(
        {
            re.sub(r"\.\d+\.", ".*.", name)
            for name, module in model.hf.named_modules()
            if hasattr(module, "lora_A") and id(module) not in allowed
        }
    )
    if unexpected:
        raise ModelError(f"LoRA was added to modules outside the parts that the recipe names: {', '.join(unexpected)}")


def part_of(name: str) -> str:
    """The part of a parameter, from its name; LoRA in the projector or the encoder belongs to that part."""
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


def trained_parameters(model: SpeechModel) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: value for name, value in model.hf.named_parameters() if value.requires_grad}


def summarize_parts(model: SpeechModel) -> list[PartSummary]:
    """Counts of the trainable parameters, one row for each part."""
    trained = trained_parameters(model)
    rows = []
    for part in dict.fromkeys(map(part_of, trained)):
        names = [name for name in trained if part_of(name) == part]
        owners = {re.split(r"\.lora_|\.[^.]+$", name)[0] for name in names}
        rows.append(PartSummary(part, len(owners), len(names), sum(trained[name].numel() for name in names)))
    return rows


def set_mode(model: SpeechModel, training: bool) -> None:
    """Sets all modules to eval mode; in training, only LoRA's dropout and checkpointed LLM layers are in train mode.

    BatchNorm stays in eval mode even if its block trains: its running statistics belong to the base model, an adapter
    does not store them, and other engines fold them into the convolution.

    With bfloat16 weights training runs under autocast. PEFT's own cast of LoRA inputs would then only copy them from
    bfloat16 to float32 and back, and keep the copies for the backward pass, so it is disabled. DoRA needs the cast,
    because it computes its norms in float32.
    """
    model.eval()
    for module in model.hf.modules():
        if hasattr(module, "lora_dropout"):
            module.training = training  # DoRA reads the mode of the layer itself
            module.lora_dropout.train(training)
            module.cast_input_dtype_enabled = not training or bool(module.lora_magnitude_vector)
        if getattr(module, "gradient_checkpointing", False):
            module.training = training
