"""A checkpoint is restored exactly or refused with its name, at whichever point a save was killed."""

import errno
import functools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError
from finetune.training import checkpoint

State = tuple[dict[str, nn.Parameter], torch.optim.AdamW]
ORIGIN = {"recipe": {"train": {"epochs": 4, "goal": None}, "parts": {"lora": {"modules": ["q", "v"]}}}, "base": "é1"}
ALL = [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.PROGRESS, checkpoint.ORIGIN, checkpoint.FILES]


def made(seed: int, steps: int, names: tuple[str, ...] = ("a", "b.c:d", "scalar")) -> State:
    """Parameters after some AdamW steps."""
    torch.manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"a": (3, 4), "b.c:d": (5,), "scalar": ()}
    parameters = {name: nn.Parameter(torch.randn(shapes.get(name, (2,)))) for name in names}
    first, *others = parameters.values()
    groups: list[dict[str, Any]] = [{"params": others, "lr": 0.02}, {"params": [first]}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)
    for _ in range(steps):
        _step(parameters, optimizer)
    return parameters, optimizer


cached_model = functools.cache(made)
"""`made` for tests that do not change what it returns."""


def _step(parameters: dict[str, nn.Parameter], optimizer: torch.optim.AdamW) -> None:
    optimizer.zero_grad()
    sum((value**3).sum() for value in parameters.values()).backward()  # type: ignore[union-attr]
    optimizer.step()


def saved(folder: Path, steps: int, files: checkpoint.CheckpointFiles = checkpoint.DISK) -> dict[str, Any]:
    progress = {"epoch": steps, "step": 7 * steps, "best_valid_wer": float("inf"), "data": "abc"}
    assert checkpoint.save(folder, *cached_model(1, steps), progress, ORIGIN, files)
    return progress


def saved_beside(folder: Path, steps: int) -> None:
    """Saves without removing the previous checkpoint, as after a kill directly after the last rename."""
    saved(folder.with_name("elsewhere"), steps)
    os.replace(folder.with_name("elsewhere"), folder)


def epoch_of(folder: Path) -> int | None:
    """The epoch that a resumed run restores."""
    path = checkpoint.find(folder)
    return None if path is None else int(checkpoint.restore(path, *cached_model(2, 0))["epoch"])


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_restored_optimizer_takes_the_same_steps(tmp_path: Path, steps: int) -> None:
    progress = saved(tmp_path / "checkpoint", steps)
    parameters, optimizer = made(1, steps)
    other, other_optimizer = made(2, 0)
    assert checkpoint.restore(tmp_path / "checkpoint", other, other_optimizer) == progress
    for _ in range(3):
        for name, value in parameters.items():
            assert torch.equal(value, other[name]), name
            moments, restored = optimizer.state[value], other_optimizer.state[other[name]]
            assert moments.keys() == restored.keys(), name
            assert all(torch.equal(moments[key], restored[key]) for key in moments), name
        _step(parameters, optimizer)
        _step(other, other_optimizer)
    assert [group["lr"] for group in other_optimizer.param_groups] == [0.02, 0.01]
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == set(ALL), "and no pickle"


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        saved(tmp_path / "checkpoint", steps)
        assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", *["checkpoint.old"] * (steps > 1)}
        assert epoch_of(tmp_path / "checkpoint") == steps
    shutil.rmtree(tmp_path / "checkpoint")
    assert epoch_of(tmp_path / "checkpoint") == 2


def test_find_without_a_checkpoint_returns_none(tmp_path: Path) -> None:
    assert checkpoint.find(tmp_path / "checkpoint") is None


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_the_previous_checkpoint_is_used_if_the_last_one_is_damaged(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, old = tmp_path / "checkpoint", tmp_path / "checkpoint.old"
    saved(folder, 1)
    os.replace(folder, old)
    saved_beside(folder, 2)
    assert checkpoint.find(folder) == folder, "the newest"
    content = bytearray((folder / name).read_bytes())
    if damage == "gone":
        (folder / name).unlink()
    else:
        middle = len(content) // 2
        content[middle] ^= 1
        (folder / name).write_bytes({"flip": content, "cut": content[:middle], "empty": bytearray()}[damage])
    assert checkpoint.find(folder) == old
    named = name if (name, damage) != (checkpoint.FILES, "flip") else ""  # that can be part of a file's hash
    for part in (f"{folder}: unreadable", named, f"resuming from the previous checkpoint, {old}"):
        assert part in caplog.text
    shutil.rmtree(old)
    with pytest.raises(CheckpointError, match=rf"checkpoint: unreadable \(.*{named}.*\); delete it to start again"):
        checkpoint.find(folder)


def test_an_error_names_both_damaged_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint", "checkpoint.old"):
        (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoint: unreadable .*checkpoint\.old: unreadable .*delete it"):
        checkpoint.find(tmp_path / "checkpoint")


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.PROGRESS])
@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "gone"])
def test_a_file_damaged_after_find_loads_nothing(tmp_path: Path, name: str, damage: str) -> None:
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


