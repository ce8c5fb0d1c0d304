"""Errors that no stage has explained: a message in one line, or the versions of packages that do not fit."""

import tomllib
from pathlib import Path

import pytest

from finetune.core.unexpected import PACKAGES, explain


def caught(error: Exception) -> Exception:
    """The error with a traceback."""
    try:
        raise error
    except Exception as raised:
        return raised


def test_packages_that_do_not_fit_are_named_with_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUNE_TRACEBACK", raising=False)
    for error in (
        ImportError("cannot import name 'x' from 'huggingface_hub'", name="huggingface_hub"),
        ImportError("tokenizers>=0.22.0,<=0.23.0 is required\nTry: x"),
        ModuleNotFoundError("No module named 'soxr'", name="soxr"),
    ):
        text = explain(caught(error))
        assert text.startswith(f"a Python package is missing or does not fit the others: {str(error).split()[0]}")
        assert "Installed: torch 2" in text and "transformers 5" in text and "tokenizers 0" in text
        assert "pip install 'torch>=" in text and "bug" not in text


def test_a_missing_module_of_the_toolkit_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINETUNE_TRACEBACK", raising=False)
    assert "This is a bug" in explain(caught(ModuleNotFoundError("No module named 'finetune.x'", name="finetune.x")))


def test_the_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    assert set(PACKAGES) <= set(project["dependencies"])
