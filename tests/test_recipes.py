"""The recipes in recipes/: each loads, its header names what it needs, its data exists; part sizes of the 1B model."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from transformers import GraniteSpeechConfig

from compare_goals import OWN, with_goal
from finetune.core.contradictions import contradictions
from finetune.core.errors import DataError
from finetune.core.goals import GOALS
from finetune.core.recipe import load_recipe
from finetune.data.corpora import MADE_BY_SCRIPTS, preview_rows
from finetune.model.granite import on_meta

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def header(path: Path) -> str:
    """The comment above the first key of a recipe."""
    lines = path.read_text(encoding="utf-8").splitlines()
    count = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:count])


@pytest.fixture(scope="module")
def real_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration of ibm-granite/granite-4.0-1b-speech, and weights without content."""
    folder = tmp_path_factory.mktemp("granite")
    shutil.copy(ROOT / "tests" / "fixtures" / "granite-4.0-1b-speech" / "config.json", folder)
    rows, size = dict[str, object](), 0
    for name, value in on_meta(GraniteSpeechConfig.from_pretrained(folder), str(folder)).hf.state_dict().items():
        rows[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [size, size + 2 * value.numel()]}
        size += 2 * value.numel()
    header = json.dumps(rows).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # a sparse file: it takes no room on the disk
    nano = ROOT / "data" / "granite-speech-nano"
    for path in nano.glob("tokenizer*.json"):
        (folder / path.name).symlink_to(path)
    config, of_tokenizer = (json.loads((path / "config.json").read_text()) for path in (folder, nano))
    config["audio_token_index"] = of_tokenizer["audio_token_index"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_documented_recipes_exist() -> None:
    assert {"quickstart.yaml", "ivr_telephone.yaml", "granite_1b.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_header_is_complete(path: Path) -> None:
    recipe, settings = load_recipe(path)
    assert recipe.name == path.stem
    assert all(setting.origin.startswith(("default", "goal ", f"{path}:")) for setting in settings)
    for word in ("Needs:", "Run", "Override:", f"recipes/{path.name}"):
        assert word in header(path), f"the header of {path.name} lacks {word!r}"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_overrides_in_a_header_are_valid(path: Path) -> None:
    overrides = re.findall(r"--set '?([\w.]+=[^\s';,`]+)", header(path))
    assert overrides
    for override in overrides:
        load_recipe(path, [override])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_data_of_a_recipe_exists_or_its_header_names_the_source(path: Path) -> None:
    data = load_recipe(path)[0].data
    entries = [*data.train, *data.replay, *data.valid, *data.test, *data.canary]
    sources = [entry.path for entry in entries] + ([data.terms] if data.terms else [])
    makers = [ROOT / name for name in re.findall(r"scripts/\w+(?:\.py)?", header(path))]
    for source in sources:
        if source.startswith("my_data/"):
            assert "my_data/" in header(path) and "your" in header(path)
        elif source.startswith("hf:"):
            assert "from the hub" in header(path)
        elif not (ROOT / source).exists():
            folder = Path(source).parent.name
            assert any(folder in script.read_text(encoding="utf-8") for script in makers), (
                f"no source of {source} in the header"
            )
            assert MADE_BY_SCRIPTS[f"data/{folder}"] in header(path)
            with pytest.raises(DataError, match=f"; run {MADE_BY_SCRIPTS[f'data/{folder}']} first$"):
                preview_rows(source)


@pytest.mark.parametrize("goal", [OWN, *GOALS])
@pytest.mark.parametrize("name", ["quickstart", "ivr_telephone"])
def test_a_goal_replaces_the_parts_of_a_recipe(name: str, goal: str) -> None:
    """As in scripts/compare_goals.py: only the preset, without the recipe's own parts and augmentation."""
    recipe, _ = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    replaced = with_goal(recipe, goal, 6)
    assert not contradictions(replaced) and replaced.name == f"{name}-{goal}"
    assert (replaced.data, replaced.train.epochs, replaced.train.learning_rate) == (
        recipe.data,
        recipe.train.epochs,
        recipe.train.learning_rate,
    )
    if goal == OWN:
        assert (replaced.parts, replaced.augment, replaced.train) == (recipe.parts, recipe.augment, recipe.train)
        return
    alone, _ = load_recipe(ROOT / "recipes" / "granite_1b.yaml", [f"train.goal={goal}"])  # it sets only the projector
    blocks = alone.parts.encoder.blocks
    encoder = alone.parts.encoder.model_copy(update={"blocks": 6 if isinstance(blocks, str) else min(6, blocks)})
    assert (replaced.parts.lora, replaced.parts.encoder) == (alone.parts.lora, encoder)
    assert (replaced.augment, replaced.train.ctc_weight) == (alone.augment, alone.train.ctc_weight)


def test_replay_data_is_never_scored() -> None:
    replayed = [data for data in (load_recipe(path)[0].data for path in RECIPES) if data.replay]
    assert replayed
    for data in replayed:
        scored = {entry.path for entry in (*data.train, *data.valid, *data.test, *data.canary)}
        assert not {entry.path for entry in data.replay} & scored


def test_the_recipes_for_one_and_four_gpus_make_the_same_optimizer_steps() -> None:
    one, four = (
        yaml.safe_load((ROOT / "recipes" / f"granite_1b{suffix}.yaml").read_text()) for suffix in ("", "_multi_gpu")
    )
    assert one["train"].pop("accumulation") == 4 * four["train"].pop("accumulation")
    assert one == four


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_base_has_the_parts_that_a_recipe_trains(path: Path, real_config: Path) -> None:
    from finetune.model.model_summary import open_without_weights
    from finetune.training.parts import trainable_parts

    recipe, _ = load_recipe(path)
    source = recipe.model.base
    if source.startswith("runs/"):  # the export of a first stage
        source = load_recipe(path.with_name(f"{Path(source).parts[1]}.yaml"))[0].model.base
    base = real_config if source.startswith("ibm-granite/") else ROOT / source
    lines = open_without_weights(str(base), None, trainable_parts(recipe.parts))[1].lines()
    parts = {name for name, part in recipe.parts if getattr(part, "mode", "frozen") != "frozen"}
    parts |= {"lora"} if recipe.parts.lora.rank else set()
    parts |= {"language_model"} if recipe.parts.language_model.layers else set()
    assert {line.split()[0] for line in lines[lines.index("trainable:") + 1 :]} == parts


def test_part_and_lora_sizes_of_the_1b_model(real_config: Path) -> None:
    from finetune.model.model_summary import open_without_weights
    from finetune.training.parts import trainable_parts

    recipe, _ = load_recipe(ROOT / "recipes" / "granite_1b.yaml")
    assert recipe.parts.lora.modules == ALL_LINEAR and recipe.parts.lora.rank == 16
    lines = open_without_weights(str(real_config), None, trainable_parts(recipe.parts))[1].lines()
    assert [" ".join(line.split()) for line in lines] == [
        "encoder 440,168,796 parameters",
        "projector 35,697,664 parameters",
        "language model 1,631,752,192 parameters",
        "lm_head 205,522,944 parameters",
        "",
        "trainable:",
        "projector 35,697,664 parameters in 57 tensors of 29 modules",
        "lora 20,316,160 parameters in 560 tensors of 280 modules",
    ]


def test_terms_from_text_have_other_voices_and_sentences_than_the_test_set() -> None:
    vocabulary = ROOT / "data" / "vocabulary"
    rows = {
        split: [json.loads(line) for line in (vocabulary / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "valid", "test", "canary", "replay")
    }
    recorded = {row["speaker"] for items in rows.values() for row in items}
    voices = re.findall(r"\ben-[\w-]+\+\w+", (ROOT / "scripts" / "make_term_clips").read_text())
    assert len({*voices}) == len(voices) == 12 and not {voice.replace("+", "-") for voice in voices} & recorded
    assert not {voice.partition("+")[2] for voice in voices} & {name.rpartition("-")[2] for name in recorded}
    folder = ROOT / "recipes" / "vocabulary_from_text"
    terms, templates = ((folder / name).read_text().splitlines() for name in ("terms.txt", "templates.txt"))
    trained = {term for row in rows["train"] for term in row["terms"]}
    assert {*terms} == {*(vocabulary / "terms.txt").read_text().split()} - trained
    texts = {row["text"] for items in rows.values() for row in items}
    known = (vocabulary / "terms.txt").read_text().split()
    assert not {template.replace("{term}", term) for template in templates for term in known} & texts
