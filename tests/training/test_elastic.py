"""Launchers that restart processes (torchrun, `accelerate launch`): the run continues from its newest checkpoint."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from training_runs import records, weights

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError
from finetune.core.files import read_json
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.model.adapter import FULL_WEIGHTS, LORA_WEIGHTS
from finetune.pipeline import run_recipe
from finetune.training import checkpoint
from finetune.training.distributed import require_same_checkpoint

ROOT = Path(__file__).resolve().parents[2]
Tiny = Callable[..., Recipe]
TRAIN: dict[str, object] = {"epochs": 8, "accumulation": 1, "evaluate_every": 8}
MACHINE: dict[str, object] = {"processes": 2, "checkpoint_every": 1, "workers": 1}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max_restarts", "2", "--nproc_per_node"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port", "0"]


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of two processes without an interruption."""
    return run_recipe(tiny(tmp_path_factory.mktemp("whole"), "whole", machine=MACHINE, **TRAIN), "train")


def launch(recipe: Recipe, command: list[str]) -> subprocess.Popen[bytes]:
    """Starts a launcher that trains a prepared recipe."""
    path = Path(recipe.runs) / f"{recipe.name}.yaml"
    path.write_text(recipe.model_dump_json(exclude_none=True))  # JSON is YAML
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "300",
    }
    return subprocess.Popen([*command, "-m", "finetune", "train", str(path)], cwd=ROOT, env=environment)


def children(parent: int) -> Iterator[tuple[int, dict[str, str]]]:
    """The child processes of a process, with their environments."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            owner = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if owner == parent:
                items = (folder / "environ").read_text().split("\0")
                yield int(folder.name), dict(item.partition("=")[::2] for item in items if item)
        except (OSError, ValueError):
            continue


def await_rank(launcher: subprocess.Popen[bytes], rank: str, attempt: str) -> int:
    """Waits for the process of a rank, after `attempt` restarts."""
    names = {"RANK": rank, "TORCHELASTIC_RESTART_COUNT": attempt}
    while True:
        assert launcher.poll() is None
        for pid, environment in children(launcher.pid):
            if names.items() <= environment.items():
                return pid
        time.sleep(0.01)


def await_step(launcher: subprocess.Popen[bytes], run: RunDir, step: int) -> int:
    """Waits for a checkpoint of this step or of a later one."""
    while True:
        assert launcher.poll() is None
        try:
            found = int(read_json(run.checkpoint / checkpoint.PROGRESS)["step"])
        except (OSError, ValueError):  # none yet, or it is being replaced
            found = 0
        if found >= step:
            return found
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_processes_are_restarted_and_the_result_is_the_same(whole: RunDir, tiny: Tiny, tmp_path: Path) -> None:
    """Rank 1, then rank 0, whose data loader still holds the lock of the run directory for some seconds."""
    recipe = tiny(tmp_path, "killed", machine=MACHINE, **TRAIN)
    run, step = run_recipe(recipe, "prepare"), 0
    with launch(recipe, [*TORCHRUN, "2"]) as launcher:
        for attempt, rank in (("0", "1"), ("1", "0")):
            worker = await_rank(launcher, rank, attempt)
            step = await_step(launcher, run, step + 2)
            os.kill(worker, signal.SIGKILL)
    assert launcher.returncode == 0 and run.done("train") is not None
    for kind in ("step", "valid"):
        assert records(run, kind) == records(whole, kind)
    for name in (LORA_WEIGHTS, FULL_WEIGHTS):
        assert (whole.best / name).read_bytes() == (run.best / name).read_bytes()
    for name in (checkpoint.WEIGHTS, checkpoint.OPTIMIZER):
        assert (whole.checkpoint / name).read_bytes() == (run.checkpoint / name).read_bytes()


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves_and_one_process_continues(whole: RunDir, tiny: Tiny, tmp_path: Path) -> None:
    """The steps have the same clips, so losses and weights are equal up to rounding."""
    recipe = tiny(tmp_path, "fewer", machine=MACHINE | {"checkpoint_every": 100}, **TRAIN)
    run, steps = run_recipe(recipe, "prepare"), records(whole, "step")
    with launch(recipe, [*ACCELERATE, "--num_processes", "2"]) as launcher:
        while not run.metrics.exists() or not records(run, "step"):
            assert launcher.poll() is None
            time.sleep(0.01)
        launcher.terminate()
    done = len(records(run, "step"))
    assert read_json(run.checkpoint / checkpoint.PROGRESS)["step"] == done < len(steps)
    with launch(recipe, [*TORCHRUN, "1"]) as launcher:
        pass
    assert launcher.returncode == 0 and run.done("train") is not None
    for before, after in zip(steps, records(run, "step"), strict=True):
        assert before["loss"] == pytest.approx(after["loss"], rel=1e-4)
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(run)[name], atol=1e-4), name


@pytest.mark.parametrize(
    ("accumulation", "ranks", "batches"), [(1, 1, 4), (1, 2, 4), (1, 4, 4), (1, 8, 4), (2, 4, 8), (3, 1, 3)]
)
def test_a_step_keeps_its_batches_on_another_number_of_processes(
    tiny: Tiny, tmp_path: Path, accumulation: int, ranks: int, batches: int
) -> None:
    """The checkpoint is of four processes. A changed accumulation is another recipe, and has its own number."""
    parameters = {"a": torch.nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.AdamW(parameters.values())
    origin = checkpoint.origin_of(tiny(tmp_path, "x", accumulation=1), "base", {}, 4, 5.0)
    checkpoint.save(tmp_path / "checkpoint", parameters, optimizer, {}, origin)
    recipe, saved = tiny(tmp_path, "x", accumulation=accumulation), checkpoint.find(tmp_path / "checkpoint")
    assert checkpoint.batches_in_a_step(saved, recipe, ranks) == batches
    assert checkpoint.batches_in_a_step(None, recipe, ranks) == ranks * accumulation


def test_a_keyword_method_of_auto_is_prompt_in_a_training(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(tmp_path, "x")
    origins = [
        checkpoint.origin_of(recipe.model_copy(update={"decode": decode}), "base", {}, 4, 5.0)
        for decode in (
            DecodingOptions(),
            DecodingOptions(keyword_method="prompt"),
            DecodingOptions(keyword_method="ctc"),
        )
    ]
    assert origins[0] == origins[1] != origins[2]


def test_processes_that_found_different_checkpoints_do_not_train(tmp_path: Path) -> None:
    parameters = {"a": torch.nn.Parameter(torch.ones(2))}
    optimizer, folder = torch.optim.AdamW(parameters.values()), tmp_path / "checkpoint"
    for step in (1, 2):
        checkpoint.save(folder, parameters, optimizer, {"step": step}, {})
    old, new = checkpoint.identity(tmp_path / "checkpoint.old"), checkpoint.identity(folder)
    require_same_checkpoint(new, folder, lambda own: [*own, new])
    for other in (old, checkpoint.identity(None)):
        with pytest.raises(CheckpointError, match="found different checkpoints.*rerun to resume"):
            require_same_checkpoint(new, folder, lambda own, other=other: [*own, other])
