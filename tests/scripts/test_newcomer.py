"""docs/start.md: its commands are known, `init` runs, and scripts/newcomer runs all of them in order."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from command import Command
from conftest import embedded

from finetune.core.recipe import load_recipe
from finetune.data.manifest import write_manifest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)[0].splitlines()
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
[ "$1" != serve ] || exec sleep 60
while [ "$(basename "$0")" = curl ] && ! grep -q serve "$CALLS"; do sleep 0.05; done
"""


def test_at_most_ten_commands_lead_from_a_clone_to_a_request() -> None:
    assert len(COMMANDS) + 1 <= 10 and "git clone" in PAGE
    assert [command.split()[1] for command in COMMANDS if command.startswith("finetune ")] == [
        "doctor",
        "init",
        "check",
        "run",
        "transcribe",
        "serve",
    ]
    assert COMMANDS[0] == "source scripts/setup" and COMMANDS[-1].startswith("curl ")


def test_init_of_the_page_writes_the_recipe_that_the_next_commands_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetune: Command
) -> None:
    """On 40 clips of its corpus; the paths of all commands exist."""
    for command in COMMANDS:
        assert all((ROOT / path).exists() for path in re.findall(r"data/[\w./-]+", command))
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    init = COMMANDS[2].split()[1:]
    write_manifest(tmp_path / "few.jsonl", embedded("train", 40))
    init[init.index("data/vocabulary/train.jsonl")] = "few.jsonl"
    result = finetune(*init)
    assert result.code == 0, result.err
    recipe, _ = load_recipe(COMMANDS[3].split()[2])
    assert f"runs/{recipe.name}/export" in COMMANDS[5] and COMMANDS[4].split()[2] == COMMANDS[3].split()[2]
    assert recipe.data.terms and recipe.train.goal == "vocabulary" and recipe.model.base == "data/granite-speech-nano"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The page and the script, with programs that only write their arguments."""
    for folder in ("docs", "scripts", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "docs" / "start.md", tmp_path / "docs")
    shutil.copy(ROOT / "scripts" / "newcomer", tmp_path / "scripts")
    (tmp_path / "scripts" / "setup").write_text('echo "setup $*" >> "$CALLS"\n')
    for name in ("finetune", "curl"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def newcomer(clone: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Exit code, output and calls."""
    calls = clone / "calls"
    environment = {**os.environ, "PATH": f"{clone / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    done = subprocess.run(
        [clone / "scripts" / "newcomer", *arguments], capture_output=True, text=True, env=environment, timeout=30
    )
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines() if calls.exists() else []


def test_the_script_runs_and_times_the_commands_and_stops_the_server(clone: Path) -> None:
    code, output, calls = newcomer(clone, "--set", "data.train=[{path: a b}]")
    assert code == 0, output
    assert calls[0] == "setup " and len(calls) == len(COMMANDS)
    assert "finetune run first.yaml --set data.train=[{path: a b}]" in calls
    assert len(re.findall(r"^ +\d+ s  ", output, re.M)) == len(COMMANDS)
    code, output, again = newcomer(clone, "--installed")
    assert code == 0 and len(again) - len(calls) == len(COMMANDS) - 1


def test_the_script_stops_at_the_first_failure_and_keeps_an_earlier_run(clone: Path) -> None:
    (clone / "bin" / "finetune").write_text(STAND_IN + '[ "$1" != check ] || exit 3\n')
    code, _, calls = newcomer(clone)
    assert code == 3 and calls[-1].startswith("finetune check")
    (clone / "first.yaml").touch()
    code, output, after = newcomer(clone)
    assert code == 1 and after == calls and "first.yaml exists" in output
