"""Defaults of the recipe, presets of a goal, contradictions, and modules that must not import torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from recipe_helpers import RECIPE

from finetune.core.config import ModelSection, Recipe
from finetune.core.contradictions import contradictions
from finetune.core.data_config import DataSection
from finetune.core.errors import RecipeError
from finetune.core.goals import GOALS
from finetune.core.recipe import get_setting, known_keys, load_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_defaults_are_valid_and_do_not_contradict_each_other() -> None:
    plain = Recipe(name="x", model=ModelSection(base="-"), data=DataSection(train=["a"], valid=["b"], test=["c"]))
    assert Recipe.model_validate(plain.model_dump(mode="json")) == plain
    assert contradictions(plain) == []


def test_a_recipe_is_frozen(recipe: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(recipe)[0].train.epochs = 2  # type: ignore[misc]


# Goals


@pytest.mark.parametrize("goal", GOALS)
def test_a_goal_sets_the_unset_keys_and_is_their_origin(recipe: Path, goal: str) -> None:
    recipe.write_text(RECIPE + f"train:\n  goal: {goal}\n")
    loaded, settings = load_recipe(recipe)
    plain, _ = load_recipe(recipe, ["train.goal=none"])
    assert GOALS[goal].keys() <= set(known_keys())
    assert {setting.key for setting in settings if setting.origin == f"goal {goal}"} == GOALS[goal].keys()
    for setting in settings:
        if setting.key in GOALS[goal]:
            assert str(setting.value).lower().removesuffix(".0") == GOALS[goal][setting.key]
        elif setting.key != "train.goal":
            assert setting.value == get_setting(plain, setting.key)
    assert loaded.train.goal == goal


def test_the_recipe_overrides_its_goal(recipe: Path) -> None:
    recipe.write_text(RECIPE + "train:\n  goal: accent\nparts:\n  projector:\n    mode: frozen\n")
    loaded, settings = load_recipe(recipe, ["augment.speed=0"])
    origins = {setting.key: setting.origin for setting in settings}
    assert (loaded.parts.projector.mode, origins["parts.projector.mode"]) == ("frozen", f"{recipe}:9")
    assert (loaded.augment.speed, origins["augment.speed"]) == (0.0, "--set augment.speed=0")
    assert (loaded.parts.encoder.mode, origins["parts.encoder.mode"]) == ("lora", "goal accent")
    other, settings = load_recipe(recipe, ["train.goal=vocabulary"])
    assert (other.parts.lora.rank, other.parts.encoder.mode, other.parts.projector.mode) == (32, "full", "frozen")


def test_a_contradiction_with_a_goal_names_the_goal(recipe: Path) -> None:
    recipe.write_text(RECIPE + "train:\n  goal: domain\n  ctc_weight: 0\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe)
    assert str(caught.value).startswith(
        f"{recipe}:6: parts.ctc_head.mode, set by train.goal: domain: the CTC head trains on"
    )


# Contradictions

PAIRS = [
    ("parts:\n  lora:\n    rank: 0", "7: parts.lora.rank: nothing would be trained"),
    ("parts:\n  lora:\n    modules: []", "7: parts.lora.modules: LoRA needs at least one module"),
    ("train:\n  ctc_weight: 0.5", "6: train.ctc_weight: the CTC loss trains the encoder or its CTC head"),
    ("parts:\n  ctc_head:\n    mode: full", "7: parts.ctc_head.mode: the CTC head trains on the CTC loss only"),
    ("data.min_duration: 30", "5: data.min_duration: must be below data.max_duration"),
    (
        "train:\n  batch_seconds: 29.9\naugment:\n  concat: 0.1",
        "6: train.batch_seconds: must be at least data.max_duration",
    ),
    ("train:\n  max_canary_loss: 0.02", "6: train.max_canary_loss: is measured on data.canary"),
    ("machine:\n  cache_encoder: yes\naugment:\n  time_mask: 5", "6: machine.cache_encoder: augmented audio differs"),
    ("machine:\n  cache_encoder: yes\nparts:\n  encoder:\n    mode: lora", "6: machine.cache_encoder: the encoder or"),
    ("machine:\n  cache_encoder: yes\ntrain.goal: accent", "6: machine.cache_encoder: augmented audio differs"),
    ("model:\n  quantize: 4bit\nparts:\n  lora:\n    variant: dora", "9: parts.lora.variant: DoRA learns the row"),
    ("name: a/b", "5: name: must be a folder name"),
    ("name: ..", "5: name: must be a folder name"),
    ("name: ''", "5: name: must be a folder name"),
]


@pytest.mark.parametrize(("lines", "message"), PAIRS)
def test_a_contradiction_is_refused_with_its_line(recipe: Path, lines: str, message: str) -> None:
    recipe.write_text(RECIPE + lines + "\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe)
    assert str(caught.value).startswith(f"{recipe}:{message}")


@pytest.mark.parametrize(
    "overrides",
    [
        ["parts.lora.rank=0", "parts.projector.mode=lora"],
        ["parts.lora.rank=0", "parts.lora.modules=", "parts.language_model.layers=2"],
        ["train.ctc_weight=0.5", "parts.encoder.mode=lora"],
        ["train.ctc_weight=0.5", "parts.ctc_head.mode=full"],
        ["train.max_canary_loss=0.02", "data.canary=d.jsonl"],
        ["machine.cache_encoder=yes", "parts.projector.mode=full"],
        ["data.max_duration=60", "train.batch_seconds=60"],
    ],
)
def test_valid_combinations_are_accepted(recipe: Path, overrides: list[str]) -> None:
    load_recipe(recipe, overrides)


def test_recipes_help_and_reports_import_no_torch() -> None:
    modules = [
        "finetune.core.errors",
        "finetune.core.files",
        "finetune.core.run_dir",
        "finetune.core.config",
        "finetune.core.data_config",
        "finetune.core.recipe",
        "finetune.data.manifest",
        "finetune.data.prepare",
        *(f"finetune.metrics.{path.stem}" for path in sorted((ROOT / "finetune" / "metrics").glob("[!_]*.py"))),
        "finetune.report.summary",
        "finetune.training.launch",
        "finetune.pipeline",
        "finetune.partial_runs",
        "finetune.cli.main",
    ]
    assert len(modules) > 10
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
        "    assert not {'torch', 'transformers'} & set(sys.modules), name"
    )
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
