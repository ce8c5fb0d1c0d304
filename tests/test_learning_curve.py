"""`finetune curve`: parts and their recipes, scoring, resuming, the page, and data that is too small."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command import Command
from conftest import embedded

from finetune.core.config import Recipe
from finetune.core.curation_options import CurveOptions
from finetune.core.data_config import CorpusEntry
from finetune.core.errors import DataError, RecipeError
from finetune.core.options import DecodingOptions
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.evaluation.decode_run import Backend
from finetune.inference.recognize import Hypothesis
from finetune.learning_curve import learning_curve, part_recipe
from finetune.metrics.curve_results import CurveResult
from finetune.pipeline import run_recipe
from finetune.report.curve_page import curve_page
from finetune.report.curve_text import curve_text

OPTIONS = CurveOptions(shares=(50, 75, 100))
EVERY = {"base": 2, "050": 3, "075": 4, "run": 5, "100": 5}  # each n-th word is wrong


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("corpora")
    sizes = {"train": 24, "valid": 3, "test": 14, "replay": 4}
    for split, count in sizes.items():
        write_manifest(folder / f"{split}.jsonl", embedded(split, count))
    return {split: [str(folder / f"{split}.jsonl")] for split in sizes}


@pytest.fixture
def recipe(tiny: Callable[..., Recipe], manifests: dict[str, list[str]], tmp_path: Path) -> Recipe:
    base = tiny(tmp_path / "runs", "run", parts={"lora": {"rank": 2}}, ctc_weight=0, epochs=6, evaluate_every=2)
    sets = {split: [CorpusEntry(path=path) for path in paths] for split, paths in manifests.items()}
    data = base.data.model_copy(update={**sets, "canary": [], "replay_weight": 0.5, "max_duration": 4.0})
    return base.model_copy(update={"data": data, "decode": DecodingOptions(max_new_tokens=20)})


class Fake:
    """Trains nothing; a model of a part makes every n-th word wrong (`EVERY`)."""

    def __init__(self) -> None:
        self.trained, self.decoded = list[str](), list[str]()
        self.backend = Backend(load=self.load, recognize=self.recognize)  # type: ignore[arg-type]

    def train(self, recipe: Recipe) -> RunDir:
        run = run_recipe(recipe, "prepare")
        self.trained.append(recipe.name)
        run.finish("train", {"inputs": recipe.name})
        return run

    def load(self, recipe: Recipe, run: RunDir, system: str) -> str:
        return "base" if system == "base" else recipe.name

    def recognize(
        self, model: str, items: list[Utterance], instruction: str, options: DecodingOptions
    ) -> list[Hypothesis]:
        self.decoded.append(model)
        every, texts = EVERY[model.partition("-")[0]], []
        words = iter(range(10_000))
        for item in items:
            texts.append(" ".join("x" if next(words) % every == 0 else word for word in item.text.split()))
        return [Hypothesis(item.id, text, (), 0.0) for item, text in zip(items, texts, strict=True)]


def test_a_curve_is_measured_written_and_resumed(recipe: Recipe) -> None:
    fake = Fake()
    result, files = learning_curve(recipe, OPTIONS, fake.train, fake.backend)
    assert fake.trained == ["050", "075", "run"] and fake.decoded == ["base", "050", "075", "run"]
    assert [point.share for point in result.points] == [50, 75, 100]
    for point, every in zip(result.points, (3, 4, 5), strict=True):
        assert point.wer == pytest.approx(1 / every, abs=0.02) and point.low <= point.wer <= point.high
    assert result.base[0] == pytest.approx(1 / 2, abs=0.02)
    assert result.points[2].folders == [f"{recipe.runs}/run"]
    assert result.points[0].folders == [f"{recipe.runs}/run/curve/050"]
    hours = [point.hours for point in result.points]
    assert hours == sorted(hours) and [row.amount for row in result.extrapolations] == [2 * hours[2], 4 * hours[2]]
    assert result.extrapolations[1].wer <= result.extrapolations[0].wer <= result.points[2].wer + 0.02
    assert CurveResult.model_validate(json.loads(files.result.read_text())) == result
    small, large = (read_manifest(files.manifest(name)) for name in ("050", "075"))
    assert {clip.id for clip in small} < {clip.id for clip in large} and len(small) == result.points[0].clips

    again, _ = learning_curve(recipe, OPTIONS, fake.train, fake.backend)
    assert again == result and fake.decoded == ["base", "050", "075", "run"]
    longer = recipe.model_copy(update={"decode": DecodingOptions(max_new_tokens=21)})
    files.texts("075").write_text("{half")
    learning_curve(longer, OPTIONS, fake.train, fake.backend)
    assert fake.decoded[4:] == ["base", "050", "075", "run"]


def test_repeated_trainings_have_other_clips_and_seeds(recipe: Recipe) -> None:
    fake = Fake()
    result, files = learning_curve(recipe, replace(OPTIONS, repeats=2), fake.train, fake.backend)
    assert fake.trained == ["050", "075", "run", "050-2", "075-2", "100-2"]
    first, second = (read_manifest(files.manifest(name)) for name in ("050", "050-2"))
    assert {clip.id for clip in first} != {clip.id for clip in second}
    assert [len(point.runs) for point in result.points] == [2, 2, 2]
    assert not [note for note in result.notes if "--repeats" in note]


def test_the_page_and_the_text_have_every_row_and_note(recipe: Recipe) -> None:
    result, _ = learning_curve(recipe, OPTIONS, Fake().train, Fake().backend)
    renamed = result.model_copy(update={"name": "<b>run</b>"})
    page, text = curve_page(renamed), "\n".join(curve_text(result))
    assert "&lt;b&gt;run" in page and "<b>run" not in page and "<svg" in page
    for words in ("50 %", "75 %", "100 %", "none (base)", "2 x, expected", "4 x, expected", "one run for each part"):
        assert words in text
        assert words.lower() in page.lower()


def test_the_recipe_of_a_part(recipe: Recipe, tmp_path: Path) -> None:
    """The same number of steps, validations and replay clips per training clip; the rules of texts are not repeated."""
    run = RunDir(tmp_path / "runs" / "run")
    text = recipe.data.text.model_copy(update={"case": "lower"})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"text": text})})
    part = part_recipe(recipe, run, tmp_path / "part.jsonl", "025-2", 25, 1, CurveOptions())
    assert (part.train.epochs, part.train.evaluate_every) == (24, 8)
    assert part.data.replay_weight == 0.125 and part.data.text.case == "keep" and part.seed == recipe.seed + 1
    assert [entry.path for entry in part.data.train] == [str(tmp_path / "part.jsonl")]
    assert [entry.path for entry in part.data.test] == [str(run.manifest("test"))]
    assert part.data.canary == [] and (part.runs, part.name) == (str(run.root / "curve"), "025-2")
    epochs = part_recipe(recipe, run, tmp_path / "part.jsonl", "025", 25, 0, CurveOptions(same="epochs"))
    assert (epochs.train.epochs, epochs.train.evaluate_every) == (6, 2) and epochs.data.replay_weight == 0.125


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CurveOptions(), "too small for these parts (clips: 10 %: "),
        (replace(OPTIONS, split="valid"), "words are too few for a curve"),
        (CurveOptions(shares=(98, 99, 100)), "Each part needs more clips"),
    ],
)
def test_data_that_is_too_small_is_refused(recipe: Recipe, options: CurveOptions, message: str) -> None:
    fake = Fake()
    with pytest.raises(DataError) as error:
        learning_curve(recipe, options, fake.train, fake.backend)
    assert message in str(error.value) and not fake.trained


def test_a_recipe_without_data_to_train_or_score_is_refused(recipe: Recipe) -> None:
    for split, message in (("train", "data.train: empty"), ("valid", "data.valid: empty")):
        data = recipe.data.model_copy(update={split: []})
        with pytest.raises(RecipeError, match=message):
            learning_curve(recipe.model_copy(update={"data": data}), CurveOptions(split="valid"), Fake().train)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shares", "10,100"], "needs three or more different shares"),
        (["--shares", "0,50,100"], "must be more than 0"),
        (["--shares", "a,b,c"], "not a list of numbers"),
        (["--repeats", "0"], "repeats: must be greater than or equal to 1"),
        (["--split", "canary"], "invalid choice"),
    ],
)
def test_wrong_arguments(finetune: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = finetune("curve", tmp_path / "missing.yaml", *arguments)
    assert result.code == 2 and message in result.err


@pytest.mark.slow
def test_the_command_trains_and_resumes(finetune: Command, recipe: Recipe, tmp_path: Path) -> None:
    """The run of the recipe itself is the point of 100 %, so `finetune train` finds it done."""
    path = tmp_path / "run.json"
    path.write_text(recipe.model_dump_json(exclude_none=True))
    arguments = ("curve", path, "--set", "train.epochs=1", "--set", "train.evaluate_every=1", "--shares", "50,75,100")
    result = finetune(*arguments, "--same", "epochs")
    assert result.code == 0, result.err
    assert "100 %" in result.out and "4 x, expected" in result.out and "WER = " in result.out
    assert (tmp_path / "runs" / "run" / "curve" / "curve.html").is_file()
    assert RunDir(tmp_path / "runs" / "run" / "curve" / "075").best.is_dir()
    again = finetune(*arguments, "--same", "epochs")
    assert again.code == 0 and again.out.count("train: skipped, already done") == 3
