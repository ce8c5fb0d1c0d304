"""AdamW with 8-bit moments: the real bitsandbytes where it is installed, else errors and the file with a stand-in."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_runs import Killed, KillInStep, prepared, records, weights

from finetune.core.config import Recipe
from finetune.core.errors import MissingExtraError, ModelError, RecipeError
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import RunDir
from finetune.model.granite import SpeechModel
from finetune.training import checkpoint
from finetune.training.eight_bit import QUANTIZED, check_eight_bit
from finetune.training.trainer import train


class StandIn(torch.optim.Optimizer):
    """Keeps what bitsandbytes keeps: bytes, a number of steps, and maps that all parameters share."""

    maps = (torch.linspace(-1, 1, 256), torch.linspace(0, 1, 256))

    def __init__(self, groups: Any, weight_decay: float) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the types of moments, as bitsandbytes does."""
        members = [value for group in self.param_groups for value in group["params"]]
        self.state.update({members[index]: moments for index, moments in state_dict["state"].items()})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for value in group["params"]:
                if value.grad is None:
                    continue
                state = self.state[value]
                if not state:
                    moment = torch.zeros_like(value, dtype=torch.uint8)
                    state.update(step=0, state1=moment, state2=moment.clone(), qmap1=self.maps[0], qmap2=self.maps[1])
                assert type(state["step"]) is int and state["state1"].dtype == torch.uint8
                state["step"] += 1
                state["state1"] += 1
                value -= group["lr"] * value.grad.sign() / state["step"]


def stand_in(optimizer: type = StandIn) -> Callable[..., Any]:
    return lambda name, *, extra: SimpleNamespace(optim=SimpleNamespace(AdamW8bit=optimizer))


def parameters(seed: int) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: nn.Parameter(torch.randn(size, generator=generator)) for name, size in (("a", QUANTIZED), ("b", 5000))
    }


def take_steps(values: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        for value in values.values():
            value.grad = value.detach().sin()
        optimizer.step()


def optimizers() -> list[Any]:
    """The stand-in, and the real one where it is installed."""
    found: list[Any] = [pytest.param(StandIn, id="stand-in")]
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        return [*found, pytest.param(None, id="real", marks=pytest.mark.skip("bitsandbytes is not installed"))]
    return [*found, pytest.param(AdamW8bit, id="real")]


@pytest.mark.parametrize("made", optimizers())
def test_a_restored_optimizer_takes_the_same_steps(tmp_path: Path, made: Any) -> None:
    values, other = parameters(1), parameters(2)
    first, second = (
        made([{"params": list(group.values()), "lr": 0.01}], weight_decay=0.0) for group in (values, other)
    )
    take_steps(values, first, 3)
    assert checkpoint.save(tmp_path / "checkpoint", values, first, {"step": 3}, {})
    assert checkpoint.restore(tmp_path / "checkpoint", other, second) == {"step": 3}
    take_steps(values, first, 2)
    take_steps(other, second, 2)
    assert all(torch.equal(value, other[name]) for name, value in values.items())
    for name, value in values.items():
        assert second.state[other[name]]["state1"].dtype == torch.uint8
        assert torch.equal(first.state[value]["state1"], second.state[other[name]]["state1"])


def missing(name: str, *, extra: str) -> ModuleType:
    raise MissingExtraError(f"{name} [{extra}]")


class Broken(StandIn):
    def step(self, closure: Any = None) -> None:
        raise NotImplementedError("no kernel for CPU")


class Idle(StandIn):
    def step(self, closure: Any = None) -> None:
        return


def test_a_missing_package_and_a_device_without_kernels_are_errors() -> None:
    check_eight_bit("cpu", stand_in())
    with pytest.raises(MissingExtraError, match=r"bitsandbytes \[quant\]"):
        check_eight_bit("cpu", missing)
    with pytest.raises(
        ModelError, match=r"adamw-8bit does not run on cpu .*no kernel for CPU.*set train.optimizer: adamw,"
    ):
        check_eight_bit("cpu", stand_in(Broken))
    with pytest.raises(ModelError, match="changed nothing"):
        check_eight_bit("cpu", stand_in(Idle))


def test_divided_8_bit_moments_are_refused(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny(tmp_path, "x", optimizer="adamw-8bit", machine={"shard_optimizer": True})
    (tmp_path / "x.yaml").write_text(recipe.model_dump_json(exclude_none=True))  # JSON is YAML
    with pytest.raises(RecipeError, match="train.optimizer.*set machine.shard_optimizer: false"):
        load_recipe(tmp_path / "x.yaml", [])


def test_a_training_with_8_bit_moments_resumes_bit_for_bit(
    trained: tuple[Recipe, RunDir, SpeechModel], tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    recipe = tiny(tmp_path, "x", optimizer="adamw-8bit", machine={"checkpoint_every": 1})
    whole, broken = prepared(trained[1], tmp_path / "whole"), prepared(trained[1], tmp_path / "broken")
    train(recipe, whole)
    with pytest.raises(Killed):
        train(recipe, broken, [KillInStep(2)])
    train(recipe, broken)
    assert records(whole, "step") == records(broken, "step")
    saved: dict[str, Tensor] = weights(whole)
    assert all(torch.equal(value, weights(broken)[name]) for name, value in saved.items())
    first, same = (records(run, "step")[0]["loss"] for run in (whole, trained[1]))
    assert first == same  # the first loss is before the first update
    last, exact = (records(run, "step")[-1]["loss"] for run in (whole, trained[1]))
    assert last != exact and last == pytest.approx(exact, rel=0.05)
