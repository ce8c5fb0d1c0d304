"""What trains, what does not, and that an adapter saved, loaded or merged is the one that was trained."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import batch, summed_loss
from torch import Tensor, nn

from finetune.data.manifest import Utterance
from finetune.decoding.recognize import DecodeOptions, recognize
from finetune.errors import CheckpointError, ModelError
from finetune.model.granite import GraniteSpeech, load_model
from finetune.model.lora import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    WHOLE_WEIGHTS,
    add_lora,
    count_trained,
    load_adapter,
    merge,
    open_parts,
    part_of,
    save_adapter,
    set_mode,
    target_pattern,
    trained_parameters,
)

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Load = Callable[[], GraniteSpeech]


def shaken(model: GraniteSpeech, rank: int = 4, projector: bool = False, encoder_blocks: int = 0) -> PeftModel | None:
    """Opens parts and moves all that trains, as training would (LoRA's B starts at zero)."""
    adapted = add_lora(model, rank, 8.0, 0.0, ALL) if rank else None
    open_parts(model, projector, encoder_blocks)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return adapted


@torch.inference_mode()
def logits(model: GraniteSpeech, clips: list[Utterance]) -> Tensor:
    features, frames, ids, _ = batch(model, clips[:2])
    return model.logits(model(features, frames, ids)[0])


@torch.inference_mode()
def ctc_logits(model: GraniteSpeech, clips: list[Utterance]) -> Tensor:
    features, frames, _, _ = batch(model, clips[:1])
    return model.ctc_logits(model.listen(features, frames).states)


# --- what is opened ---


def test_lora_goes_into_the_language_model_only(model: Load) -> None:
    """`up_proj` and `down_proj` stand in the encoder too."""
    granite = model()
    add_lora(granite, 4, 8.0, 0.0, ALL)
    adapted = {name.rpartition(".lora_A")[0] for name, _ in granite.hf.named_parameters() if ".lora_A" in name}
    assert len(adapted) == 7 * len(granite.language_model.layers)
    assert all(name.startswith("model.language_model.layers.") for name in adapted)
    for part in (granite.encoder, granite.projector, granite.lm_head):
        assert not any("lora_" in name for name, _ in part.named_parameters())
        assert not any(parameter.requires_grad for parameter in part.parameters())


@pytest.mark.parametrize("name", [
    "model.encoder.layers.0.ff1.up_proj", "model.encoder.layers.0.mlp.up_proj",
    "model.projector.qformer.encoder.layer.0.attention.attention.query",
    "model.projector.linear", "lm_head", "model.language_model.layers.0.mlp.up_proj_extra",
    "model.language_model.layers.0.mlp.xup_proj"])
def test_the_pattern_leaves_all_else_alone(name: str) -> None:
    assert not re.fullmatch(target_pattern([*ALL, "query", "linear"]), name)


@pytest.mark.parametrize("modules", [["q_proj", "qproj"], ["query"], ["linear"], ["act_fn"], ["lm_head"], []])
def test_unknown_modules_are_refused_with_those_there_are(model: Load, modules: list[str]) -> None:
    with pytest.raises(ModelError, match=r"train\.lora_modules: .*gate_proj"):
        add_lora(model(), 4, 8.0, 0.0, modules)


def test_more_encoder_blocks_than_there_are_are_refused(model: Load) -> None:
    with pytest.raises(ModelError, match=r"train\.encoder_blocks: 99"):
        open_parts(model(), False, 99)


def test_the_count_names_each_part_once(model: Load) -> None:
    granite = model()
    add_lora(granite, 4, 8.0, 0.0, ["q_proj", "v_proj"])
    open_parts(granite, projector=True, encoder_blocks=1)
    table = count_trained(granite)
    opened = [*granite.encoder.layers[-1].parameters(), *granite.encoder.out.parameters()]
    assert table["encoder"] == (len(opened), sum(p.numel() for p in opened))
    assert table["projector"][1] == sum(p.numel() for p in granite.projector.parameters())
    assert table["lora"][0] == 4 * len(granite.language_model.layers)
    assert set(table) == {"lora", "projector", "encoder"}
    assert sum(count for _, count in table.values()) == sum(p.numel() for p in trained_parameters(granite).values())


def test_what_trains_is_float32_on_a_bfloat16_base(nano: Path) -> None:
    granite = load_model(str(nano), "bfloat16")
    add_lora(granite, 4, 8.0, 0.0, ["q_proj"])
    open_parts(granite, projector=True, encoder_blocks=1)
    assert {value.dtype for value in trained_parameters(granite).values()} == {torch.float32}
    assert granite.lm_head.weight.dtype == torch.bfloat16


# --- while it trains ---


def everything(granite: GraniteSpeech) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {name: value.detach() for name, value in [*granite.hf.named_parameters(), *granite.hf.named_buffers()]}


@pytest.mark.parametrize(("rank", "projector", "encoder_blocks"), [(4, False, 0), (4, True, 2), (0, True, 0)])
def test_training_changes_what_trains_and_nothing_else(
        model: Load, clips: list[Utterance], rank: int, projector: bool, encoder_blocks: int) -> None:
    granite = model()
    if rank:
        add_lora(granite, rank, 8.0, 0.0, ALL)
    open_parts(granite, projector, encoder_blocks)
    trained = trained_parameters(granite)
    before = {name: value.clone() for name, value in everything(granite).items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, weight_decay=0.0)
    set_mode(granite, training=True)
    for _ in range(2):  # in the first step only LoRA's B has a gradient
        summed_loss(granite, clips[:3]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    after = everything(granite)
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    # The final CTC logits are no part of this loss, but `out` also feeds the middle layer's back.
    assert changed == set(trained)
    assert any("running_mean" in name for name in after)


def test_batch_norm_and_dropout_stay_in_eval_mode(model: Load) -> None:
    """A frozen BatchNorm in train mode would drift, and no adapter would hold the drift."""
    granite = model()
    add_lora(granite, 4, 8.0, 0.3, ["q_proj"])
    open_parts(granite, projector=True, encoder_blocks=2)
    set_mode(granite, training=True)
    norms = [module for module in granite.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) == len(granite.encoder.layers)
    assert not any(module.training for module in norms)
    dropouts = {name: module for name, module in granite.hf.named_modules() if isinstance(module, nn.Dropout)}
    active = [name for name, module in dropouts.items() if module.training]
    assert len(active) == len(granite.language_model.layers) < len(dropouts)
    assert all("lora_dropout" in name for name in active)
    set_mode(granite, training=False)
    assert not any(module.training for module in granite.modules())


def test_gradient_checkpointing_gives_the_same_gradients(model: Load, clips: list[Utterance]) -> None:
    found = []
    for saving in (False, True):
        granite = model()
        torch.manual_seed(0)
        shaken(granite)
        runs = 0

        def counted(*_: object) -> None:
            nonlocal runs
            runs += 1

        granite.language_model.layers[0].mlp.register_forward_pre_hook(counted)
        if saving:
            granite.language_model.gradient_checkpointing_enable({"use_reentrant": False})
            granite.language_model.enable_input_require_grads()
        set_mode(granite, training=True)
        summed_loss(granite, clips[:2]).backward()  # type: ignore[no-untyped-call]
        assert runs == (2 if saving else 1), "the layer runs again in the backward pass, or saves nothing"
        found.append({name: value.grad for name, value in trained_parameters(granite).items()})
        set_mode(granite, training=False)  # as between epochs
        assert recognize(granite, clips[:1], DecodeOptions("x", True, 60.0, 3))
    for name, gradient in found[0].items():
        again = found[1][name]
        assert gradient is not None and again is not None
        assert torch.allclose(gradient, again, rtol=1e-4, atol=1e-6), name


# --- saved, loaded, merged ---


@pytest.mark.parametrize(("rank", "projector", "encoder_blocks"), [(4, False, 0), (4, True, 2), (0, True, 0)])
def test_an_adapter_comes_back(model: Load, clips: list[Utterance], tmp_path: Path,
                               rank: int, projector: bool, encoder_blocks: int) -> None:
    granite = model()
    plain = logits(granite, clips)
    adapted = shaken(granite, rank, projector, encoder_blocks)
    save_adapter(granite, adapted, tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert ({ADAPTER_CONFIG, ADAPTER_WEIGHTS} <= written) == bool(rank)
    assert (WHOLE_WEIGHTS in written) == bool(projector or encoder_blocks)
    assert any(value.requires_grad for value in granite.parameters()), "saving ends no training"

    again = model()
    load_adapter(again, tmp_path)
    assert not any(value.requires_grad for value in again.parameters())
    assert not any(module.training for module in again.modules())
    assert not torch.allclose(logits(granite, clips), plain, atol=1e-3), "the shaking is seen at all"
    assert torch.allclose(logits(again, clips), logits(granite, clips), atol=1e-5)
    assert torch.allclose(ctc_logits(again, clips), ctc_logits(granite, clips), atol=1e-5)


def test_the_adapter_is_one_that_peft_reads(model: Load, tmp_path: Path, nano: Path) -> None:
    granite = model()
    save_adapter(granite, shaken(granite), tmp_path)
    config = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (4, 8.0, True)
    assert config["base_model_name_or_path"] == str(nano)
    opened = PeftModel.from_pretrained(model().hf, str(tmp_path))
    theirs = {n: p for n, p in opened.named_parameters() if "lora_" in n}
    ours = {n: p for n, p in granite.hf.named_parameters() if "lora_" in n}
    assert len(theirs) == len(ours) > 0
    for name, value in ours.items():
        assert torch.equal(value, theirs[f"base_model.model.{name}"]), name


def test_merging_saving_and_opening_keeps_the_logits(model: Load, clips: list[Utterance], tmp_path: Path) -> None:
    granite = model()
    adapted = shaken(granite, 4, projector=True, encoder_blocks=1)
    before, ctc_before = logits(granite, clips), ctc_logits(granite, clips)
    merge(granite, adapted)
    assert not any("lora_" in name for name, _ in granite.hf.named_parameters())
    assert float((logits(granite, clips) - before).abs().max()) < 1e-4
    granite.hf.save_pretrained(tmp_path)
    granite.tokenizer.save_pretrained(tmp_path)
    with safe_open(str(tmp_path / "model.safetensors"), "pt") as weights:
        names = list(weights.keys())
    assert all(part_of("model." + name) in ("encoder", "projector", "language_model") for name in names)
    assert [name for name in names if "base_layer" in name or "lora" in name] == []
    again = load_model(str(tmp_path), "float32")
    assert float((logits(again, clips) - before).abs().max()) < 1e-4
    assert torch.allclose(ctc_logits(again, clips), ctc_before, atol=1e-5)


def test_an_adapter_that_is_not_there_or_damaged_is_refused(model: Load, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no adapter there"):
        load_adapter(model(), tmp_path)
    granite = model()
    save_adapter(granite, shaken(granite, 4, projector=True), tmp_path)
    config, lora, whole = ((tmp_path / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, WHOLE_WEIGHTS))
    kept = {path: path.read_bytes() for path in (config, lora, whole)}
    for path in kept:
        path.write_bytes(kept[path][: len(kept[path]) // 2])
        with pytest.raises(CheckpointError, match="damaged"):
            load_adapter(model(), tmp_path)
        path.write_bytes(kept[path])
    config.unlink()
    with pytest.raises(CheckpointError):
        load_adapter(model(), tmp_path)


def test_an_adapter_of_other_shape_is_refused(model: Load, tmp_path: Path) -> None:
    granite = model()
    save_adapter(granite, shaken(granite, 4, projector=True), tmp_path)
    lora, whole = tmp_path / ADAPTER_WEIGHTS, tmp_path / WHOLE_WEIGHTS
    weights = load_file(lora)
    first = next(iter(weights))
    for changed in ({k: v for k, v in weights.items() if k != first},  # one less: it would stay at random
                    {**weights, "base_model.model.model.language_model.layers.99.x": torch.zeros(2)},
                    {**weights, first: weights[first][:1].contiguous()}):
        save_file(changed, lora)
        with pytest.raises(CheckpointError):
            load_adapter(model(), tmp_path)
    save_file(weights, lora)
    save_file({"model.projector.nothing": torch.zeros(2)}, whole)
    with pytest.raises(CheckpointError, match="does not fit the base model"):
        load_adapter(model(), tmp_path)
