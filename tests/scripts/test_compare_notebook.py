"""`scripts/compare_notebook`: the order of its runs, the choice of rates, the notebook's training within a time."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from conftest import embedded

from bench.comparison import (
    BASE,
    NOTEBOOK,
    OURS,
    Comparison,
    Job,
    Outcome,
    cell,
    compare,
    kept,
    limited,
    markdown,
    require_settings,
    with_rates,
)
from bench.notebook_training import (
    WARMUP,
    Budget,
    divide_logits,
    divides_itself,
    rate_factor,
    score_model,
    train_as_notebook,
)
from bench.sides import collate
from finetune.core.config import Recipe
from finetune.core.files import read_json
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import RunDir
from finetune.data.manifest import write_manifest
from finetune.inference.encode import load_waveforms
from finetune.model.granite import SpeechModel
from finetune.training.collate import batch_from_waves
from finetune.training.dataset import SpeechDataset
from finetune.training.loss import token_loss

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "compare_notebook"
RATES = {OURS: [0.5, 1.0, 2.0], NOTEBOOK: [1e-4, 1e-3, 1e-2]}


def outcome(job: Job) -> Outcome:
    """The middle rate is best on valid, the highest on test; this toolkit trains for 100 s times the rate."""
    if job.side == BASE:
        return Outcome({"valid": 0.5, "test": 0.5, "canary": 0.1, "recall": 0.2})
    place = RATES[job.side].index(job.rate)
    valid, test = (0.3, 0.1, 0.2)[place], (0.4, 0.3, 0.2)[place] + 0.01 * job.seed
    seconds = 100 * job.rate if job.side == OURS else job.budget
    return Outcome({"valid": valid, "test": test, "canary": 0.1, "recall": 0.9}, seconds, 10)


def test_rates_are_chosen_on_valid_and_the_notebook_gets_the_same_time() -> None:
    jobs = list[Job]()

    def run(job: Job) -> Outcome:
        jobs.append(job)
        return outcome(job)

    result = compare(Comparison("x", "wall time"), RATES, [1, 2, 3], run)
    assert [job.side for job in jobs] == [BASE] + [OURS] * 5 + [NOTEBOOK] * 5
    ours, notebook = jobs[1:6], jobs[6:]
    assert [(job.rate, job.seed) for job in ours] == [(0.5, 1), (1, 1), (2, 1), (1, 2), (1, 3)]
    assert [(job.rate, job.seed) for job in notebook] == [(1e-4, 1), (1e-3, 1), (1e-2, 1), (1e-3, 2), (1e-3, 3)]
    assert {job.budget for job in notebook} == {100.0} == {result.budget}
    assert len({job.name for job in jobs}) == len(jobs)
    assert not result.sides[OURS].edge
    text = markdown(result)
    assert "| IBM's notebook | 0.001 | 32.0 (31.0 to 33.0) |" in text and "wall time of each training: 100 s" in text
    assert "| base model | | 50.0 | 10.0 | 20.0 |" in text and "edge" not in text


def test_a_rate_at_the_edge_is_reported() -> None:
    result = compare(Comparison("x", "wall time"), {OURS: [1.0, 2.0], NOTEBOOK: [1e-3]}, [1], outcome, budget=7)
    assert result.sides[OURS].edge and not result.sides[NOTEBOOK].edge
    assert result.budget == 7 and markdown(result).count("edge") == 1


def test_a_second_call_resumes(tmp_path: Path) -> None:
    ran = list[str]()

    def run(job: Job) -> Outcome:
        ran.append(job.name)
        return outcome(job)

    first = compare(Comparison("x", "wall time"), RATES, [1, 2], kept(tmp_path, run))
    number = len(ran)
    assert compare(Comparison("x", "wall time"), RATES, [1, 2], kept(tmp_path, run)) == first
    assert len(ran) == number == 9


def test_results_of_other_options_are_not_used_again(tmp_path: Path) -> None:
    """Such as those of `--tiny`, whose test set has six clips."""
    require_settings(tmp_path, {"tiny": True, "rates": (1, 2)})
    require_settings(tmp_path, {"tiny": True, "rates": (1, 2)})
    with pytest.raises(ValueError, match="another --results"):
        require_settings(tmp_path, {"tiny": False, "rates": (1, 2)})
    (tmp_path / "settings.json").unlink()
    (tmp_path / "outcomes").mkdir()
    kept(tmp_path / "outcomes", outcome)(Job(BASE))
    with pytest.raises(ValueError, match="not known"):
        require_settings(tmp_path, {"tiny": False})


def test_all_learning_rates_of_a_recipe_are_multiplied() -> None:
    recipe, _ = load_recipe(ROOT / "recipes" / "quickstart.yaml")
    doubled = with_rates(recipe, 2, 5)
    assert doubled.train.learning_rate == 2 * recipe.train.learning_rate and doubled.seed == 5
    assert doubled.parts.lora.learning_rate == 2 * (recipe.parts.lora.learning_rate or 0) > 0
    assert doubled.parts.encoder.learning_rate is None and doubled.name != recipe.name
    assert with_rates(recipe, 1, recipe.seed).model_copy(update={"name": recipe.name}) == recipe


def test_the_small_mode_limits_each_corpus() -> None:
    recipe, _ = load_recipe(ROOT / "recipes" / "quickstart.yaml")
    entries = limited(recipe, 3).data
    assert {entry.max_clips for split in (entries.train, entries.test, entries.replay) for entry in split} == {3}


def test_the_schedule_is_linear_with_warm_up() -> None:
    assert rate_factor(0) == 0 and rate_factor(WARMUP) == 1 and rate_factor(1) == 0
    assert rate_factor(WARMUP / 2) == pytest.approx(0.5) and rate_factor((1 + WARMUP) / 2) == pytest.approx(0.5)


def test_cells() -> None:
    assert cell([0.123]) == "12.3" and cell([0.1, 0.3]) == "20.0 (10.0 to 30.0)"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    for split, number in (("train", 4), ("valid", 1), ("test", 2)):
        write_manifest(made.manifest(split), embedded(split, number))
    return made


def recipe_for(run: RunDir) -> Recipe:
    data = {"test": [str(run.manifest("test"))], "terms": str(ROOT / "data" / "vocabulary" / "terms.txt")}
    decode = {"max_new_tokens": 6}
    return Recipe.model_validate({"name": "x", "model": {"base": "x"}, "data": data, "decode": decode})


def test_the_notebooks_training_ends_with_its_time(
    run: RunDir, model: Callable[[], SpeechModel], tmp_path: Path
) -> None:
    """Its name filter finds the projector alone; the statistics of BatchNorm in the frozen encoder drift."""
    trained, ticks, recipe = model(), count(), recipe_for(run)
    before = {name: value.clone() for name, value in trained.hf.state_dict().items()}
    budget = Budget(6, lambda: float(next(ticks)))
    steps = train_as_notebook(trained, recipe, run, 1e-3, 1, budget, tmp_path / "trainer")
    assert 1 <= steps <= 6 and budget.used() == 1
    changed = {name for name, value in trained.hf.state_dict().items() if not torch.equal(value, before[name])}
    weights = {name for name, _ in trained.hf.named_parameters()} & changed
    assert weights and all("projector" in name for name in weights)
    assert any("running_mean" in name for name in changed)
    scores = score_model(trained, recipe, run)
    assert scores.keys() == {"valid", "test", "recall"} and not trained.hf.training
    assert 0 <= scores["recall"] <= 1 and scores["test"] > 0


def test_the_notebooks_loss_has_divided_logits(run: RunDir, model: Callable[[], SpeechModel]) -> None:
    """With each version of transformers; without it, the loss is another one."""
    loaded = model()
    clips = embedded("train", 1)
    data = SpeechDataset(loaded, recipe_for(run), clips)
    waves = load_waveforms(clips)
    inputs, batch = collate(data, waves, [0]), batch_from_waves(data, [0], waves, 0)
    with torch.inference_mode():
        handle = None if divides_itself(loaded, inputs) else divide_logits(loaded)
        loss = loaded.hf(**inputs).loss.item()
        if handle:
            handle.remove()
            assert abs(loaded.hf(**inputs).loss.item() - loss) > 0.1
        hidden, _ = loaded(batch.audio, batch.num_frames, batch.ids)
        expected = token_loss(hidden, batch.labels, loaded.logits, 0.0).item() / data.tokens([0])
    assert loaded.logits_scaling > 1 and loss == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_the_whole_comparison_in_small(tmp_path: Path) -> None:
    line = [
        sys.executable,
        str(SCRIPT),
        str(ROOT / "recipes" / "quickstart.yaml"),
        "--tiny",
        "--results",
        str(tmp_path),
    ]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    (content,) = read_json(tmp_path / "comparison.json")["comparisons"]
    assert content["recipe"] == "quickstart" and content["sides"].keys() == {OURS, NOTEBOOK}
    assert all(side["outcomes"][0]["steps"] >= 1 for side in content["sides"].values()), json.dumps(content)
    assert "| IBM's notebook | 0.001 |" in (tmp_path / "comparison.md").read_text()
