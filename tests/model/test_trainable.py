"""Trainable parts: the right layers, ranks and modes, and nothing else."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import summed_loss
from torch import nn
from trainable_cases import ALL, CASES, FULL, LORA, LORA_EVERYWHERE, NOTHING, Load, adapted_layers, logits, perturb

from finetune.core.config import MachineSection
from finetune.core.errors import ModelError
from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance
from finetune.inference.recognize import recognize
from finetune.model import trainable
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import (
    LoraSpec,
    PartSpec,
    PartSummary,
    TrainableParts,
    check_lora_targets,
    open_parts,
    part_of,
    set_mode,
    summarize_parts,
    target_pattern,
    trained_parameters,
)
from finetune.training.parts import checkpoint_activations


def test_lora_goes_into_the_language_model_only(model: Load) -> None:
    """`up_proj` and `down_proj` occur in the encoder too."""
    granite = model()
    open_parts(granite, LORA)
    adapted = adapted_layers(granite)
    assert len(adapted) == 7 * len(granite.language_model.layers)
    assert all(name.startswith("model.language_model.layers.") for name in adapted)
    assert {part_of(name) for name in trained_parameters(granite)} == {"lora"}


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_linear_layers_get_the_rank_and_scale_of_their_part(model: Load, variant: str) -> None:
    granite = model()
    blocks = range(len(granite.encoder.layers) - 2, len(granite.encoder.layers))
    expected = {
        name
        for name, module in granite.hf.named_modules()
        if isinstance(module, nn.Linear)
        and (
            name.startswith(("model.language_model.", "model.projector."))
            or name.startswith(tuple(f"model.encoder.layers.{block}." for block in blocks))
        )
    }
    open_parts(granite, replace(LORA_EVERYWHERE, lora=LoraSpec(4, 8.0, 0.0, variant, ALL)))
    adapted = adapted_layers(granite)
    assert set(adapted) == expected
    assert sum(name.startswith("model.encoder.") for name in adapted) == 2 * 7  # feed forwards, to_q, to_kv, to_out
    ranks = {"lora": (4, 8.0), "projector": (2, 6.0), "encoder": (8, 4.0)}
    for name, layer in adapted.items():
        rank, alpha = ranks[part_of(f"{name}.lora_A")]
        assert layer.lora_A["default"].weight.shape[0] == layer.lora_B["default"].weight.shape[1] == rank
        assert layer.scaling["default"] == pytest.approx(alpha / (rank**0.5 if variant == "rslora" else rank))
        assert ("default" in layer.lora_magnitude_vector) == (variant == "dora")


def test_layers_that_train_in_full_get_no_lora(model: Load) -> None:
    granite = model()
    open_parts(granite, replace(LORA, llm_layers=2))
    last = len(granite.language_model.layers) - 2
    for index, layer in enumerate(granite.language_model.layers):
        names = {name for name, value in layer.named_parameters() if value.requires_grad}
        assert names == {name for name, _ in layer.named_parameters() if index >= last or "lora_" in name}
        assert any("lora_" in name for name in names) == (index < last)


@pytest.mark.parametrize(
    "name",
    [
        "model.encoder.layers.0.ff1.up_proj",
        "model.encoder.layers.0.mlp.up_proj",
        "model.projector.qformer.encoder.layer.0.attention.attention.query",
        "model.projector.linear",
        "lm_head",
        "model.language_model.layers.0.mlp.up_proj_extra",
        "model.language_model.layers.0.mlp.xup_proj",
        "model.language_model.layers.5.mlp.up_proj",
        "model.language_model.layers.10.mlp.up_proj",
    ],
)
def test_target_pattern_matches_nothing_else(name: str) -> None:
    pattern = target_pattern([*ALL, "query", "linear"], 5)
    assert not re.fullmatch(pattern, name)
    assert re.fullmatch(pattern, "model.language_model.layers.0.mlp.up_proj")


@pytest.mark.parametrize("modules", [["q_proj", "qproj"], ["query"], ["to_q"], ["act_fn"], ["lm_head"], [".*"], []])
def test_unknown_modules_are_refused_and_known_ones_listed(model: Load, modules: list[str]) -> None:
    with pytest.raises(ModelError, match=r"parts\.lora\.modules: .*gate_proj"):
        open_parts(model(), replace(NOTHING, lora=LoraSpec(4, 8.0, 0.0, "lora", modules)))


def test_an_empty_list_of_modules_is_named_with_the_setting_for_no_lora(model: Load) -> None:
    with pytest.raises(ModelError, match=r"parts\.lora\.modules: is empty; .* set parts\.lora\.rank to 0 for no LoRA"):
        open_parts(model(), replace(NOTHING, lora=LoraSpec(4, 8.0, 0.0, "lora", [])))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            replace(NOTHING, encoder=FULL, encoder_blocks=99),
            r"parts\.encoder\.blocks: 99, but the encoder has only 6; set parts\.encoder\.blocks: all",
        ),
        (replace(NOTHING, encoder=PartSpec("lora", 2, 4.0), encoder_blocks=99), r"parts\.encoder\.blocks: 99"),
        (replace(NOTHING, llm_layers=99), r"parts\.language_model\.layers: 99, but the language model has only 5"),
        (replace(LORA, llm_layers=5), r"parts\.language_model\.layers: all 5 .* set parts\.lora\.rank to 0"),
    ],
)
def test_more_layers_than_exist_are_refused(model: Load, parts: TrainableParts, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_parts(model(), parts)


def test_all_layers_and_blocks_can_train(model: Load) -> None:
    granite = model()
    open_parts(granite, replace(NOTHING, encoder=FULL, encoder_blocks=trainable.ALL, llm_layers=trainable.ALL))
    for layer in (*granite.encoder.layers, *granite.language_model.layers):
        assert all(value.requires_grad for value in layer.parameters())
    assert not granite.projector.query.requires_grad
    with pytest.raises(ModelError, match=r"set parts\.lora\.rank to 0"):
        open_parts(model(), replace(LORA, llm_layers=trainable.ALL))


def test_tied_and_quantized_weights_cannot_train_in_full(model: Load) -> None:
    granite = model()
    granite.lm_head.weight = granite.language_model.get_input_embeddings().weight
    with pytest.raises(ModelError, match=r"parts\.lm_head\.mode: .* is tied .* set parts\.lm_head\.mode to frozen"):
        open_parts(granite, replace(NOTHING, lm_head=True))
    projection = granite.language_model.layers[-1].mlp.up_proj
    projection.weight = nn.Parameter(
        torch.zeros(4, dtype=torch.uint8), requires_grad=False
    )  # the format of bitsandbytes
    with pytest.raises(ModelError, match=r"quantized .* model\.quantize"):
        open_parts(granite, replace(NOTHING, llm_layers=1))


def test_lora_outside_the_named_parts_is_refused(model: Load) -> None:
    """PEFT adds LoRA to all modules that match a bare name."""
    granite = model()
    get_peft_model(granite.hf, LoraConfig(r=2, target_modules=["up_proj", "query"]))
    with pytest.raises(ModelError) as caught:
        check_lora_targets(granite, LORA)
    assert "model.encoder.layers.*.ff1.up_proj" in str(caught.value)
    assert "model.projector.qformer.encoder.layer.*.attention.attention.query" in str(caught.value)
    assert "language_model" not in str(caught.value)
    parts = replace(LORA_EVERYWHERE, encoder_blocks=len(granite.encoder.layers))
    check_lora_targets(granite, parts)
    with pytest.raises(ModelError, match=r"encoder\.layers"):
        check_lora_targets(granite, replace(parts, encoder_blocks=1))


@pytest.mark.parametrize(
    "name, part",
    [
        ("model.encoder.layers.3.attn.to_q.lora_A.default.weight", "encoder"),
        ("model.encoder.out.weight", "ctc_head"),
        ("model.encoder.out_mid.weight", "encoder"),
        ("model.projector.qformer.encoder.layer.0.x.weight", "projector"),
        ("model.projector.linear.lora_magnitude_vector.default.weight", "projector"),
        ("lm_head.weight", "lm_head"),
        ("model.language_model.layers.0.mlp.up_proj.lora_B.default.weight", "lora"),
        ("model.language_model.layers.0.mlp.up_proj.weight", "language_model"),
    ],
)
def test_part_of_parameter_name(name: str, part: str) -> None:
    assert part_of(name) == part


def test_summary_counts_each_part_once(model: Load) -> None:
    granite = model()
    open_parts(granite, CASES["all parts"])
    rows = {row.part: row for row in summarize_parts(granite)}
    assert set(rows) == {"lora", "projector", "encoder", "ctc_head", "lm_head", "language_model"}
    assert rows["lora"].modules == 7 * 3 and rows["lora"].tensors == 2 * 7 * 3
    assert rows["ctc_head"] == PartSummary("ctc_head", 1, 2, sum(p.numel() for p in granite.encoder.out.parameters()))
    for part, module in (("projector", granite.projector), ("encoder", granite.encoder.layers[-2:])):
        assert rows[part].parameters == sum(p.numel() for p in module.parameters())
        assert rows[part].tensors == len(list(module.parameters()))
        assert rows[part].modules == sum(bool(list(child.parameters(recurse=False))) for child in module.modules())
    assert sum(row.parameters for row in rows.values()) == sum(
        value.numel() for value in granite.parameters() if value.requires_grad
    )


@pytest.mark.parametrize("case", ["all parts", "dora everywhere"])
def test_trainable_parameters_are_float32_on_a_bfloat16_base(nano: Path, case: str) -> None:
    granite = load_model(str(nano), "bfloat16")
    open_parts(granite, CASES[case])
    assert {value.dtype for value in trained_parameters(granite).values()} == {torch.float32}
    assert granite.encoder.input_linear.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_lora_input_cast_is_disabled_and_changes_no_gradient(nano: Path, clips: list[Utterance], variant: str) -> None:
    """Under autocast, PEFT's cast of LoRA inputs to float32 and back has no effect on the gradients."""
    granite = load_model(str(nano), "bfloat16")
    open_parts(granite, replace(NOTHING, lora=LoraSpec(4, 8.0, 0.0, variant, ALL)))
    perturb(granite)
    set_mode(granite, training=True)
    gradients: list[dict[str, torch.Tensor | None]] = []
    for cast in (variant == "dora", True):
        assert all(layer.cast_input_dtype_enabled == cast for layer in adapted_layers(granite).values())
        with torch.autocast("cpu", torch.bfloat16):
            summed_loss(granite, clips[:2]).backward()  # type: ignore[no-untyped-call]
        gradients.append({name: value.grad for name, value in trained_parameters(granite).items()})
        for name, value in trained_parameters(granite).items():
            assert value.grad is not None and value.grad.dtype == torch.float32 and value.grad.abs().sum() > 0, name
            value.grad = None
        for layer in adapted_layers(granite).values():
            layer.cast_input_dtype_enabled = True
    for name, gradient in gradients[0].items():
        again = gradients[1][name]
        assert gradient is not None and again is not None and torch.equal(gradient, again), name


