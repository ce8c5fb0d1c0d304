"""Hints follow from data and plan, and name settings that help; a hint is never an error."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Command
from conftest import VOCABULARY

from finetune.core.config import Recipe
from finetune.planning.check import check_recipe
from finetune.planning.result import CheckResult

MINUTES = 23


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, nano: Path) -> Callable[..., Recipe]:
    """A recipe with 23 minutes of speech and default settings; keywords change its sections."""
    folder = tmp_path_factory.mktemp("small")
    rows, seconds = [], 0.0
    for line in (VOCABULARY / "train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if seconds + row["duration"] <= 60 * MINUTES:
            rows.append(row | {"audio_filepath": str(VOCABULARY / row["audio_filepath"])})
            seconds += row["duration"]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "valid.jsonl").write_text("".join(json.dumps(row | {"speaker": "anna"}) + "\n" for row in rows[:9]))
    (folder / "terms.txt").write_text("amiodarone\nseldomness\n" + rows[0]["text"].split()[0] + "\n")

    def recipe(**sections: dict[str, object]) -> Recipe:
        data: dict[str, object] = {
            "train": [str(folder / "train.jsonl")],
            "valid": [str(folder / "valid.jsonl")],
            "test": [str(VOCABULARY / "test.jsonl")],
            "allow_leaks": True,
        }
        return Recipe.model_validate(
            {
                "name": "small",
                "runs": str(folder / "runs"),
                "model": {"base": str(nano)},
                "data": data | sections.pop("data", {}),
                "machine": {"processes": 1},
                **sections,
            }
        )

    return recipe


def hint(result: CheckResult, text: str) -> str:
    """The only hint that contains `text`."""
    (found,) = [line for line in result.hints if text in line]
    return found


def test_23_minutes_with_default_settings_get_a_hint_that_helps(
    finetune: Command, small: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Its settings, applied, give about the steps that it states; then there is no such hint."""
    recipe = small()
    (tmp_path / "small.yaml").write_text(recipe.model_dump_json(exclude_none=True))
    printed = finetune("check", tmp_path / "small.yaml")
    result = check_recipe(recipe)
    assert result.steps is not None and result.steps.steps < 80
    line = hint(result, "optimizer steps for 23 minutes of speech are few")
    assert printed.code == 0 and f"hint: {line}" in printed.out
    assert re.match(rf"{result.steps.steps} optimizer steps", line)
    found = re.search(r"Set train.batch_seconds: (\d+)(?: and train.epochs: (\d+))? for about ([\d,]+) steps", line)
    assert found is not None
    changed = small(train={"batch_seconds": float(found[1]), "epochs": int(found[2] or 4)})
    then = check_recipe(changed)
    assert then.steps is not None and 800 < then.steps.steps < 1300
    assert then.steps.steps == pytest.approx(int(found[3].replace(",", "")), rel=0.3)
    assert not [line for line in then.hints if "are few" in line or "LoRA at" in line]
    rate = hint(result, "LoRA at a learning rate of 0.0002")
    assert f"in {result.steps.steps} steps" in rate and "Compare 0.001 on valid" in rate
    assert "23 minutes of speech without augmentation: set augment.speed: 0.1" in hint(result, "augmentation")
    assert not [line for line in check_recipe(small(augment={"speed": 0.1})).hints if "augmentation" in line]


@pytest.mark.slow
def test_fewer_batches_in_a_step_are_named_first(small: Callable[..., Recipe]) -> None:
    line = hint(check_recipe(small(train={"accumulation": 4})), "are few")
    assert "Set train.accumulation: 1 and train.batch_seconds: " in line


