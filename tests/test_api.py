"""The Python API: names, recipes, stages with typed results, callbacks."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest

import finetune
from finetune.core import config
from finetune.core.errors import CheckpointError, ModelError, RecipeError
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir

ROOT = Path(__file__).resolve().parents[1]


class Recorder:
    """A trainer callback that records its calls."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.wers: list[float] = []
        self.messages: list[str] = []
        self.closed = 0

    def on_step(self, record: Any) -> None:
        self.losses.append(record.loss)

    def on_validation(self, record: Any) -> None:
        self.wers.append(record.wer)

    def on_skipped_clip(self, record: Any) -> None:
        raise AssertionError(record)

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None:
        self.closed += 1


def test_importing_the_package_is_fast_and_without_torch() -> None:
    code = (
        "import time; start = time.perf_counter(); import finetune; spent = time.perf_counter() - start; "
        "import sys; print(spent, 'torch' in sys.modules, sorted(set(finetune.__all__) - set(dir(finetune))))"
    )
    times: list[float] = []
    for _ in range(3):  # the fastest of three: other work on the machine only adds to it
        command = [sys.executable, "-c", code]
        seconds, torch, missing = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert torch == "False" and missing == "[]"
        times.append(float(seconds))
    assert min(times) < 0.1


def test_every_public_name_exists() -> None:
    assert {"load", "transcribe", "Recipe", "prepare", "train", "evaluate", "export", "run", "compare"} <= {
        *finetune.__all__
    }
    for name in finetune.__all__:
        assert getattr(finetune, name) is not None
    with pytest.raises(AttributeError, match="transcripe"):
        _ = finetune.transcripe  # type: ignore[attr-defined]


def test_a_recipe_from_values_equals_the_recipe_of_a_file() -> None:
    path = ROOT / "recipes" / "quickstart.yaml"
    read = finetune.Recipe.from_yaml(path, ["train.epochs=3"])
    assert isinstance(read, finetune.Recipe) and read.train.epochs == 3 and read.name == "quickstart"
    made = finetune.Recipe(
        name="quickstart", model={"base": read.model.base}, data=read.data.model_dump(),
        parts={"lora": {"learning_rate": 1.6e-3}, "lm_head": {"mode": "full"}}, machine={"processes": 2},
        train={"goal": "vocabulary", "epochs": 3, "batch_seconds": 7.5, "learning_rate": 5e-4, "evaluate_every": 2,
               "interpolate": [0.85, 0.7], "max_canary_loss": 0.01},
        decode={"decoder": "beam", "terms": "data/vocabulary/terms.txt"},
    )  # fmt: skip
    assert made == read, "the preset of the goal is part of both"


def test_a_recipe_takes_sections_of_another_one() -> None:
    read = finetune.Recipe.from_yaml(ROOT / "recipes" / "quickstart.yaml")
    made = finetune.Recipe(
        name="other", model=read.model, data=read.data, decode=DecodingOptions("greedy"), machine=read.machine
    )
    assert (made.model, made.data, made.machine) == (read.model, read.data, read.machine)
    assert made.decode == DecodingOptions("greedy")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"epoch": 3}}, "Recipe: unknown key 'train.epoch'; did you mean 'train.epochs'?"),
        ({"train": {"epochs": 0}}, "Recipe: train.epochs: Input should be greater than or equal to 1, got 0"),
        ({"train": {"shrink": [0.9]}}, "'train.shrink' was renamed to 'train.interpolate'"),
        ({"train": {"ctc_weight": 1.0}}, "Recipe: train.ctc_weight: "),
        ({"model": {}}, "Recipe: model.base: required"),
        ({"data": {"train": 5}}, "Recipe: data.train: Input should be a valid list, got 5"),
    ],
)
def test_a_wrong_recipe_is_a_recipe_error(values: dict[str, Any], message: str) -> None:
    plain = {"name": "x", "model": {"base": "x"}, "data": {split: ["x"] for split in ("train", "valid", "test")}}
    with pytest.raises(RecipeError) as caught:
        finetune.Recipe(**{**plain, **values})
    assert message in str(caught.value)


def test_a_data_set_in_the_place_of_a_file_is_refused() -> None:
    table = pyarrow.table({"audio_filepath": ["a.wav"], "text": ["a"]})
    with pytest.raises(RecipeError, match=r"^Recipe: data\.test: must be a list of files, got a Table; write it to "):
        finetune.Recipe(name="x", model={"base": "b"}, data={"test": table})


def test_a_recipe_takes_tuples_and_paths() -> None:
    text = finetune.Recipe(name="x", model={"base": "b"}, data={name: ["c/d"] for name in ("train", "valid", "test")})
    made = finetune.Recipe(
        name="x", runs=Path("runs"), model={"base": Path("b")},
        data={"train": Path("c/d"), "valid": (Path("c/d"),), "test": [{"path": Path("c/d")}]},
        train={"interpolate": ()},
    )  # fmt: skip
    assert made == text


