"""Recipes as YAML and `--set`: what is read, what is refused, and where the message points."""

from pathlib import Path

import pytest
from recipe_helpers import DATA, value

from finetune.core.config import Recipe
from finetune.core.errors import RecipeError
from finetune.core.recipe import Setting, known_keys, load_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def load(path: Path, text: str, *overrides: str) -> Recipe:
    path.write_text(text)
    return load_recipe(path, list(overrides))[0]


def refusal(path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, text, *overrides)
    return str(caught.value)


def test_every_setting_is_listed_once_with_its_origin(recipe: Path) -> None:
    recipe.write_text(DATA + "train:\n  epochs: 3\n  learning_rate: 3e-5\n")
    found, settings = load_recipe(recipe, ["train.learning_rate=5e-5"])
    assert [setting.key for setting in settings] == known_keys()
    by_key = {setting.key: setting for setting in settings}
    assert by_key["train.epochs"] == Setting("train.epochs", 3, f"{recipe}:6")
    assert by_key["train.learning_rate"] == Setting("train.learning_rate", 5e-5, "--set train.learning_rate=5e-5")
    assert by_key["train.warmup"] == Setting("train.warmup", 0.1, "default")
    assert by_key["data.train"] == Setting("data.train", ["a.jsonl"], f"{recipe}:2")
    assert by_key["name"] == Setting("name", "mine", "default")
    assert found.train.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("line", "key", "wanted"),
    [
        ("train:\n  learning_rate: 1e-5", "train.learning_rate", 1e-5),  # YAML 1.1: a string
        ("machine:\n  cache_encoder: no", "machine.cache_encoder", False),
        ("machine:\n  cache_encoder: On", "machine.cache_encoder", True),
        ("name: no", "name", "no"),  # YAML 1.1: False
        ("name: 007", "name", "007"),  # YAML 1.1: 7
        ("name: 12:30", "name", "12:30"),  # YAML 1.1: 750
        ("data.terms: null", "data.terms", None),
        ("data.terms: ~", "data.terms", None),
        ("data.terms:", "data.terms", None),
        ("data.terms: None", "data.terms", None),
        ("data.terms: 'null'", "data.terms", "null"),
        ("evaluate:\n  normalizer: none", "evaluate.normalizer", "none"),
        ("train:\n  epochs: 1_000", "train.epochs", 1000),
        ("parts:\n  lora:\n    rank: 8", "parts.lora.rank", 8),
        ("parts:\n  lora.rank: 8", "parts.lora.rank", 8),
        ("parts:\n  projector:\n  # frozen", "parts.projector.mode", "frozen"),
        ("parts.encoder.learning_rate: none", "parts.encoder.learning_rate", None),
        ("machine:\n  trackers: [wandb, trackio]", "machine.trackers", ["wandb", "trackio"]),
        ("data.canary: d.jsonl, e.csv", "data.canary", ["d.jsonl", "e.csv"]),
        ("data.canary:\n- d.jsonl\n- hf:org/set:test", "data.canary", ["d.jsonl", "hf:org/set:test"]),
        ("data.canary:", "data.canary", []),
        ("augment:\n  # all off", "augment.speed", 0.0),  # a section without settings
    ],
)
def test_values_are_what_their_field_says(recipe: Path, line: str, key: str, wanted: object) -> None:
    assert value(load(recipe, DATA + line + "\n"), key) == wanted


