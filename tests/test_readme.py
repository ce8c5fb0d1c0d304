"""What the README names exists, and what exists in the package is named there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^\s*(finetune [a-z]+)", README, re.M)))


def test_the_two_commands_are_executable() -> None:
    for name in ("quickstart", "test"):
        assert f"scripts/{name} " in README
        assert os.access(ROOT / "scripts" / name, os.X_OK)


def test_paths_named_in_the_readme_exist() -> None:
    named = set(re.findall(r"\b((?:recipes|scripts|data)/[\w./-]*\w)", README))
    assert len(named) > 5
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_are_known(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command.split(), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout


def test_no_placeholder_is_left() -> None:
    assert not re.search(r"@[A-Z_]+@", README)
