"""A sample of `scripts/bad_inputs.py`, and that it finds what a case can do wrong."""

import os
import time
from pathlib import Path

import pytest

from bad import cases_commands, cases_manifests, cases_models, cases_recipes
from bad.case import Case, Outcome, faults
from bad.material import Material, build_material
from bad_inputs import run_cases


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """The good inputs without a finished run, which takes longer."""
    return build_material(tmp_path_factory.mktemp("bad"), lambda argv: 0)


def test_a_sample_of_the_cases_passes(material: Material) -> None:
    chosen: list[Case] = []
    for module, step in ((cases_manifests, 60), (cases_recipes, 30), (cases_models, 50), (cases_commands, 12)):
        chosen += list(module.cases(material))[::step]
    results = list(run_cases(chosen, os.cpu_count() or 1))
    assert len(results) == len(chosen) > 18
    assert {case.name: (wrong, outcome.output[-500:]) for case, outcome, wrong in results if wrong} == {}


GOOD = Outcome(1, b"finetune: a.jsonl:3: not JSON\n", 0.1)


@pytest.mark.parametrize(
    ("outcome", "found"),
    [
        (GOOD, ""),
        (Outcome(0, GOOD.output, 0.1), "exit code 0, not 1"),
        (Outcome(None, GOOD.output, 60.0), "did not end"),
        (Outcome(1, GOOD.output + b"Traceback (most recent call last)", 0.1), "traceback"),
        (Outcome(1, GOOD.output + b"unexpected KeyError. This is a bug", 0.1), "traceback"),
        (Outcome(1, GOOD.output + b"\x00\xff", 0.1), "raw bytes"),
        (Outcome(1, GOOD.output * 1000, 0.1), "prints 30000 bytes"),
        (Outcome(1, b"finetune: failed\n", 0.1), "does not say"),
    ],
)
def test_each_fault_of_an_outcome_is_found(tmp_path: Path, outcome: Outcome, found: str) -> None:
    problems = faults(Case("case", tmp_path, ["check"], (1,), "A.JSONL:3"), outcome, {}, time.time())
    assert len(problems) == bool(found) and all(found in problem for problem in problems)


def test_changed_and_half_files_are_found(tmp_path: Path) -> None:
    kept, started = tmp_path / "kept.txt", time.time() - 1
    kept.write_text("new")
    (tmp_path / "metrics.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(
        b"\x40" + b"\0" * 7 + b'{"a": {"data_offsets": [0, 8], "shape": [2]}}'.ljust(64)
    )
    (tmp_path / "x.json.part").write_text("")
    case = Case("case", tmp_path, ["check"], keeps=(kept,), absent=(tmp_path / "metrics.json",))
    problems = faults(case, GOOD, {kept: "old"}, started)
    for text in (
        f"changed {kept}",
        "wrote ",
        "half of metrics.json",
        "half of model.safetensors",
        "leaves x.json.part",
    ):
        assert sum(text in problem for problem in problems) == 1, text
    assert len(problems) == 5