def test_other_parameter_names_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "checkpoint", 1)
    for names in (("a", "b.c:d"), ("a", "b.c:d", "scalar", "more"), ("a", "b.c:d", "other")):
        with pytest.raises(CheckpointError, match="parameters of the checkpoint and of the recipe differ"):
            checkpoint.restore(tmp_path / "checkpoint", *made(1, 0, names))


def test_parameters_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Also for shapes that torch can broadcast: copying (1, 4) into (3, 4) is not an error in torch."""
    for shape in ((1, 4), (6, 4)):
        parameters, optimizer = made(1, 1)
        parameters["a"] = nn.Parameter(torch.zeros(shape))
        checkpoint.save(tmp_path / "checkpoint", parameters, optimizer, {}, {})
        with pytest.raises(CheckpointError, match="parameters of the checkpoint and of the recipe differ"):
            checkpoint.restore(tmp_path / "checkpoint", *made(1, 0))


def test_parameters_of_another_dtype_are_refused(tmp_path: Path) -> None:
    """torch would round them without an error."""
    saved(tmp_path / "checkpoint", 1)
    parameters, optimizer = made(1, 0)
    parameters["a"] = nn.Parameter(parameters["a"].detach().bfloat16())
    with pytest.raises(
        CheckpointError,
        match=r"trained parameters of the checkpoint and of the recipe differ \(a, torch.bfloat16, \[3, 4\]",
    ):
        checkpoint.restore(tmp_path / "checkpoint", parameters, optimizer)


class Killed(BaseException):
    """Stands for a kill of the process."""


def faulty_files(number: int, error: BaseException) -> checkpoint.CheckpointFiles:
    """Raises at the `number`th file operation of a save. A removal is then half complete."""
    calls = 0

    def counted(operation: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: Any, **keywords: Any) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                if operation is shutil.rmtree:
                    for path in list(Path(arguments[0]).glob("*"))[:2]:
                        path.unlink()
                raise error
            return operation(*arguments, **keywords)

        return run

    replace = counted(os.replace)

    def write_json(path: Path, content: Any) -> None:
        """Writes in two operations, like the real function."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(content), encoding="utf-8")
        replace(part, path)

    return checkpoint.CheckpointFiles(
        fsync=counted(lambda descriptor: None),  # the real fsync is slow and has no effect on this test
        replace=replace,
        rmtree=counted(shutil.rmtree),
        save_file=counted(checkpoint.DISK.save_file),
        write_json=counted(write_json),
    )


@pytest.mark.parametrize("start", ["one", "with an older one", "damaged, with an older one"])
def test_a_kill_in_a_save_leaves_the_new_or_the_previous_checkpoint(tmp_path: Path, start: str) -> None:
    """One kill, then another one anywhere in the save after the resumed epoch, then a save that completes."""
    outcomes, first, finished = set(), 0, False
    while not finished:
        first += 1
        for second in range(1 + first % 2 if start == "one" else 30, 40, 2):
            folder = tmp_path / f"{first}-{second}" / "checkpoint"
            saved(folder, 1)
            if start != "one":
                os.replace(folder, folder.with_name("checkpoint.old"))
                saved_beside(folder, 1)
            if "damaged" in start:
                (folder / checkpoint.WEIGHTS).write_bytes(b"")
            done = []
            for kill, steps in ((first, 2), (second, 3)):
                before = epoch_of(folder)
                try:
                    saved(folder, steps, faulty_files(kill, Killed()))
                    done.append(steps)
                except Killed:
                    pass
                assert epoch_of(folder) in ({steps} if steps in done else {before, steps}), (first, second)
                outcomes.add(epoch_of(folder))
            saved(folder, 4)
            assert epoch_of(folder) == 4
            assert {path.name for path in folder.parent.iterdir()} <= {"checkpoint", "checkpoint.old"}
            shutil.rmtree(folder.parent)
            finished = 2 in done
            if 3 in done:
                break
        else:
            raise AssertionError("a save has fewer file operations than this")
    assert outcomes == {1, 2, 3} and first > 15