@pytest.mark.parametrize(
    ("override", "key", "wanted"),
    [
        ("train.learning_rate=1e-5", "train.learning_rate", 1e-5),
        ("data.train=x.jsonl,y.csv", "data.train", ["x.jsonl", "y.csv"]),
        ("data.train=[x.jsonl, y.csv]", "data.train", ["x.jsonl", "y.csv"]),
        ("data.canary=", "data.canary", []),
        ("data.terms=none", "data.terms", None),
        ("model.instruction=a=b", "model.instruction", "a=b"),
        (" train.epochs =2", "train.epochs", 2),
    ],
)
def test_set_goes_over_the_file(recipe: Path, override: str, key: str, wanted: object) -> None:
    assert value(load(recipe, DATA + "model:\n  instruction: x\n", override), key) == wanted


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train.learning_rte", "train.learning_rate"),
        ("train.learningrate", "train.learning_rate"),
        ("learning_rate", "train.learning_rate"),
        ("train.max_new_tokens", "decode.max_new_tokens"),
        ("train.lora_rank", "parts.lora.rank"),
        ("train.encoder_blocks", "parts.encoder.blocks"),
        ("train.workers", "machine.workers"),
        ("encoder.mode", "parts.encoder.mode"),
        ("decode.batch_second", "decode.batch_seconds"),
        ("nam", "name"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(recipe: Path, key: str, near: str) -> None:
    assert refusal(recipe, DATA + f"{key}: 1\n") == f"{recipe}:5: unknown key '{key}'; did you mean '{near}'?"
    assert refusal(recipe, DATA, f"{key}=1") == f"--set {key}=1: unknown key '{key}'; did you mean '{near}'?"


def test_a_key_like_no_other_is_refused_without_a_guess(recipe: Path) -> None:
    assert refusal(recipe, DATA + "zzz: 1\n") == f"{recipe}:5: unknown key 'zzz'"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train:\n  epochs: many",
            "6: train.epochs: Input should be a valid integer, unable to parse string as an integer, got 'many'",
        ),
        ("train:\n  epochs: 0", "6: train.epochs: Input should be greater than or equal to 1, got '0'"),
        ("train:\n  epochs: 2.5", "6: train.epochs: Input should be a valid integer"),
        ("train:\n  epochs:", "6: train.epochs: Input should be a valid integer, got None"),
        ("train:\n  epochs: [1, 2]", "6: train.epochs: Input should be a valid integer, got ['1', '2']"),
        ("machine:\n  cache_encoder: perhaps", "6: machine.cache_encoder: Input should be a valid boolean"),
        ("train:\n  learning_rate: nan", "6: train.learning_rate: Input should be"),
        (
            "decode:\n  decoder: beam",
            "6: decode.decoder: Input should be 'greedy', 'speculative' or 'relaxed', got 'beam'",
        ),
        ("data.canary:\n- a: b", "5: data.canary: a list of plain values is wanted"),
        ("train: 3", "5: 'train' is a section; its settings stand below it, indented"),
        ("parts:\n  lora: 8", "6: 'parts.lora' is a section; its settings stand below it, indented"),
        (
            "parts:\n  encoder:\n    mode: some",
            "7: parts.encoder.mode: Input should be 'frozen', 'full' or 'lora', got",
        ),
        (
            "machine:\n  trackers: [wandb, tensorbord]",
            "6: machine.trackers: Input should be 'wandb', 'tensorboard' or 'trackio', got 'tensorbord'",
        ),
        (
            "train:\n  goal: accents",
            "6: train.goal: Input should be 'vocabulary', 'accent', 'domain' or 'language', got 'accents'",
        ),
        ("train:\n  goal: [accent]", "6: train.goal: Input should be"),
        ("train:\n  epochs: 1\ntrain:\n  epochs: 2", "8: train.epochs stands twice"),
        ("train:\n\tepochs: 1", "6: not valid YAML: found character '\\t' that cannot start any token (indent with "),
        ("train: {epochs: 1", "6: not valid YAML: "),
    ],
)
def test_a_wrong_value_is_refused_at_its_line(recipe: Path, line: str, message: str) -> None:
    assert refusal(recipe, DATA + line + "\n").startswith(f"{recipe}:{message}")


def test_all_wrong_values_are_named_at_once(recipe: Path) -> None:
    lines = refusal(recipe, "train:\n  epochs: x\n", "seed=y").splitlines()
    assert [line.split(": Input")[0] for line in lines] == [
        "--set seed=y: seed",
        f"{recipe}: data: Field required",
        f"{recipe}:2: train.epochs",
    ]


def test_a_contradiction_is_refused_with_the_override_that_brought_it(recipe: Path) -> None:
    assert refusal(recipe, DATA, "parts.lora.rank=0").startswith(
        "--set parts.lora.rank=0: parts.lora.rank: nothing would be trained"
    )
    assert refusal(recipe, DATA, "train.epochs") == "--set train.epochs: wants key=value"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the recipe is empty"),
        (b"# only words\n", "the recipe is empty"),
        (b"- a\n- b\n", "a recipe is a mapping"),
        (b"just words\n", "a recipe is a mapping"),
        (b"name: \xff\n", "cannot be read"),
        (b"name: a\x01b\n", "not valid YAML"),
    ],
)
def test_what_is_no_recipe_is_refused(recipe: Path, content: bytes, message: str) -> None:
    recipe.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(recipe)
    assert str(caught.value).startswith(str(recipe))


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: no such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)
