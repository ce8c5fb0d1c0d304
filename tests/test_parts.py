"""What trains, at which rank, and that nothing else does: by the names, by the count, and by the bits after a step."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support import batch, summed_loss
from torch import Tensor, nn
from transformers import GraniteSpeechConfig

from finetune.data.manifest import Utterance
from finetune.decoding.recognize import DecodeOptions, recognize
from finetune.errors import ModelError
from finetune.model.granite import GraniteSpeech, load_model
from finetune.model.outline import count_parts, on_meta, outline
from finetune.model.parts import (
    Lora,
    Part,
    Parts,
    Row,
    check_changed,
    check_landing,
    fingerprints,
    open_parts,
    part_of,
    set_mode,
    table,
    target_pattern,
    trained_parameters,
    with_gradient,
)

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FROZEN, FULL = Part("frozen", 1, 1.0), Part("full", 1, 1.0)
NOTHING = Parts(Lora(0, 8.0, 0.0, "lora", ALL), FROZEN, FROZEN, 2, False, False, 0)
LORA = replace(NOTHING, lora=Lora(4, 8.0, 0.0, "lora", ALL))
LORA_EVERYWHERE = replace(LORA, projector=Part("lora", 2, 6.0), encoder=Part("lora", 8, 4.0))
CASES = {
    "lora": LORA,
    "rslora everywhere": replace(LORA_EVERYWHERE, lora=Lora(4, 8.0, 0.0, "rslora", ALL)),
    "dora everywhere": replace(LORA_EVERYWHERE, lora=Lora(4, 8.0, 0.0, "dora", ALL)),
    "all parts": replace(LORA, projector=FULL, encoder=FULL, ctc_head=True, lm_head=True, llm_layers=2),
    "no lora": replace(NOTHING, projector=FULL),
    "lora in the encoder alone": replace(NOTHING, encoder=Part("lora", 2, 4.0)),
}
Load = Callable[[], GraniteSpeech]


def adapted_layers(model: GraniteSpeech) -> dict[str, nn.Module]:
    """The layers that carry LoRA, by name."""
    return {name: module for name, module in model.hf.named_modules() if hasattr(module, "lora_A")}


# --- what is opened ---


def test_lora_goes_into_the_language_model_only(model: Load) -> None:
    """`up_proj` and `down_proj` stand in the encoder too."""
    granite = model()
    open_parts(granite, LORA)
    found = adapted_layers(granite)
    assert len(found) == 7 * len(granite.language_model.layers)
    assert all(name.startswith("model.language_model.layers.") for name in found)
    assert {part_of(name) for name in trained_parameters(granite)} == {"lora"}


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_every_linear_layer_of_a_part_gets_its_own_rank_and_scale(model: Load, variant: str) -> None:
    granite = model()
    blocks = range(len(granite.encoder.layers) - 2, len(granite.encoder.layers))
    wanted = {name for name, module in granite.hf.named_modules() if isinstance(module, nn.Linear) and (
        name.startswith(("model.language_model.", "model.projector."))
        or name.startswith(tuple(f"model.encoder.layers.{block}." for block in blocks)))}
    open_parts(granite, replace(LORA_EVERYWHERE, lora=Lora(4, 8.0, 0.0, variant, ALL)))
    found = adapted_layers(granite)
    assert set(found) == wanted
    assert sum(name.startswith("model.encoder.") for name in found) == 2 * 7  # feed forwards, to_q, to_kv, to_out
    ranks = {"lora": (4, 8.0), "projector": (2, 6.0), "encoder": (8, 4.0)}
    for name, layer in found.items():
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


@pytest.mark.parametrize("name", [
    "model.encoder.layers.0.ff1.up_proj", "model.encoder.layers.0.mlp.up_proj",
    "model.projector.qformer.encoder.layer.0.attention.attention.query",
    "model.projector.linear", "lm_head", "model.language_model.layers.0.mlp.up_proj_extra",
    "model.language_model.layers.0.mlp.xup_proj", "model.language_model.layers.5.mlp.up_proj",
    "model.language_model.layers.10.mlp.up_proj"])
def test_the_pattern_leaves_all_else_alone(name: str) -> None:
    pattern = target_pattern([*ALL, "query", "linear"], 5)
    assert not re.fullmatch(pattern, name)
    assert re.fullmatch(pattern, "model.language_model.layers.0.mlp.up_proj")


@pytest.mark.parametrize("modules", [["q_proj", "qproj"], ["query"], ["to_q"], ["act_fn"], ["lm_head"], [".*"], []])
def test_unknown_modules_are_refused_with_those_there_are(model: Load, modules: list[str]) -> None:
    with pytest.raises(ModelError, match=r"parts\.lora\.modules: .*gate_proj"):
        open_parts(model(), replace(NOTHING, lora=Lora(4, 8.0, 0.0, "lora", modules)))


@pytest.mark.parametrize(("parts", "message"), [
    (replace(NOTHING, encoder=FULL, encoder_blocks=99), r"parts\.encoder\.blocks: 99, but the encoder has 6"),
    (replace(NOTHING, encoder=Part("lora", 2, 4.0), encoder_blocks=99), r"parts\.encoder\.blocks: 99"),
    (replace(NOTHING, llm_layers=99), r"parts\.language_model\.layers: 99, but the language model has 5"),
    (replace(LORA, llm_layers=5), r"parts\.language_model\.layers: all 5 .* set parts\.lora\.rank to 0")])
def test_layers_that_there_are_not_are_refused(model: Load, parts: Parts, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        open_parts(model(), parts)


def test_what_cannot_train_in_full_is_refused(model: Load) -> None:
    granite = model()
    granite.lm_head.weight = granite.language_model.get_input_embeddings().weight
    with pytest.raises(ModelError, match=r"parts\.lm_head: .* tied"):
        open_parts(granite, replace(NOTHING, lm_head=True))
    projection = granite.language_model.layers[-1].mlp.up_proj
    projection.weight = nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)  # as bitsandbytes keeps it
    with pytest.raises(ModelError, match=r"quantized .* model\.quantize"):
        open_parts(granite, replace(NOTHING, llm_layers=1))


def test_lora_outside_the_parts_named_is_caught(model: Load) -> None:
    """What PEFT does with a bare name."""
    granite = model()
    get_peft_model(granite.hf, LoraConfig(r=2, target_modules=["up_proj", "query"]))
    with pytest.raises(ModelError) as caught:
        check_landing(granite, LORA)
    assert "model.encoder.layers.*.ff1.up_proj" in str(caught.value)
    assert "model.projector.qformer.encoder.layer.*.attention.attention.query" in str(caught.value)
    assert "language_model" not in str(caught.value)
    whole = replace(LORA_EVERYWHERE, encoder_blocks=len(granite.encoder.layers))
    check_landing(granite, whole)
    with pytest.raises(ModelError, match=r"encoder\.layers"):
        check_landing(granite, replace(whole, encoder_blocks=1))


@pytest.mark.parametrize("name, part", [
    ("model.encoder.layers.3.attn.to_q.lora_A.default.weight", "encoder"), ("model.encoder.out.weight", "ctc_head"),
    ("model.encoder.out_mid.weight", "encoder"), ("model.projector.qformer.encoder.layer.0.x.weight", "projector"),
    ("model.projector.linear.lora_magnitude_vector.default.weight", "projector"), ("lm_head.weight", "lm_head"),
    ("model.language_model.layers.0.mlp.up_proj.lora_B.default.weight", "lora"),
    ("model.language_model.layers.0.mlp.up_proj.weight", "language_model")])
def test_a_name_tells_its_part(name: str, part: str) -> None:
    assert part_of(name) == part


def test_the_table_counts_each_part_once(model: Load) -> None:
    granite = model()
    open_parts(granite, CASES["all parts"])
    rows = {row.part: row for row in table(granite)}
    assert set(rows) == {"lora", "projector", "encoder", "ctc_head", "lm_head", "language_model"}
    assert rows["lora"].modules == 7 * 3 and rows["lora"].tensors == 2 * 7 * 3
    assert rows["ctc_head"] == Row("ctc_head", 1, 2, sum(p.numel() for p in granite.encoder.out.parameters()))
    for part, whole in (("projector", granite.projector), ("encoder", granite.encoder.layers[-2:])):
        assert rows[part].parameters == sum(p.numel() for p in whole.parameters())
        assert rows[part].tensors == len(list(whole.parameters()))
        assert rows[part].modules == sum(bool(list(module.parameters(recurse=False))) for module in whole.modules())
    assert sum(row.parameters for row in rows.values()) == sum(
        value.numel() for value in granite.parameters() if value.requires_grad)


@pytest.mark.parametrize("case", ["all parts", "dora everywhere"])
def test_what_trains_is_float32_on_a_bfloat16_base(nano: Path, case: str) -> None:
    granite = load_model(str(nano), "bfloat16")
    open_parts(granite, CASES[case])
    assert {value.dtype for value in trained_parameters(granite).values()} == {torch.float32}
    assert granite.encoder.input_linear.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_no_copies_of_what_goes_into_lora_are_kept(nano: Path, clips: list[Utterance], variant: str) -> None:
    """Under autocast PEFT's cast to float32 and autocast's back change no gradient of LoRA, and are left out."""
    granite = load_model(str(nano), "bfloat16")
    open_parts(granite, replace(NOTHING, lora=Lora(4, 8.0, 0.0, variant, ALL)))
    shake(granite)
    set_mode(granite, training=True)
    found: list[dict[str, torch.Tensor | None]] = []
    for cast in (variant == "dora", True):
        assert all(layer.cast_input_dtype_enabled == cast for layer in adapted_layers(granite).values())
        with torch.autocast("cpu", torch.bfloat16):
            summed_loss(granite, clips[:2]).backward()  # type: ignore[no-untyped-call]
        found.append({name: value.grad for name, value in trained_parameters(granite).items()})
        for name, value in trained_parameters(granite).items():
            assert value.grad is not None and value.grad.dtype == torch.float32 and value.grad.abs().sum() > 0, name
            value.grad = None
        for layer in adapted_layers(granite).values():
            layer.cast_input_dtype_enabled = True
    for name, gradient in found[0].items():
        again = found[1][name]
        assert gradient is not None and again is not None and torch.equal(gradient, again), name


# --- before training: `finetune check` ---


@pytest.mark.parametrize("case", CASES)
def test_the_outline_counts_what_would_be_opened(model: Load, nano: Path, case: str) -> None:
    granite = model()
    open_parts(granite, CASES[case])
    text = "\n".join(outline(str(nano), None, CASES[case]))
    rows = re.findall(r"^(\w+) +([\d,]+) parameters  in (\d+) tensors of (\d+) modules$", text, re.M)
    assert [Row(part, int(modules), int(tensors), int(count.replace(",", "")))
            for part, count, tensors, modules in rows] == table(granite)


def test_the_real_model_has_280_layers_for_the_default_lora() -> None:
    """The values of ibm-granite/granite-4.0-1b-speech; its weights are not here."""
    folder = Path(__file__).parent / "data" / "granite-4.0-1b-speech"
    granite = on_meta(GraniteSpeechConfig.from_pretrained(folder), "meta")
    assert count_parts(granite) == {
        "encoder": 440_168_796, "projector": 35_697_664, "language model": 1_631_752_192, "lm_head": 205_522_944}
    with torch.device("meta"):
        open_parts(granite, replace(LORA, lora=Lora(16, 32.0, 0.0, "lora", ALL), projector=FULL))
    assert table(granite)[-1] == Row("lora", 280, 560, 20_316_160)
    assert table(granite)[0].parameters == 35_697_664


def test_the_outline_of_a_base_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert "not looked into" in outline(str(tmp_path), None, LORA)[0]


def test_four_bits_are_refused_where_they_cannot_be_had(nano: Path) -> None:
    with pytest.raises(ModelError, match=r"finetune-granite-speech\[quant\]"):
        load_model(str(nano), "float32", "cpu", None, "4bit")


# --- while it trains ---


@pytest.mark.parametrize("case", CASES)
def test_training_changes_what_trains_and_nothing_else(model: Load, clips: list[Utterance], case: str) -> None:
    granite = model()
    open_parts(granite, CASES[case])
    trained = trained_parameters(granite)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, weight_decay=0.0)
    set_mode(granite, training=True)
    first = before = fingerprints(granite)
    for step in range(2):
        summed_loss(granite, clips[:3]).backward()  # type: ignore[no-untyped-call]
        moved = with_gradient(trained, optimizer.param_groups)
        still = {name for name in set(trained) - moved if not name.endswith("key.bias")}  # a softmax is blind to it
        assert still == {name for name in trained if "lora_A" in name and step == 0}  # as B is zero
        optimizer.step()
        optimizer.zero_grad()
        after = fingerprints(granite)
        check_changed(before, after, set(trained), moved)
        before = after
    # The final CTC logits are no part of this loss, but `out` also feeds the middle layer's back.
    changed = {name for name, value in first.items() if value != after[name]}
    assert {name for name in changed ^ set(trained) if not name.endswith("key.bias")} == set()


def test_fingerprints_see_one_bit_of_any_tensor(model: Load) -> None:
    granite = model()
    encoder = granite.encoder
    for name, value in (("of_bfloat16", torch.ones(5).bfloat16()), ("of_bool", torch.tensor([True, False])),
                        ("of_int", torch.tensor(7)), ("of_nothing", torch.zeros(0)),
                        ("of_float64", torch.ones(3).double())):
        encoder.register_buffer(name, value)
    named = {**dict(granite.hf.named_parameters()), **dict(granite.hf.named_buffers())}
    before = fingerprints(granite)
    assert before == fingerprints(granite) and set(before) == set(named)
    assert any("running_mean" in name for name in before)
    changes: dict[str, Callable[[Tensor], object]] = {
        "model.encoder.of_bfloat16": lambda t: t[4].mul_(1.01), "model.encoder.of_bool": lambda t: t[1].fill_(True),
        "model.encoder.of_int": lambda t: t.add_(1), "model.encoder.of_float64": lambda t: t[2].add_(1e-15),
        "lm_head.weight": lambda t: t[-1, -1].mul_(1 + 1e-6),
        "model.encoder.layers.0.conv.batch_norm.running_var": lambda t: t[0].mul_(1 + 1e-6)}
    with torch.no_grad():
        for change, function in changes.items():
            function(named[change])
    after = fingerprints(granite)
    assert {name for name in before if before[name] != after[name]} == set(changes)


def test_fingerprints_see_what_cancels_in_a_sum(model: Load) -> None:
    """Equal weights, moved by the same amount up and down: Adam's first step on a norm."""
    granite = model()
    weight = granite.language_model.norm.weight
    with torch.no_grad():
        weight.fill_(1.5)
        before = fingerprints(granite)
        weight[0::2].add_(2.0**-10)
        weight[1::2].sub_(2.0**-10)
    assert weight.view(torch.int32).sum() == torch.full_like(weight, 1.5).view(torch.int32).sum()
    assert before["model.language_model.norm.weight"] != fingerprints(granite)["model.language_model.norm.weight"]


