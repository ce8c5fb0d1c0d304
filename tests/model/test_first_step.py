"""Fingerprints: a training step changes the trainable parameters and nothing else; other steps are refused."""

from collections.abc import Callable

import pytest
import torch
from support import summed_loss
from torch import Tensor, nn
from trainable_cases import CASES, Load

from finetune.core.errors import ModelError
from finetune.data.manifest import Utterance
from finetune.model.first_step import check_changed, fingerprints, with_gradient
from finetune.model.trainable import open_parts, set_mode, trained_parameters


@pytest.mark.parametrize("case", CASES)
def test_training_changes_only_trainable_parameters(model: Load, clips: list[Utterance], case: str) -> None:
    granite = model()
    open_parts(granite, CASES[case])
    trained = trained_parameters(granite)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, weight_decay=0.0)
    set_mode(granite, training=True)
    first = before = fingerprints(granite)
    for step in range(2):
        summed_loss(granite, clips[:3]).backward()  # type: ignore[no-untyped-call]
        moved = with_gradient(trained, optimizer.param_groups)
        unchanged = {
            name for name in set(trained) - moved if not name.endswith("key.bias")
        }  # a softmax does not depend on it
        assert unchanged == {name for name in trained if "lora_A" in name and step == 0}  # as B is zero
        optimizer.step()
        optimizer.zero_grad()
        after = fingerprints(granite)
        check_changed(before, after, set(trained), moved)
        before = after
    # This loss does not contain the final CTC logits, but `out` is also used in the middle layer.
    changed = {name for name, value in first.items() if value != after[name]}
    assert {name for name in changed ^ set(trained) if not name.endswith("key.bias")} == set()


def test_fingerprints_detect_a_small_change_in_any_tensor(model: Load) -> None:
    granite = model()
    encoder = granite.encoder
    for name, value in (
        ("of_bfloat16", torch.ones(5).bfloat16()),
        ("of_bool", torch.tensor([True, False])),
        ("of_int", torch.tensor(7)),
        ("of_nothing", torch.zeros(0)),
        ("of_float64", torch.ones(3).double()),
    ):
        encoder.register_buffer(name, value)
    named = {**dict(granite.hf.named_parameters()), **dict(granite.hf.named_buffers())}
    before = fingerprints(granite)
    assert before == fingerprints(granite) and set(before) == set(named)
    assert any("running_mean" in name for name in before)
    changes: dict[str, Callable[[Tensor], object]] = {
        "model.encoder.of_bfloat16": lambda t: t[4].mul_(1.01),
        "model.encoder.of_bool": lambda t: t[1].fill_(True),
        "model.encoder.of_int": lambda t: t.add_(1),
        "model.encoder.of_float64": lambda t: t[2].add_(1e-15),
        "lm_head.weight": lambda t: t[-1, -1].mul_(1 + 1e-6),
        "model.encoder.layers.0.conv.batch_norm.running_var": lambda t: t[0].mul_(1 + 1e-6),
    }
    with torch.no_grad():
        for change, function in changes.items():
            function(named[change])
    after = fingerprints(granite)
    assert {name for name in before if before[name] != after[name]} == set(changes)


def test_fingerprints_detect_changes_that_cancel_in_a_sum(model: Load) -> None:
    """Equal weights, half increased and half decreased by the same amount, as in Adam's first step on a norm."""
    granite = model()
    weight = granite.language_model.norm.weight
    with torch.no_grad():
        weight.fill_(1.5)
        before = fingerprints(granite)
        weight[0::2].add_(2.0**-10)
        weight[1::2].sub_(2.0**-10)
    assert weight.view(torch.int32).sum() == torch.full_like(weight, 1.5).view(torch.int32).sum()
    assert before["model.language_model.norm.weight"] != fingerprints(granite)["model.language_model.norm.weight"]


def test_wrong_changes_are_refused_with_the_tensor_names() -> None:
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


def test_parameter_without_gradient_is_refused() -> None:
    reached, unused, zero = (nn.Parameter(torch.ones(2)) for _ in range(3))
    reached.grad, zero.grad = torch.tensor([0.0, 1.0]), torch.zeros(2)
    groups = [{"params": [reached, unused, zero], "lr": 1e-3}]
    assert with_gradient({"reached": reached, "zero": zero}, groups) == {"reached"}
    with pytest.raises(ModelError, match="unused: no gradient after the first backward pass"):
        with_gradient({"reached": reached, "unused": unused}, groups)


@pytest.mark.parametrize("rate", [1e-3, 1e-7, 3e-8, 1e-9, 1e-20])
def test_step_too_small_for_float32_is_accepted(rate: float) -> None:
    """The first step of a long warm-up can be too small for weights near 1, but changes small elements of a matrix."""
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
