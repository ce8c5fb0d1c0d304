"""Interpolated weights have the fraction alpha of every change, and the trained weights are restored."""

import copy
from collections.abc import Callable

import pytest
import torch
from trainable_cases import merge

from finetune.model.granite import SpeechModel
from finetune.model.trainable import LoraSpec, PartSpec, TrainableParts, open_parts, trained_parameters
from finetune.training.interpolate import interpolated, starting_points

PARTS = TrainableParts(
    LoraSpec(4, 8.0, 0.0, "lora", ["q_proj", "down_proj"]),
    PartSpec("full", 4, 8.0),
    PartSpec("lora", 4, 8.0),
    2,
    False,
    True,
    0,
)


@pytest.mark.parametrize("alpha", [0.5, 0.9])
def test_interpolated_weights_have_the_fraction_alpha_of_every_change(
    model: Callable[[], SpeechModel], alpha: float
) -> None:
    """Also LoRA's change, once it is merged into the weights."""
    loaded = model()
    before = {name: value.clone() for name, value in loaded.hf.state_dict().items()}
    adapted = open_parts(loaded, PARTS)
    parameters = trained_parameters(loaded)
    start = starting_points(parameters)
    torch.manual_seed(3)
    with torch.no_grad():
        for value in parameters.values():
            value.add_(0.01 * torch.randn_like(value))
    reached = {name: value.clone() for name, value in parameters.items()}

    def merged() -> dict[str, torch.Tensor]:
        twin = copy.deepcopy((loaded, adapted))
        merge(*twin)
        return {name: value.clone() for name, value in twin[0].hf.state_dict().items()}

    trained = merged()
    with interpolated(parameters, start, alpha):
        part = merged()
    assert all(torch.equal(parameters[name], value) for name, value in reached.items())
    changed = [name for name, value in trained.items() if not torch.equal(value, before[name])]
    assert len(changed) > 50
    for name in changed:
        assert torch.allclose(part[name] - before[name], alpha * (trained[name] - before[name]), atol=1e-6), name
