"""A missing optional package: an error with the pip command, and exit code 1."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from finetune.cli.main import main
from finetune.core.errors import MissingExtraError
from finetune.core.extras import DISTRIBUTION, require
from finetune.core.run_dir import RunDir
from finetune.metrics.translation import translation_scores

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_an_installed_module_is_returned() -> None:
    assert require("json", extra="report") is json


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.metrics"])
def test_a_missing_module_names_the_pip_command(module: str) -> None:
    with pytest.raises(MissingExtraError) as caught:
        require(module, extra="report")
    assert str(caught.value) == f"no_such_package is not installed; run: pip install '{DISTRIBUTION}[report]'"


def test_the_distribution_and_the_extras_are_those_of_pyproject() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert {
        "completion",
        "tensorboard",
        "trackio",
        "report",
        "st",
        "compare",
        "vad",
        "gguf",
        "onnx",
        "serve",
        "quant",
        "ray",
        "rooms",
        "piper",
        "kokoro",
        "all",
        "dev",
    } == set(PROJECT["optional-dependencies"])


def test_each_extra_named_in_the_code_exists() -> None:
    named = set()
    for path in (ROOT / "finetune").rglob("*.py"):
        named |= set(re.findall(r'require\(\s*"[\w.]+",\s*extra="(\w+)"', path.read_text(encoding="utf-8")))
    assert {"report", "st", "compare", "vad", "quant", "rooms"} <= named <= set(PROJECT["optional-dependencies"])


def test_translation_scores_without_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(MissingExtraError, match=r"^sacrebleu is not installed; run: pip install '.*\[st\]'$"):
        translation_scores(["ein Test"], ["ein Test"], "de")


def test_the_report_command_without_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / "run").mkdir()
    RunDir(tmp_path / "run").recipe.write_text("{}")
    assert main(["report", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == (
        "finetune: matplotlib is not installed; run: pip install 'finetune-granite-speech[report]'\n"
    )
