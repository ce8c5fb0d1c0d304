"""Types of the result files: frozen, strict, and described by the committed JSON schemas."""

import json

import pytest
from pydantic import ValidationError
from report_facts import metrics, results

from finetune.metrics.results import SYSTEMS, BySystem, EvaluationResults, by_system
from write_schemas import FOLDER, json_schemas


def test_committed_schemas_are_current() -> None:
    """After a change of a type, run `python scripts/write_schemas.py`."""
    committed = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    assert committed == {name: json.loads(text) for name, text in json_schemas().items()}


def test_results_survive_a_round_trip() -> None:
    once = results()
    assert EvaluationResults.model_validate_json(json.dumps(once.model_dump(mode="json"))) == once


@pytest.mark.parametrize("path", ["", "scores.test.base", "differences.test.mapsswe", "groups.test.0.rows.0"])
def test_unknown_keys_are_errors(path: str) -> None:
    content = metrics()
    node = content
    for key in filter(None, path.split(".")):
        node = node[int(key)] if isinstance(node, list) else node[key]
    node["unknown"] = 1
    with pytest.raises(ValidationError, match="unknown"):
        results(content)


def test_missing_keys_are_errors() -> None:
    content = metrics()
    del content["scores"]["test"]["adapted"]["cer"]
    with pytest.raises(ValidationError, match="cer"):
        results(content)


def test_results_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        results().suspicious = 1  # type: ignore[misc]


def test_values_by_system() -> None:
    both = BySystem(base=1, adapted=2)
    assert [both[system] for system in SYSTEMS] == [1, 2] and dict(both.items()) == {"base": 1, "adapted": 2}
    with pytest.raises(KeyError):
        both["other"]
    assert by_system({"base": 1, "adapted": 2}) == both and by_system({}) is None