def test_4bit_without_cuda_is_refused(nano: Path) -> None:
    with pytest.raises(ModelError, match="needs a CUDA GPU"):
        load_model(str(nano), "float32", "cpu", None, "4bit")


def test_batch_norm_and_dropout_stay_in_eval_mode(model: Load) -> None:
    """A BatchNorm in train mode would change its statistics, and no adapter stores them."""
    granite = model()
    parts = replace(LORA_EVERYWHERE, lora=LoraSpec(4, 8.0, 0.3, "lora", ["q_proj"]))
    open_parts(granite, parts)
    set_mode(granite, training=True)
    norms = [module for module in granite.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) == len(granite.encoder.layers)
    assert not any(module.training for module in norms)
    dropouts = {name: module for name, module in granite.hf.named_modules() if isinstance(module, nn.Dropout)}
    active = [name for name, module in dropouts.items() if module.training]
    assert len(active) == len(adapted_layers(granite)) < len(dropouts)
    assert all("lora_dropout" in name for name in active)
    set_mode(granite, training=False)
    assert not any(module.training for module in granite.modules())


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
@pytest.mark.parametrize("part", ["language_model", "projector", "encoder"])
def test_dropout_is_active_in_training_only(model: Load, clips: list[Utterance], variant: str, part: str) -> None:
    granite = model()
    open_parts(
        granite,
        replace(
            NOTHING,
            lora=LoraSpec(4 * (part == "language_model"), 8.0, 0.5, variant, ALL),
            **{part: PartSpec("lora", 4, 8.0)} if part != "language_model" else {},
        ),
    )
    perturb(granite)
    for training in (True, False):
        set_mode(granite, training=training)
        torch.manual_seed(0)
        first, second = logits(granite, clips), logits(granite, clips)
        assert torch.equal(first, second) != training


