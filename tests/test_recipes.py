"""Every recipe that ships: it resolves, it says what it needs, and its data can be had. The real model's sizes."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from compare_goals import OWN, with_goal
from finetune.core.config import GOALS
from finetune.core.contradictions import contradictions
from finetune.core.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def header(path: Path) -> str:
    """The comment above the first key."""
    lines = path.read_text(encoding="utf-8").splitlines()
    count = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:count])


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """ibm-granite/granite-4.0-1b-speech as far as it is here: its configuration, with a file in place of weights."""
    (tmp_path / "model.safetensors").touch()
    shutil.copy(ROOT / "tests" / "fixtures" / "granite-4.0-1b-speech" / "config.json", tmp_path)
    return tmp_path


def test_there_are_recipes() -> None:
    assert {"quickstart.yaml", "ivr_telephone.yaml", "granite_1b.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_resolves_and_says_what_it_needs(path: Path) -> None:
    recipe, settings = load_recipe(path)
    assert recipe.name == path.stem
    assert all(setting.origin.startswith(("default", "goal ", f"{path}:")) for setting in settings)
    for word in ("Needs:", "Run", "Override:", f"recipes/{path.name}"):
        assert word in header(path), f"the header of {path.name} lacks {word!r}"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_a_header_tells_to_type_is_a_setting_of_the_recipe(path: Path) -> None:
    overrides = re.findall(r"--set '?([\w.]+=[^\s';,`]+)", header(path))
    assert overrides
    for override in overrides:
        load_recipe(path, [override])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_data_of_a_recipe_is_here_or_the_header_says_where_from(path: Path) -> None:
    data = load_recipe(path)[0].data
    sources = [*data.train, *data.replay, *data.valid, *data.test, *data.canary, *([data.terms] if data.terms else [])]
    makers = [ROOT / name for name in re.findall(r"scripts/\w+", header(path))]
    for source in sources:
        if source.startswith("my_data/"):
            assert "my_data/" in header(path) and "your" in header(path)
        elif source.startswith("hf:"):
            assert "from the hub" in header(path)
        elif not (ROOT / source).exists():
            folder = Path(source).parent.name
            assert any(folder in script.read_text(encoding="utf-8") for script in makers), f"where is {source} from?"


@pytest.mark.parametrize("goal", [OWN, *GOALS])
@pytest.mark.parametrize("name", ["quickstart", "ivr_telephone"])
def test_a_goal_can_stand_in_for_what_a_recipe_trains(name: str, goal: str) -> None:
    """As scripts/compare_goals.py lets it: the preset and nothing of the recipe's own parts and augmentation."""
    recipe, _ = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    found = with_goal(recipe, goal, 6)
    assert not contradictions(found) and found.name == f"{name}-{goal}"
    assert (found.data, found.train.epochs, found.train.learning_rate) == (
        recipe.data,
        recipe.train.epochs,
        recipe.train.learning_rate,
    )
    if goal == OWN:
        assert (found.parts, found.augment, found.train) == (recipe.parts, recipe.augment, recipe.train)
        return
    alone, _ = load_recipe(ROOT / "recipes" / "granite_1b.yaml", [f"train.goal={goal}"])  # it sets the projector alone
    encoder = alone.parts.encoder.model_copy(update={"blocks": min(6, alone.parts.encoder.blocks)})
    assert (found.parts.lora, found.parts.encoder) == (alone.parts.lora, encoder)
    assert (found.augment, found.train.ctc_weight) == (alone.augment, alone.train.ctc_weight)


def test_replay_is_none_of_what_is_scored() -> None:
    replayed = [data for data in (load_recipe(path)[0].data for path in RECIPES) if data.replay]
    assert replayed
    for data in replayed:
        assert not set(data.replay) & {*data.train, *data.valid, *data.test, *data.canary}


def test_one_gpu_and_four_make_the_same_optimizer_steps() -> None:
    one, four = (
        yaml.safe_load((ROOT / "recipes" / f"granite_1b{which}.yaml").read_text()) for which in ("", "_multi_gpu")
    )
    assert one["train"].pop("accumulation") == 4 * four["train"].pop("accumulation")
    assert one == four


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_a_recipe_trains_is_there_in_its_base(path: Path, real: Path) -> None:
    from finetune.model.model_summary import summarize_model
    from finetune.training.trainer import trainable_parts

    recipe, _ = load_recipe(path)
    base = real if recipe.model.base.startswith("ibm-granite/") else ROOT / recipe.model.base
    lines = summarize_model(str(base), None, trainable_parts(recipe))
    parts = {name for name, part in recipe.parts if getattr(part, "mode", "frozen") != "frozen"}
    parts |= {"lora"} if recipe.parts.lora.rank else set()
    assert {line.split()[0] for line in lines[lines.index("trains:") + 1 :]} == parts


def test_the_real_model_has_the_parts_and_the_lora_that_the_recipe_counts_on(real: Path) -> None:
    from finetune.model.model_summary import summarize_model
    from finetune.training.trainer import trainable_parts

    recipe, _ = load_recipe(ROOT / "recipes" / "granite_1b.yaml")
    assert recipe.parts.lora.modules == ALL_LINEAR and recipe.parts.lora.rank == 16
    assert [" ".join(line.split()) for line in summarize_model(str(real), None, trainable_parts(recipe))] == [
        "encoder 440,168,796 parameters",
        "projector 35,697,664 parameters",
        "language model 1,631,752,192 parameters",
        "lm_head 205,522,944 parameters",
        "",
        "trains:",
        "projector 35,697,664 parameters in 57 tensors of 29 modules",
        "lora 20,316,160 parameters in 560 tensors of 280 modules",
    ]