@pytest.fixture(scope="module")
def recipe(tiny: Callable[..., config.Recipe], tmp_path_factory: pytest.TempPathFactory) -> config.Recipe:
    return tiny(tmp_path_factory.mktemp("api"), "api")


def test_the_stages_return_typed_results(recipe: config.Recipe) -> None:
    prepared = finetune.prepare(recipe)
    assert prepared.kept["train"] == 6 and prepared.hours["test"] > 0

    recorder = Recorder()
    trained = finetune.train(recipe, callbacks=[recorder])
    assert len(recorder.losses) == trained.steps > 1 and all(loss > 0 for loss in recorder.losses)
    assert min(recorder.wers) == trained.best_valid_wer and recorder.messages and recorder.closed == 1
    again = Recorder()
    assert finetune.train(recipe, callbacks=[again]) == trained and not again.losses, "done before"

    results = finetune.evaluate(recipe)
    base, adapted = results.scores["test"].base, results.scores["test"].adapted
    assert adapted.wer >= 0 and base.utterances == 3

    exported = finetune.export(recipe)
    summary = finetune.run(recipe)
    assert summary.export.dir == exported.dir and summary.scores["test"].adapted.wer == adapted.wer
    written = json.loads(RunDir(f"{recipe.runs}/{recipe.name}").summary.read_text())
    assert written["scores"]["test"]["adapted"]["wer"] == adapted.wer

    root = f"{recipe.runs}/{recipe.name}"
    compared = finetune.compare([f"{root}:base", Path(root)], replicas=100, fail_if=["wer > 1000"])
    assert compared.clips == 3 and compared.fired == []
    transcript = finetune.load(exported.dir).transcribe(
        ROOT / "data/vocabulary/audio/canary/canary-001-en-us-f3.opus", max_new_tokens=3
    )
    assert isinstance(transcript.text, str)


def test_callbacks_need_one_process(recipe: config.Recipe) -> None:
    two = recipe.model_copy(update={"machine": recipe.machine.model_copy(update={"processes": 2})})
    with pytest.raises(RecipeError, match=r"callbacks need training in one process; set machine\.processes to 1"):
        finetune.train(two, callbacks=[Recorder()])


@pytest.mark.parametrize("callbacks", [[print], [Recorder], Recorder()])
def test_what_is_not_a_callback_is_refused_before_any_stage(recipe: config.Recipe, callbacks: Any) -> None:
    with pytest.raises(RecipeError, match=r"^callbacks: got .*; give a list of objects .*, such as \[PrintLoss\(\)\]$"):
        finetune.train(recipe.model_copy(update={"name": "refused"}), callbacks=callbacks)
    assert not Path(recipe.runs, "refused").exists()


def test_values_of_another_type_are_refused_with_what_to_give() -> None:
    with pytest.raises(RecipeError, match=r"^systems: must be a list, got 'runs/my'; write \['runs/my', ...\]$"):
        finetune.compare("runs/my")
    with pytest.raises(RecipeError, match="^fail_if: must be a list"):
        finetune.compare(["a", "b"], fail_if="wer > base")
    for name in ("manifest", "terms", "hypotheses"):
        with pytest.raises(RecipeError, match=rf"^{name}: must be a path, got \['x'\]$"):
            finetune.compare(["a", "b"], **{name: ["x"]})  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="^expected the path of a recipe file, got None$"):
        finetune.Recipe.from_yaml(None)  # type: ignore[arg-type]
    for overrides in ("train.epochs=2", {"train.epochs": 2}, [("train.epochs", 2)]):
        with pytest.raises(RecipeError, match=r"^overrides: must be a list such as \['train\.epochs=2'\]"):
            finetune.Recipe.from_yaml(ROOT / "recipes/quickstart.yaml", overrides)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="^expected a model folder or a hub name, got None$"):
        finetune.load(None)  # type: ignore[arg-type]


def test_comparing_needs_two_systems() -> None:
    with pytest.raises(RecipeError):
        finetune.compare(["runs/none"])
    with pytest.raises(RecipeError, match="normalizer"):
        finetune.compare(["a", "b"], normalizer="none@9")


def test_another_recipe_in_the_same_directory_is_a_checkpoint_error(recipe: config.Recipe) -> None:
    finetune.train(recipe)
    other = recipe.model_copy(update={"seed": 2})
    with pytest.raises(CheckpointError):
        finetune.train(other)


@pytest.mark.parametrize("recipe", ["my.yaml", {"name": "my"}])
def test_a_path_or_dict_is_not_a_recipe(recipe: Any) -> None:
    for function in (finetune.run, finetune.prepare, finetune.train, finetune.evaluate, finetune.export):
        with pytest.raises(RecipeError, match=r"expected a recipe, got .*Recipe\.from_yaml"):
            function(recipe)