def test_gradient_checkpointing_gives_the_same_gradients(model: Load, clips: list[Utterance]) -> None:
    gradients = []
    for checkpointing in (False, True):
        granite = model()
        torch.manual_seed(0)
        open_parts(granite, LORA)
        perturb(granite)
        runs = 0

        def counted(*_: object) -> None:
            nonlocal runs
            runs += 1

        granite.language_model.layers[0].mlp.register_forward_pre_hook(counted)
        if checkpointing:
            granite.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        set_mode(granite, training=True)
        summed_loss(granite, clips[:2]).backward()  # type: ignore[no-untyped-call]
        assert runs == (2 if checkpointing else 1), "a checkpointed layer runs again in the backward pass"
        gradients.append({name: value.grad for name, value in trained_parameters(granite).items()})
        set_mode(granite, training=False)  # as in validation between epochs
        assert recognize(granite, clips[:1], "x", DecodingOptions(max_new_tokens=3))
    for name, gradient in gradients[0].items():
        again = gradients[1][name]
        assert gradient is not None and again is not None
        assert torch.allclose(gradient, again, rtol=1e-4, atol=1e-6), name


class Passes:
    """Counts the forward passes of each encoder layer."""

    def __init__(self, model: SpeechModel) -> None:
        self.counts = [0] * len(model.encoder.layers)
        for index, layer in enumerate(model.encoder.layers):
            layer.ff1.register_forward_pre_hook(partial(self._count, index))

    def _count(self, index: int, *_: object) -> None:
        self.counts[index] += 1


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_encoder_checkpointing_gives_the_same_bits(model: Load, clips: list[Utterance], mode: str) -> None:
    """Loss and gradients, also with dropout. Layers that train run again in the backward pass, and no others."""
    losses, gradients = list[torch.Tensor](), list[dict[str, torch.Tensor]]()
    lora = LoraSpec(4, 8.0, 0.5 if mode == "lora" else 0.0, "lora", ALL)
    for checkpointing in (False, True):
        granite = model()
        torch.manual_seed(0)
        open_parts(granite, replace(LORA, lora=lora, encoder=PartSpec(mode, 4, 8.0), encoder_blocks=2))
        perturb(granite)
        passes = Passes(granite)
        checkpoint_activations(granite, MachineSection(encoder_checkpointing=checkpointing))
        set_mode(granite, training=True)
        torch.manual_seed(1)
        loss = summed_loss(granite, clips[:2])
        loss.backward()  # type: ignore[no-untyped-call]
        assert passes.counts == [*[1] * (len(passes.counts) - 2), *[1 + checkpointing] * 2]
        losses.append(loss.detach())
        gradients.append(
            {name: value.grad for name, value in trained_parameters(granite).items() if value.grad is not None}
        )
    set_mode(granite, training=False)
    before = sum(passes.counts)
    assert recognize(granite, clips[:1], "x", DecodingOptions(max_new_tokens=1))
    assert sum(passes.counts) - before == len(passes.counts), "no layer runs twice without a backward pass"
    assert torch.equal(*losses) and gradients[0].keys() == gradients[1].keys()
    assert any("encoder" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