def test_a_step_that_changes_the_wrong_things_is_refused_with_their_names() -> None:
    before = {"a": 1, "frozen": 2, "b": 3}
    check_changed(before, {"a": 9, "frozen": 2, "b": 3}, {"a", "b"}, {"a"})
    with pytest.raises(ModelError, match=r"frozen: frozen, but changed"):
        check_changed(before, {"a": 9, "frozen": 3, "b": 3}, {"a", "b"}, {"a"})
    with pytest.raises(ModelError, match="frozen: frozen, but changed"):
        check_changed(before, {"a": 9, "b": 3}, {"a", "b"}, {"a"})
    with pytest.raises(ModelError, match="b: has a gradient, but the first training step did not change it"):
        check_changed(before, {"a": 9, "frozen": 2, "b": 3}, {"a", "b"}, {"a", "b"})
    many = {f"p{index}": index for index in range(9)}
    with pytest.raises(ModelError, match="p0, p1, p2, p3, p4 and 4 more: frozen"):
        check_changed(many, {name: -1 for name in many}, set(), set())


def test_a_parameter_that_the_loss_does_not_reach_is_refused() -> None:
    reached, lost, still = (nn.Parameter(torch.ones(2)) for _ in range(3))
    reached.grad, still.grad = torch.tensor([0.0, 1.0]), torch.zeros(2)
    groups = [{"params": [reached, lost, still], "lr": 1e-3}]
    assert with_gradient({"reached": reached, "still": still}, groups) == {"reached"}
    with pytest.raises(ModelError, match="lost: no gradient after the first backward pass"):
        with_gradient({"reached": reached, "lost": lost}, groups)


