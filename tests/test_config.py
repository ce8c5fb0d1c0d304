"""Recipes: what is read, what is refused, and where the message points."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.config import Recipe, Setting, known_keys, load_recipe
from finetune.errors import RecipeError

ROOT = Path(__file__).resolve().parents[1]
DATA = "data:\n  train: [a.jsonl]\n  valid: [b.jsonl]\n  test: [c.jsonl]\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(DATA)
    return path


def load(path: Path, text: str, *overrides: str) -> Recipe:
    path.write_text(text)
    return load_recipe(path, list(overrides))[0]


def refusal(path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, text, *overrides)
    return str(caught.value)


def value(found: Recipe, key: str) -> Any:
    section, _, name = key.rpartition(".")
    return getattr(getattr(found, section) if section else found, name)


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


def test_a_recipe_cannot_be_changed_after_it_was_read(recipe: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(recipe, DATA).train.epochs = 2  # type: ignore[misc]


@pytest.mark.parametrize(("line", "key", "wanted"), [
    ("train:\n  learning_rate: 1e-5", "train.learning_rate", 1e-5),  # YAML 1.1: a string
    ("train:\n  projector: no", "train.projector", False),
    ("train:\n  projector: On", "train.projector", True),
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
    ("data.canary: d.jsonl, e.csv", "data.canary", ["d.jsonl", "e.csv"]),
    ("data.canary:\n- d.jsonl\n- hf:org/set:test", "data.canary", ["d.jsonl", "hf:org/set:test"]),
    ("data.canary:", "data.canary", []),
    ("augment:\n  # all off", "augment.speed", 0.0),  # a section without settings
])
def test_values_are_what_their_field_says(recipe: Path, line: str, key: str, wanted: object) -> None:
    assert value(load(recipe, DATA + line + "\n"), key) == wanted


@pytest.mark.parametrize(("override", "key", "wanted"), [
    ("train.learning_rate=1e-5", "train.learning_rate", 1e-5),
    ("data.train=x.jsonl,y.csv", "data.train", ["x.jsonl", "y.csv"]),
    ("data.train=[x.jsonl, y.csv]", "data.train", ["x.jsonl", "y.csv"]),
    ("data.canary=", "data.canary", []),
    ("data.terms=none", "data.terms", None),
    ("model.instruction=a=b", "model.instruction", "a=b"),
    (" train.epochs =2", "train.epochs", 2),
])
def test_set_goes_over_the_file(recipe: Path, override: str, key: str, wanted: object) -> None:
    assert value(load(recipe, DATA + "model:\n  instruction: x\n", override), key) == wanted


@pytest.mark.parametrize(("key", "near"), [
    ("train.learning_rte", "train.learning_rate"),
    ("train.learningrate", "train.learning_rate"),
    ("learning_rate", "train.learning_rate"),
    ("train.max_new_tokens", "decode.max_new_tokens"),
    ("decode.batch_second", "decode.batch_seconds"),
    ("nam", "name"),
])
def test_an_unknown_key_is_refused_with_the_nearest(recipe: Path, key: str, near: str) -> None:
    assert refusal(recipe, DATA + f"{key}: 1\n") == f"{recipe}:5: unknown key '{key}'; did you mean '{near}'?"
    assert refusal(recipe, DATA, f"{key}=1") == f"--set {key}=1: unknown key '{key}'; did you mean '{near}'?"


def test_a_key_like_no_other_is_refused_without_a_guess(recipe: Path) -> None:
    assert refusal(recipe, DATA + "zzz: 1\n") == f"{recipe}:5: unknown key 'zzz'"


@pytest.mark.parametrize(("line", "message"), [
    ("train:\n  epochs: many", "6: train.epochs: Input should be a valid integer, unable to parse string as an integer"
                               ", got 'many'"),
    ("train:\n  epochs: 0", "6: train.epochs: Input should be greater than or equal to 1, got '0'"),
    ("train:\n  epochs: 2.5", "6: train.epochs: Input should be a valid integer"),
    ("train:\n  epochs:", "6: train.epochs: Input should be a valid integer, got None"),
    ("train:\n  epochs: [1, 2]", "6: train.epochs: Input should be a valid integer, got ['1', '2']"),
    ("train:\n  projector: perhaps", "6: train.projector: Input should be a valid boolean"),
    ("train:\n  learning_rate: nan", "6: train.learning_rate: Input should be"),
    ("decode:\n  decoder: beam", "6: decode.decoder: Input should be 'greedy' or 'speculative', got 'beam'"),
    ("data.canary:\n- a: b", "5: data.canary: a list of plain values is wanted"),
    ("train: 3", "5: 'train' is a section; its settings stand below it, indented"),
    ("train:\n  epochs: 1\ntrain:\n  epochs: 2", "8: train.epochs stands twice"),
    ("train:\n\tepochs: 1", "6: not valid YAML: found character '\\t' that cannot start any token (indent with "),
    ("train: {epochs: 1", "6: not valid YAML: "),
    ("name: a/b", "5: name: must be a plain folder name"),
    ("name: ..", "5: name: must be a plain folder name"),
])
def test_a_wrong_value_is_refused_at_its_line(recipe: Path, line: str, message: str) -> None:
    assert refusal(recipe, DATA + line + "\n").startswith(f"{recipe}:{message}")


def test_all_wrong_values_are_named_at_once(recipe: Path) -> None:
    lines = refusal(recipe, "train:\n  epochs: x\n", "seed=y").splitlines()
    assert [line.split(": Input")[0] for line in lines] == [
        "--set seed=y: seed", f"{recipe}: data: Field required", f"{recipe}:2: train.epochs"]


@pytest.mark.parametrize(("overrides", "message"), [
    (["train.lora_rank=0"], "--set train.lora_rank=0: train.lora_rank: nothing would be trained"),
    (["train.lora_modules="], "--set train.lora_modules=: train.lora_modules: LoRA needs at least one"),
    (["train.ctc_weight=0.5"], "--set train.ctc_weight=0.5: train.ctc_weight: the CTC loss needs"),
    (["data.min_duration=40"], "--set data.min_duration=40: data.min_duration: must be below"),
    (["train.batch_seconds=20"], "--set train.batch_seconds=20: train.batch_seconds: must hold the longest clip"),
    (["train.epochs"], "--set train.epochs: wants key=value"),
])
def test_contradictions_are_refused(recipe: Path, overrides: list[str], message: str) -> None:
    assert refusal(recipe, DATA, *overrides).startswith(message)


@pytest.mark.parametrize(("content", "message"), [
    (b"", "the recipe is empty"),
    (b"# only words\n", "the recipe is empty"),
    (b"- a\n- b\n", "a recipe is a mapping"),
    (b"just words\n", "a recipe is a mapping"),
    (b"name: \xff\n", "cannot be read"),
    (b"name: a\x01b\n", "not valid YAML"),
])
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


def test_help_and_checks_need_no_torch() -> None:
    modules = ["finetune.errors", "finetune.runs", "finetune.config", "finetune.data.manifest", "finetune.prepare",
               *(f"finetune.metrics.{path.stem}" for path in sorted((ROOT / "finetune" / "metrics").glob("[!_]*.py"))),
               "finetune.summary", "finetune.pipeline", "finetune.cli"]
    assert len(modules) > 10
    code = ("import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
            "    assert not {'torch', 'transformers'} & set(sys.modules), name")
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