def test_sigkill_at_any_moment_leaves_a_valid_checkpoint(tmp_path: Path) -> None:
    """SIGKILL can also come inside a call."""
    folder, rng, reached = tmp_path / "checkpoint", random.Random(1), 0
    states = [made(1, steps) for steps in range(3)]
    for _ in range(12):
        child = os.fork()
        if child == 0:
            try:
                for step in range(reached + 1, reached + 10**6):
                    checkpoint.save(folder, *states[step % 3], {"step": step}, ORIGIN)
            finally:
                os._exit(1)
        while not reached and not folder.exists():
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        path = checkpoint.find(folder)
        assert path is not None
        other, optimizer = made(2, 0)
        step = checkpoint.restore(path, other, optimizer)["step"]
        assert step >= reached
        assert all(torch.equal(value, other[name]) for name, value in states[step % 3][0].items())
        reached = step
    assert reached > 1


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, "quota"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    folder, number, full = tmp_path / "checkpoint", 1, 0
    done = False
    while not done:
        number += 1  # the first operation removes a folder that does not exist
        saved(folder, 1)
        shutil.rmtree(folder.with_name("checkpoint.old"), ignore_errors=True)
        done = checkpoint.save(folder, *cached_model(1, 2), {"epoch": 2}, ORIGIN, faulty_files(number, error))
        assert epoch_of(folder) in ({2} if done else {1, 2})
        assert not folder.with_name("checkpoint.part").exists()
        full += not done
    assert full > 10
    assert caplog.text.count("the disk is full") == full
    saved(folder, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "checkpoint.old"}


@pytest.mark.parametrize("newest", ["valid", "damaged"])
def test_a_full_disk_with_two_checkpoints_deletes_the_older_one_if_the_newer_is_valid(
    tmp_path: Path, newest: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, full = tmp_path / "checkpoint", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    saved(folder, 1)
    saved(folder, 2)
    if newest == "damaged":
        (folder / checkpoint.WEIGHTS).write_bytes(b"")
    done = checkpoint.save(folder, *cached_model(1, 3), {"epoch": 3}, ORIGIN, faulty_files(3, full))
    assert done == (newest == "valid") and epoch_of(folder) == (3 if done else 1)
    assert ("checkpoint.old: deleted, because the disk is full" in caplog.text) == done


def test_a_full_disk_at_the_first_checkpoint_promises_no_earlier_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not checkpoint.save(tmp_path / "c", *cached_model(1, 1), {"epoch": 1}, ORIGIN, faulty_files(2, full))
    assert "there is no earlier one, and training continues" in caplog.text


@pytest.mark.parametrize("version", [3, "2", None, 0])
def test_a_checkpoint_of_another_version_is_refused_even_if_the_older_one_is_readable(
    tmp_path: Path, version: object
) -> None:
    folder = tmp_path / "checkpoint"
    saved(folder, 1)
    saved(folder, 2)
    files = json.loads((folder / checkpoint.FILES).read_text())
    assert files[checkpoint.VERSION_KEY] == 2
    (folder / checkpoint.FILES).write_text(json.dumps({**files, checkpoint.VERSION_KEY: version}))
    with pytest.raises(CheckpointError, match=rf"checkpoint: a checkpoint of version {version!r}; .* --set name="):
        checkpoint.find(folder)


def test_a_checkpoint_of_the_previous_release_is_restored(tmp_path: Path) -> None:
    """It has no version. If it does not match, the message names the reason."""
    folder = tmp_path / "checkpoint"
    progress = saved(folder, 1)
    files = json.loads((folder / checkpoint.FILES).read_text())
    del files[checkpoint.VERSION_KEY]
    (folder / checkpoint.FILES).write_text(json.dumps(files))
    assert checkpoint.find(folder) == folder
    assert checkpoint.restore(folder, *cached_model(2, 0)) == progress
    checkpoint.require_origin(folder, ORIGIN)
    with pytest.raises(CheckpointError, match="earlier version of the toolkit and does not match .*base: was .*é2"):
        checkpoint.require_origin(folder, {**ORIGIN, "base": "é2"})


@pytest.mark.parametrize(
    "content", [{"pytorch_model.bin": "x"}, {"trainer_state.json": "{}", "optimizer.pt": ""}, None]
)
def test_a_folder_that_is_not_a_checkpoint_is_refused(tmp_path: Path, content: dict[str, str] | None) -> None:
    folder = tmp_path / "checkpoint"
    if content is None:
        folder.write_text("a file")
    else:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match="not a checkpoint of this toolkit; move it away"):
        checkpoint.find(folder)


