"""Terms and keywords that cannot be in a prompt, on the command line."""

import json
from pathlib import Path

import pytest
from command import Command

from finetune.data.manifest import Utterance

RECIPE = """\
model: {{base: {base}}}
data:
  train: [{rows}]
  valid: [{rows}]
  test: [{rows}]
  terms: {terms}
"""


@pytest.fixture
def recipe(nano: Path, tmp_path: Path, clips: list[Utterance]) -> Path:
    rows = tmp_path / "rows.jsonl"
    content = [
        {"audio_filepath": item.audio_filepath, "text": item.text, "keywords": ["Paris, Texas", "ok"]}
        for item in clips[:3]
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in content))
    terms = tmp_path / "terms.txt"
    terms.write_text("stent\nParis, Texas\n<|audio|>\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(base=nano, rows=rows, terms=terms))
    return path


@pytest.mark.parametrize("setting", ["keywords.true_terms=0.5", "evaluate.keyword_lists=[5]"])
@pytest.mark.parametrize("command", ["check", "prepare"])
def test_a_term_that_cannot_be_a_keyword_is_refused(
    finetune: Command, recipe: Path, setting: str, command: str, tmp_path: Path
) -> None:
    result = finetune(command, recipe, "--set", setting, "--set", f"runs={tmp_path}/runs", "--set", "name=k")
    output = result.out + result.err
    assert result.code == 1
    assert "terms.txt:2: the keyword 'Paris, Texas' contains a comma" in output
    assert "terms.txt:3: the keyword '<|audio|>' contains <|audio|>, which is a command for the model" in output


def test_terms_that_are_only_scored_can_have_commas(finetune: Command, recipe: Path) -> None:
    assert "contains a comma" not in (result := finetune("check", recipe)).out + result.err


def test_shares_above_1_are_refused_with_their_line(finetune: Command, recipe: Path) -> None:
    with recipe.open("a") as file:
        file.write("keywords:\n  true_terms: 0.7\n  distractors: 0.4\n")
    result = finetune("check", recipe)
    assert result.code == 2 and "recipe.yaml:9: keywords.distractors" in result.err and "1.1" in result.err


def test_the_copy_loss_is_refused_with_gradient_checkpointing(finetune: Command, recipe: Path) -> None:
    with recipe.open("a") as file:
        file.write("machine: {gradient_checkpointing: true}\nkeywords:\n  copy_weight: 0.1\n")
    result = finetune("check", recipe)
    assert result.code == 2 and "recipe.yaml:9: keywords.copy_weight" in result.err


def test_a_comma_inside_an_element_of_a_list_separates_keywords_and_is_reported(
    finetune: Command, recipe: Path, tmp_path: Path
) -> None:
    result = finetune(
        "prepare", recipe, "--set", f"runs={tmp_path}/runs", "--set", "name=k", "--set", "data.allow_leaks=true"
    )
    assert result.code == 0, result.err
    assert "comma in keyword: 3." in result.out + result.err and "rows.jsonl:1" in result.out + result.err
    rows = (tmp_path / "runs/k/manifests/train.jsonl").read_text().splitlines()
    assert [json.loads(row)["keywords"] for row in rows] == [["Paris", "Texas", "ok"]] * 3
