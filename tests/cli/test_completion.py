"""`finetune completion`: the scripts, and bash with one of them."""

import shutil
import subprocess
import sys

import pytest
from command import Command
from test_readme import ROOT

from finetune.cli.completion import SHELLS
from finetune.core.recipe import known_keys


def complete(script: str, words: list[str]) -> list[str]:
    """What bash offers for the last of the words."""
    code = (
        f"{script}\nCOMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        '_finetune finetune "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"\n'
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    result = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return result.stdout.split()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_has_the_commands_options_and_settings(shell: str, finetune: Command) -> None:
    pytest.importorskip("shtab")
    result = finetune("completion", shell)
    assert result.code == 0
    for word in ("bench-serve", "quickstart", *(f"{key}=" for key in known_keys())):
        assert word in result.out
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=result.out, text=True, check=True)


def test_bash_completes(finetune: Command) -> None:
    pytest.importorskip("shtab")
    script = finetune("completion", "bash").out
    assert {"train", "transcribe"} <= {*complete(script, ["finetune", "tra"])}
    assert complete(script, ["finetune", "recipes", "show", "quick"]) == ["quickstart"]
    assert complete(script, ["finetune", "run", "recipes/quick"]) == ["recipes/quickstart.yaml"]
    assert complete(script, ["finetune", "run", "x.yaml", "--set", "train.epo"]) == ["train.epochs="]
    assert "--format" in complete(script, ["finetune", "export", "--for"])
    assert complete(script, ["finetune", "run", "my\\ recipes/a"]) == [] and "-o default -F _finetune" in script


def test_zsh_sets_no_space_after_a_setting(finetune: Command) -> None:
    pytest.importorskip("shtab")
    assert ":KEY=VALUE:compadd -S '' name= seed=" in finetune("completion", "zsh").out


def test_without_its_extra(finetune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    result = finetune("completion", "bash")
    assert result.code == 1 and "pip install 'finetune-granite-speech[completion]'" in result.err