@pytest.mark.parametrize("content", ["[]", "null", "1", '{"a": ', "[" * 100_000])
def test_a_list_of_hashes_that_is_not_an_object_is_damage(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "checkpoint"
    saved(folder, 1)
    (folder / checkpoint.FILES).write_text(content)
    with pytest.raises(CheckpointError, match="unreadable"):
        checkpoint.find(folder)


def test_another_error_is_raised(tmp_path: Path) -> None:
    saved(tmp_path / "checkpoint", 1)
    for error in (PermissionError(errno.EACCES, "no"), SafetensorError("Error while serializing: something else")):
        with pytest.raises(type(error)):
            saved(tmp_path / "checkpoint", 2, faulty_files(2, error))
    assert epoch_of(tmp_path / "checkpoint") == 1


def test_the_origin_is_restored(tmp_path: Path) -> None:
    saved(tmp_path / "checkpoint", 1)
    assert checkpoint.read_origin(tmp_path / "checkpoint") == ORIGIN


def test_differences_name_the_keys_with_both_values() -> None:
    then = {"train": {"epochs": 4, "goal": None, "modules": ["q", "v"]}, "base": "abc", "group": 2, "gone": {"x": 1}}
    now = {
        "train": {"epochs": 6, "goal": "é", "modules": ("q", "v")},
        "base": "abc",
        "group": 2.0,
        "parts": {"lora": {"rank": None}},
    }
    assert checkpoint.differences(then, now) == [
        "gone.x: was 1, now not set",
        "parts.lora.rank: was 16, now null",
        "train.epochs: was 4, now 6",
        'train.goal: was null, now "é"',
    ]
    assert checkpoint.differences(then, then) == []


def test_settings_that_an_earlier_version_did_not_store_equal_their_defaults() -> None:
    then = {"train": {"epochs": 4}, "data": {"train": "abc"}, "seed": 1}
    now: dict[str, Any] = {
        **then,
        "train": {"epochs": 4, "optimizer": "adamw", "warmup": 0.1},
        "parts": {"lora": {"rank": 16}},
    }
    assert checkpoint.differences(then, now) == []
    now["parts"]["lora"]["rank"], now["train"]["warmup"], now["data"] = 8, 0.2, {"train": "abc", "replay": "abc"}
    assert checkpoint.differences(then, now) == [
        'data.replay: was not set, now "abc"',
        "parts.lora.rank: was 16, now 8",
        "train.warmup: was 0.1, now 0.2",
    ]
    assert checkpoint.differences(now, then)[-1] == "train.warmup: was 0.2, now 0.1"


def test_a_change_to_or_from_beam_search_is_one_difference(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    """An origin has the settings of beam search only if the validations use it, and does not name another decoder."""
    recipe = tiny(tmp_path, "x")
    greedy, beam, wide = (
        checkpoint.origin_of(recipe.model_copy(update={"decode": decode}), "base", {}, 2, 5.0)
        for decode in (
            replace(recipe.decode, decoder="greedy"),
            replace(recipe.decode, decoder="beam"),
            replace(recipe.decode, decoder="beam", num_beams=7),
        )
    )
    assert checkpoint.differences(wide, greedy) == ['decode.decoder: was "beam", now another decoder']
    assert checkpoint.differences(greedy, wide) == ['decode.decoder: was another decoder, now "beam"']
    assert checkpoint.differences(beam, wide) == [f"decode.num_beams: was {beam['decode']['num_beams']}, now 7"]
