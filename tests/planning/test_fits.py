"""A step that cannot fit is refused with its arithmetic and the settings that need less."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from command import Command

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.model.granite import SpeechModel, default_device
from finetune.planning.check import check_recipe
from finetune.planning.fits import cannot_fit, check_fits, check_training
from finetune.planning.memory import LessMemory, MemoryPlan

GB = 10**9
LESS = [LessMemory("train.optimizer: adamw-8bit", 23 * GB, 28 * GB)]
PLAN = MemoryPlan("cuda", "bfloat16", 2 * GB, 8 * GB, 8 * GB, 16 * GB, 5 * GB, GB, 0, 41 * GB, 49 * GB, None, LESS)
FULL: dict[str, object] = {"lora": {"rank": 0}, "language_model": {"layers": "all"}, "encoder": {"mode": "full"}}


def test_the_sum_and_the_settings_that_need_less_are_named(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny(tmp_path, "x", parts=FULL)
    with pytest.raises(DataError) as caught:
        check_fits(replace(PLAN, available=40 * GB), recipe)
    first, *settings = str(caught.value).split("\n")
    parts = ["2.0 GB frozen weights", "8.0 GB trained weights", "8.0 GB gradients", "16.0 GB optimizer"]
    total = " + ".join([*parts, "6.0 GB activations", "1.0 GB libraries"])
    assert f"at least 41.0 GB ({total}), and 40.0 GB are here" in first
    assert settings == [
        "  train.optimizer: adamw-8bit: 23.0 GB to 28.0 GB",
        "  LoRA: parts.language_model.layers: 0, parts.lora.rank: 16, parts.encoder.mode: lora",
        "  train.batch: auto, or a smaller train.batch_seconds",
    ]


def test_what_could_fit_is_not_refused(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe, auto = tiny(tmp_path, "x", parts=FULL), tiny(tmp_path, "x", parts=FULL, batch="auto")
    check_fits(PLAN, recipe)  # no such card here
    check_fits(replace(PLAN, available=41 * GB), recipe)
    check_fits(replace(PLAN, available=35 * GB), auto)
    assert cannot_fit(replace(PLAN, available=34 * GB), auto)
    with pytest.raises(DataError, match="35.0 GB .*optimizer . 1.0 GB libraries"):
        check_fits(replace(PLAN, available=34 * GB), auto)


def test_the_processes_on_a_cpu_share_its_memory(tiny: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe, three = tiny(tmp_path, "x", parts=FULL), replace(PLAN, device="cpu", processes=3)
    check_fits(replace(three, available=123 * GB), recipe)
    with pytest.raises(DataError) as caught:
        check_fits(replace(three, available=122 * GB), recipe)
    first, *settings = str(caught.value).split("\n")
    assert "libraries) in each of 3 processes, together 123 GB, and 122 GB are here" in first
    assert "  machine.processes: 2" in settings


def test_the_memory_of_three_processes_is_checked(trained: tuple[Recipe, RunDir, SpeechModel]) -> None:
    recipe, run, _ = trained
    (one,) = [plan for plan in check_recipe(recipe).memory if plan.device == "cpu"]
    check_training(recipe, run, 1, lambda device: 2 * one.low)
    with pytest.raises(DataError, match="in each of 3 processes"):
        check_training(recipe, run, 3, lambda device: 2 * one.low)


@pytest.mark.parametrize("batch", ["fixed", "auto"])
def test_check_and_train_refuse_a_device_that_is_too_small_with_the_same_text(
    trained: tuple[Recipe, RunDir, SpeechModel], batch: str
) -> None:
    recipe, run, _ = trained
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch": batch})})
    problems = check_recipe(recipe, memory=lambda device: 10**8).problems
    (problem,) = [
        line for line in problems if line.startswith("a training step does not fit on cpu: it needs at least")
    ]
    assert "100 MB are here" in problem and ("activations" in problem) == (batch == "fixed")
    with pytest.raises(DataError) as caught:
        check_training(recipe, run, 1, lambda device: 10**8)
    assert str(caught.value) == problem
    for available in (10**12, None):
        check_training(recipe, run, 1, lambda device, available=available: available)
        problems = check_recipe(recipe, memory=lambda device, available=available: available).problems
        assert not any("does not fit" in line for line in problems)


def test_a_base_that_cannot_be_opened_is_left_to_the_training(
    trained: tuple[Recipe, RunDir, SpeechModel], tmp_path: Path
) -> None:
    recipe, run, _ = trained
    model = recipe.model.model_copy(update={"base": str(tmp_path / "gone")})
    check_training(recipe.model_copy(update={"model": model}), run, 1, lambda device: 1)


def test_the_command_refuses_before_it_loads_the_model(
    tiny: Callable[..., Recipe], tmp_path: Path, finetune: Command
) -> None:
    path = tmp_path / "huge.yaml"
    parts: dict[str, object] = {"lora": {"rank": 10**9}}
    path.write_text(
        tiny(tmp_path, "huge", parts=parts, ctc_weight=0).model_dump_json(exclude_none=True)
    )  # JSON is YAML
    check, train = finetune("check", path), finetune("train", path)
    assert train.code == check.code == 1 and "a training step does not fit on" in train.err
    assert train.err.removeprefix("finetune: ").strip() in check.err
    run = RunDir(tmp_path / "huge")
    assert run.done("prepare") is not None and not run.checkpoint.exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("parts.encoder.blocks=99", "parts.encoder.blocks: 99, but the encoder has only 6"),
        ("train.optimizer=adamw-8bit", "bitsandbytes is not installed"),
        ("model.quantize=4bit", "model.quantize: 4bit needs a CUDA GPU"),
    ],
)
def test_what_needs_no_data_is_refused_before_prepare(
    finetune: Command, tiny: Callable[..., Recipe], tmp_path: Path, setting: str, message: str
) -> None:
    if ("CUDA" in message and default_device() == "cuda") or ("8bit" in setting and find_spec("bitsandbytes")):
        pytest.skip("this machine has it")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(tiny(tmp_path, "x").model_dump_json())
    result = finetune("run", recipe, "--set", setting)
    assert result.code == 1 and message in result.err
    assert not (tmp_path / "x").exists()
