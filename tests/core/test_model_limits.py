"""What a model folder states about its training, and the warnings that follow from it."""

import json
from pathlib import Path

import pytest

from finetune.core.errors import ModelError
from finetune.core.model_limits import FILE, ModelLimits, read_limits, write_limits
from finetune.core.options import INSTRUCTION

KNOWN = ModelLimits(max_duration=3.0, keyword_prompts="untrained", instruction=INSTRUCTION)


def test_a_model_without_a_statement_has_the_defaults(tmp_path: Path) -> None:
    assert read_limits(tmp_path) == read_limits("org/model") == ModelLimits()
    assert ModelLimits().max_duration == 30.0
    assert ModelLimits().prompt_warning("another instruction", keywords=True) == ""


def test_limits_are_read_back(tmp_path: Path) -> None:
    write_limits(tmp_path, KNOWN)
    assert read_limits(tmp_path) == KNOWN


@pytest.mark.parametrize(
    "broken",
    ["{", "[]", '{"max_duration": 0}', '{"max_duration": "3"}', '{"keyword_prompts": "no"}', '{"x": 1}',
     '{"schema_version": 2}', '{"no_speech": 1.5}'],
)  # fmt: skip
def test_damaged_limits_are_refused(tmp_path: Path, broken: str) -> None:
    (tmp_path / FILE).write_text(broken)
    with pytest.raises(ModelError, match=r"limits\.json: not the limits of a model"):
        read_limits(tmp_path)


def test_the_embedded_model_states_its_limits(nano: Path) -> None:
    limits = read_limits(nano)
    assert (limits.max_duration, limits.keyword_prompts, limits.instruction) == (3.0, "untrained", INSTRUCTION)
    assert 0 < limits.no_speech < 1
    assert json.loads((nano / FILE).read_text())["schema_version"] == 1


@pytest.mark.parametrize(("training", "method"), [("untrained", "ctc"), ("trained", "auto"), ("unknown", "auto")])
def test_a_model_without_keyword_prompts_gets_keywords_by_ctc(training: str, method: str) -> None:
    assert ModelLimits(keyword_prompts=training).keyword_method == method  # type: ignore[arg-type]


def test_prompts_that_the_model_was_not_trained_with() -> None:
    assert KNOWN.prompt_warning(INSTRUCTION, keywords=False) == ""
    assert "not trained with keyword prompts" in KNOWN.prompt_warning(INSTRUCTION, keywords=True)
    assert "instruction" in KNOWN.prompt_warning("translate the speech to French.", keywords=False)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, KNOWN),
        ({"typical_duration": 2.5, "keyword_prompts": False}, KNOWN),
        ({"typical_duration": None, "keyword_prompts": None}, KNOWN),  # a run of version 0.2.0
        ({}, KNOWN),
        (
            {"typical_duration": 12.25, "keyword_prompts": True},
            ModelLimits(max_duration=12.25, keyword_prompts="trained", instruction=INSTRUCTION),
        ),
    ],
)
def test_training_extends_the_limits(record: dict[str, object] | None, expected: ModelLimits) -> None:
    assert KNOWN.after_training(INSTRUCTION, record) == expected


def test_a_run_with_another_instruction_knows_that_one() -> None:
    assert KNOWN.after_training("write", {"typical_duration": 1.0}).instruction == "write"
    assert ModelLimits().after_training("write", {"typical_duration": 1.0}).instruction == ""
    several = KNOWN.after_training("write", {"typical_duration": 1.0, "own_prompts": True})
    assert several.instruction == "" and not several.prompt_warning("translate the speech to English.", False)