@pytest.mark.parametrize("rate", [1e-3, 1e-7, 3e-8, 1e-9, 1e-20])
def test_a_step_too_small_for_float32_is_no_fault(rate: float) -> None:
    """As the first of a long warm-up is for a norm's weights near 1, but not for a matrix that has small elements."""
    torch.manual_seed(0)
    parameters = {"norm": nn.Parameter(1 + torch.rand(64)), "matrix": nn.Parameter(torch.randn(64, 64) * 1e-3)}
    optimizer = torch.optim.AdamW(parameters.values(), lr=rate, weight_decay=0.0)
    before = {name: value.detach().clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = torch.randn_like(value)
    moved = with_gradient(parameters, optimizer.param_groups)
    optimizer.step()
    changed = {name for name, value in parameters.items() if not torch.equal(value, before[name])}
    assert moved <= changed
    assert moved == ({"norm", "matrix"} if rate == 1e-3 else {"matrix"} if rate > 1e-10 else set())
    assert with_gradient(parameters, []) == {"norm", "matrix"}


def test_batch_norm_and_dropout_stay_in_eval_mode(model: Load) -> None:
    """A frozen BatchNorm in train mode would drift, and no adapter would hold the drift."""
    granite = model()
    parts = replace(LORA_EVERYWHERE, lora=Lora(4, 8.0, 0.3, "lora", ["q_proj"]))
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
def test_dropout_drops_in_training_and_only_there(model: Load, clips: list[Utterance], variant: str,
                                                  part: str) -> None:
    granite = model()
    open_parts(granite, replace(
        NOTHING, lora=Lora(4 * (part == "language_model"), 8.0, 0.5, variant, ALL),
        **{part: Part("lora", 4, 8.0)} if part != "language_model" else {}))
    shake(granite)
    for training in (True, False):
        set_mode(granite, training=training)
        torch.manual_seed(0)
        first, second = logits(granite, clips), logits(granite, clips)
        assert torch.equal(first, second) != training


def test_gradient_checkpointing_gives_the_same_gradients(model: Load, clips: list[Utterance]) -> None:
    found = []
    for saving in (False, True):
        granite = model()
        torch.manual_seed(0)
        open_parts(granite, LORA)
        shake(granite)
        runs = 0

        def counted(*_: object) -> None:
            nonlocal runs
            runs += 1

        granite.language_model.layers[0].mlp.register_forward_pre_hook(counted)
        if saving:
            granite.language_model.gradient_checkpointing_enable({"use_reentrant": False})
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


# --- for the tests of adapters too ---


def shake(model: GraniteSpeech) -> None:
    """Moves all that trains, as training would: LoRA's B starts at zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def logits(model: GraniteSpeech, clips: list[Utterance]) -> Tensor:
    features, frames, ids, _ = batch(model, clips[:2])
    return model.logits(model(features, frames, ids)[0])


@torch.no_grad()
def ctc_logits(model: GraniteSpeech, clips: list[Utterance]) -> Tensor:
    features, frames, _, _ = batch(model, clips[:1])
    return model.ctc_logits(model.listen(features, frames).states)