def test_an_accumulation_larger_than_an_epoch_promises_no_more_steps_than_batches(
    tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    line = hint(check_recipe(tiny(tmp_path, "x", accumulation=1000)), "are few")
    found = re.search(r"accumulation: 1 (?:and train.batch_seconds: \d+ )?and train.epochs: (\d+) for about 1,", line)
    assert found is not None and int(found[1]) > 100


def test_scored_sets_and_forgetting(small: Callable[..., Recipe]) -> None:
    result = check_recipe(small(train={"max_canary_loss": 0.02}, data={"canary": [str(VOCABULARY / "canary.jsonl")]}))
    assert "data.valid has one speaker (anna)" in hint(result, "one speaker")
    assert "data.valid has 9 clips" in hint(result, "noise")
    assert "train.interpolate: [0.96, 0.92]" in hint(result, "max_canary_loss")
    assert "data.replay is empty" in hint(result, "replay") and not [x for x in result.hints if "canary is empty" in x]
    plain = check_recipe(small())
    assert "what the model forgets is not measured" in hint(plain, "data.canary is empty")
    assert not [line for line in plain.hints if "data.test has" in line]  # it has 132 clips and speakers


def test_a_small_test_set_gets_the_width_of_its_interval(small: Callable[..., Recipe], tmp_path: Path) -> None:
    rows = (VOCABULARY / "test.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    content = [json.loads(row) for row in rows]
    for row in content:
        row["audio_filepath"] = str(VOCABULARY / row["audio_filepath"])
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    line = hint(check_recipe(small(data={"test": [str(tmp_path / "test.jsonl")]})), "data.test has 40 clips")
    found = re.search(r"over (clips|speakers) would be at least ([\d.]+) to ([\d.]+) %", line)
    assert found is not None
    low, high = float(found[2]), float(found[3])
    assert low < 10 < high and 4 < high - low < 20


def test_terms_with_little_support(small: Callable[..., Recipe], tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("amiodarone\nseldomness\nzyxwv\n")
    result = check_recipe(small(data={"terms": str(terms)}))
    assert result.terms["seldomness"] == result.terms["zyxwv"] == 0 < result.terms["amiodarone"]
    assert "2 of 3 terms do not occur in data.train or data.replay (seldomness, zyxwv)" in hint(
        result, "do not occur in data.train or"
    )


def test_terms_that_the_ctc_head_cannot_find_are_named(small: Callable[..., Recipe]) -> None:
    hints = check_recipe(small(decode={"terms": ["aspirin", "аспирин", "aspirin 100"]})).hints
    assert [line.partition(": ")[2] for line in hints if line.startswith("decode.terms")] == [
        "1 keyword has no effect by the CTC head, which cannot write most of the letters: 'аспирин'; 1 keyword has an "
        "effect only if the CTC head writes digits; write numbers as they are spoken: 'aspirin 100'"
    ]


def test_terms_of_japanese_are_found_inside_texts_without_spaces(small: Callable[..., Recipe], tmp_path: Path) -> None:
    row = json.loads((VOCABULARY / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    row |= {"audio_filepath": str(VOCABULARY / row["audio_filepath"]), "text": "アスピリンは中止です", "language": "ja"}
    (tmp_path / "ja.jsonl").write_text(json.dumps(row))
    (tmp_path / "terms.txt").write_text("アスピリン\nインスリン\n")
    data = {"train": [str(tmp_path / "ja.jsonl")], "test": [str(tmp_path / "ja.jsonl")]}
    recipe = small(data={**data, "terms": str(tmp_path / "terms.txt")}, decode={"terms": ["アスピリン"]})
    result = check_recipe(recipe)
    assert result.terms == {"アスピリン": 1, "インスリン": 0}
    line = "data.terms: 1 of 2 terms do not occur in data.test, such as 'インスリン'; their recall is not measured"
    assert line in result.corpora
    assert hint(result, "no effect on Japanese text").startswith("decode.terms")


@pytest.mark.slow
def test_a_tracker_that_is_not_installed_is_named(small: Callable[..., Recipe]) -> None:
    result = check_recipe(small(machine={"processes": 1, "trackers": ["trackio"]}))
    assert "machine.trackers: trackio is not installed" in hint(result, "trackio")
