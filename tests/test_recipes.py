"""Every recipe that ships: it resolves, it says what it needs, and its data can be had. The real model's sizes."""

import re
from pathlib import Path

import pytest
import yaml

from finetune.config import load_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def header(path: Path) -> str:
    """The comment above the first key."""
    lines = path.read_text(encoding="utf-8").splitlines()
    count = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:count])


def test_there_are_recipes() -> None:
    assert {"quickstart.yaml", "ivr_telephone.yaml", "granite_1b.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_resolves_and_says_what_it_needs(path: Path) -> None:
    recipe, settings = load_recipe(path)
    assert recipe.name == path.stem
    assert all(setting.origin == "default" or setting.origin.startswith(f"{path}:") for setting in settings)
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
    sources = [*data.train, *data.valid, *data.test, *data.canary, *([data.terms] if data.terms else [])]
    makers = [ROOT / name for name in re.findall(r"scripts/\w+", header(path))]
    for source in sources:
        if source.startswith("my_data/"):
            assert "my_data/" in header(path) and "your" in header(path)
        elif not (ROOT / source).exists():
            folder = Path(source).parent.name
            assert any(folder in script.read_text(encoding="utf-8") for script in makers), f"where is {source} from?"


def test_one_gpu_and_four_make_the_same_optimizer_steps() -> None:
    one, four = (yaml.safe_load((ROOT / "recipes" / f"granite_1b{which}.yaml").read_text())
                 for which in ("", "_multi_gpu"))
    assert one["train"].pop("accumulation") == 4 * four["train"].pop("accumulation")
    assert one == four


def test_the_real_model_has_the_parts_and_the_lora_that_the_recipe_counts_on() -> None:
    from transformers import GraniteSpeechConfig

    from finetune.model.outline import count_parts, lora_targets, on_meta

    # The values of ibm-granite/granite-4.0-1b-speech; its weights are not here.
    hf = on_meta(GraniteSpeechConfig.from_pretrained(Path(__file__).parent / "data" / "granite-4.0-1b-speech"))
    assert count_parts(hf) == {
        "encoder": 440_168_796, "projector": 35_697_664, "language model": 1_631_752_192, "lm_head": 205_522_944}

    train = load_recipe(ROOT / "recipes" / "granite_1b.yaml")[0].train
    assert train.lora_modules == ALL_LINEAR and train.lora_rank == 16
    targets = lora_targets(hf, train.lora_modules)
    assert len(targets) == 280 == 7 * 40
    assert all("language_model.layers." in name for name in targets)
    assert sum(16 * (layer.in_features + layer.out_features) for layer in targets.values()) == 20_316_160
