"""Fixtures of all tests: the embedded model, embedded clips, small manifests and recipes, the command."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command import Command, CommandResult
from tracker_fakes import Seen, install_fakes

from finetune.data.manifest import Utterance, write_manifest

# Set before any test imports torch.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["FINETUNE_CACHE"] = "off"  # the facts about audio that `prepare` remembers for a user
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors are faster without threads

if TYPE_CHECKING:
    from finetune.core.config import Recipe
    from finetune.core.run_dir import RunDir
    from finetune.model.granite import SpeechModel

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = ROOT / "data" / "vocabulary"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of training run first: they are the longest, and no process shall end long after the others."""
    items.sort(key=lambda item: "tests/training/" not in item.nodeid)


def embedded(split: str, count: int) -> list[Utterance]:
    """The `count` shortest embedded clips of a split, with absolute paths."""
    rows = [json.loads(line) for line in (VOCABULARY / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
    shortest = sorted(rows, key=lambda row: row["duration"])[:count]
    return [
        Utterance(
            row["id"], str(VOCABULARY / row["audio_filepath"]), row["duration"], row["text"], speaker=row["speaker"]
        )
        for row in shortest
    ]


@pytest.fixture
def finetune(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process; keywords are those of `main`."""
    from finetune.cli.main import main

    def call(*args: object, **keywords: Any) -> CommandResult:
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in args], **keywords)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return CommandResult(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def nano() -> Path:
    """The embedded model's folder."""
    return ROOT / "data" / "granite-speech-nano"


@pytest.fixture(scope="session")
def model(nano: Path) -> "Callable[[], SpeechModel]":
    """Loads the embedded model at each call, so that no test sees the changes of another."""
    from finetune.model.granite import load_model

    return lambda: load_model(str(nano), "float32")


@pytest.fixture(scope="session")
def clips() -> list[Utterance]:
    """Eight short clips of different durations; every third has keywords."""
    utterances = embedded("valid", 50)[::6][:8]
    assert len({item.duration for item in utterances}) == 8
    return [
        Utterance(
            item.id,
            item.audio_filepath,
            item.duration,
            item.text,
            keywords=("amoxicillin", "stent") if index % 3 == 0 else (),
        )
        for index, item in enumerate(utterances)
    ]


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By split, a manifest: 6 clips of train, 3 of valid, 3 of test, 2 of canary."""
    folder = tmp_path_factory.mktemp("corpora")
    for split, count in (("train", 6), ("valid", 3), ("test", 3), ("canary", 2)):
        write_manifest(folder / f"{split}.jsonl", embedded(split, count))
    return {path.stem: str(path) for path in folder.glob("*.jsonl")}


@pytest.fixture(scope="session")
def tiny(nano: Path, corpora: dict[str, str]) -> "Callable[..., Recipe]":
    """A recipe of two epochs over six clips that trains all types of parts; keywords change its `train` section."""
    from finetune.core.config import Recipe

    def recipe(
        runs: Path,
        name: str,
        parts: dict[str, object] | None = None,
        machine: dict[str, object] | None = None,
        **train: object,
    ) -> Recipe:
        settings = {
            "epochs": 2,
            "batch_seconds": 5.0,
            "accumulation": 2,
            "ctc_weight": 0.1,
            "learning_rate": 2e-3,
            "warmup": 0.5,
        }
        everything = {
            "lora": {"rank": 4, "dropout": 0.2},
            "projector": {"mode": "full"},
            "encoder": {"mode": "full", "blocks": 1},
            "ctc_head": {"mode": "full"},
        }
        return Recipe.model_validate(
            {
                "name": name,
                "runs": str(runs),
                "model": {"base": str(nano)},
                "train": {**settings, **train},
                "parts": everything if parts is None else parts,
                "machine": {"processes": 1, **(machine or {})},
                "data": {**{split: [path] for split, path in corpora.items()}, "max_duration": 4.0},
                "augment": {"speed": 0.1, "gain_db": 3, "noise_db": 20, "mel_mask": 8, "time_mask": 8},
                "decode": {"max_new_tokens": 6},
                "export": {"clips": 3},
            }
        )

    return recipe


@pytest.fixture(scope="session")
def narrow(model: "Callable[[], SpeechModel]", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded model, rounded to bfloat16."""
    import torch

    folder, rounded = tmp_path_factory.mktemp("narrow"), model()
    rounded.hf.to(torch.bfloat16).save_pretrained(folder)
    rounded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(
    tiny: "Callable[..., Recipe]", tmp_path_factory: pytest.TempPathFactory
) -> Iterator["tuple[Recipe, RunDir, SpeechModel]"]:
    """A run that is complete up to `train` without an interruption, and the model in memory after training."""
    from dataclasses import replace

    from finetune.pipeline import STAGES, run_recipe
    from finetune.training.trainer import Trainer

    trainers: list[Trainer] = []

    def train(recipe: "Recipe", run: "RunDir") -> Any:
        trainers.append(Trainer(recipe, run))
        return trainers[-1].fit()

    recipe = tiny(tmp_path_factory.mktemp("runs"), "whole")
    stages = [replace(stage, run=train) if stage.name == "train" else stage for stage in STAGES]
    run = run_recipe(recipe, "train", stages)
    (trainer,) = trainers
    files = sorted(run.root.rglob("*"))
    yield recipe, run, trainer.model
    changed = set(files) ^ set(run.root.rglob("*"))
    assert not changed, f"a test wrote into the shared run; let it use a copy: {sorted(map(str, changed))}"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Stand-ins for wandb, trackio and tensorboard."""
    return install_fakes(monkeypatch)
