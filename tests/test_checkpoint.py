"""A checkpoint comes back whole or is refused by name, wherever the save was killed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune.errors import CheckpointError
from finetune.training import checkpoint

State = tuple[dict[str, nn.Parameter], torch.optim.AdamW]


def made(seed: int, steps: int, names: tuple[str, ...] = ("a", "b.c:d", "scalar")) -> State:
    """Parameters that took some AdamW steps."""
    torch.manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"a": (3, 4), "b.c:d": (5,), "scalar": ()}
    parameters = {name: nn.Parameter(torch.randn(shapes.get(name, (2,)))) for name in names}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.01)
    for _ in range(steps):
        _step(parameters, optimizer)
    return parameters, optimizer


def _step(parameters: dict[str, nn.Parameter], optimizer: torch.optim.AdamW) -> None:
    optimizer.zero_grad()
    sum((value**3).sum() for value in parameters.values()).backward()  # type: ignore[union-attr]
    optimizer.step()


def saved(folder: Path, steps: int) -> dict[str, Any]:
    progress = {"epoch": steps, "step": 7 * steps, "best_valid_wer": float("inf"), "data": "abc"}
    checkpoint.save(folder, *made(1, steps), progress)
    return progress


def epoch_of(folder: Path) -> int | None:
    """The epoch that a resumed run would find, read as it would."""
    found = checkpoint.find(folder)
    return None if found is None else int(checkpoint.restore(found, *made(2, 0))["epoch"])


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_training_goes_on_as_if_never_stopped(tmp_path: Path, steps: int) -> None:
    progress = saved(tmp_path / "checkpoint", steps)
    parameters, optimizer = made(1, steps)
    other, other_optimizer = made(2, 0)
    assert checkpoint.restore(tmp_path / "checkpoint", other, other_optimizer) == progress
    for _ in range(3):
        for name, value in parameters.items():
            assert torch.equal(value, other[name]), name
        _step(parameters, optimizer)
        _step(other, other_optimizer)
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {
        checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.PROGRESS}, "and no pickle"


def test_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        saved(tmp_path / "checkpoint", steps)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
        assert epoch_of(tmp_path / "checkpoint") == steps


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert checkpoint.find(tmp_path / "checkpoint") is None


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.PROGRESS])
@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "gone"])
def test_a_damaged_file_is_named_and_nothing_is_loaded(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "checkpoint"
    saved(folder, 2)
    content = (folder / name).read_bytes()
    if damage == "gone":
        (folder / name).unlink()
    else:
        size = len(content)
        (folder / name).write_bytes({"cut": content[: size // 2], "empty": b"", "zeros": bytes(size)}[damage])
    parameters, optimizer = made(2, 0)
    before = {key: value.detach().clone() for key, value in parameters.items()}
    with pytest.raises(CheckpointError, match=r"checkpoint.*damaged.*delete it"):
        checkpoint.restore(folder, parameters, optimizer)
    assert all(torch.equal(value, before[key]) for key, value in parameters.items())


def test_other_parameters_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "checkpoint", 1)
    for names in (("a", "b.c:d"), ("a", "b.c:d", "scalar", "more"), ("a", "b.c:d", "other")):
        with pytest.raises(CheckpointError, match="other parts were trained there"):
            checkpoint.restore(tmp_path / "checkpoint", *made(1, 0, names))


def test_parameters_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Also where torch could broadcast: (1, 4) into (3, 4) would be no error of its own."""
    for shape in ((1, 4), (6, 4)):
        parameters, optimizer = made(1, 1)
        parameters["a"] = nn.Parameter(torch.zeros(shape))
        checkpoint.save(tmp_path / "checkpoint", parameters, optimizer, {})
        with pytest.raises(CheckpointError, match="other parts were trained there"):
            checkpoint.restore(tmp_path / "checkpoint", *made(1, 0))


class Killed(BaseException):
    """As if the process ended here."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ends the process at the `number`th file operation that a save of a checkpoint makes."""
    calls = 0

    def wrap(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                raise Killed
            return real(*arguments, **keywords)

        monkeypatch.setattr(module, name, counted)

    wrap(os, "replace")
    wrap(shutil, "rmtree")
    wrap(checkpoint, "save_file")
    wrap(checkpoint, "write_json")


def test_a_kill_anywhere_leaves_the_last_or_the_one_before(tmp_path: Path) -> None:
    """One kill, then another anywhere in the save after the resumed epoch; then a save that ends."""
    outcomes, finished = set(), False
    for first in range(1, 10):
        for second in range(1, 20):
            folder = tmp_path / f"{first}-{second}" / "checkpoint"
            saved(folder, 1)
            for kill, steps in ((first, 2), (second, 3)):
                before = epoch_of(folder)
                with pytest.MonkeyPatch.context() as patch:
                    killed_at(patch, kill)
                    try:
                        saved(folder, steps)
                        finished = True
                    except Killed:
                        finished = False
                assert epoch_of(folder) in (before, steps), (first, second)
                outcomes.add(epoch_of(folder))
            saved(folder, 4)
            assert epoch_of(folder) == 4
            assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
            if finished:
                break
    assert outcomes == {1, 2, 3}


def test_a_kill_between_the_two_renames_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint"
    saved(folder, 1)
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(source).name == "checkpoint.part":
            raise Killed
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        saved(folder, 2)
    assert not folder.exists()
    assert epoch_of(folder) == 1
    assert json.loads((tmp_path / "checkpoint.old" / checkpoint.PROGRESS).read_text())["epoch"] == 1
