"""`finetune completion`: prints the completion script of a shell, with commands, options, files and settings."""

import argparse
import shlex
from collections.abc import Iterator
from functools import partial
from typing import Any

from finetune.cli.arguments import Subparsers
from finetune.cli.recipes import FOLDER
from finetune.core.extras import require

SHELLS = ("bash", "zsh", "fish")
PATHS = {  # metavars of files and folders
    *("AUDIO", "CORPUS", "DIR", "EXPORT", "FILE", "FOLDER", "IN", "MANIFEST", "MODEL", "OUT", "PATH", "RECIPE"),
    *("RUN_DIR", "SOURCE", "SYSTEM", "TERMS"),
}
# A setting ends with "=", and its value follows without a space. A word with an escaped character is left to bash.
BASH_END = r"""
_finetune() {
  COMPREPLY=()
  [[ ${COMP_WORDS[COMP_CWORD]-} != *[\\\"\']* ]] || return 0
  _shtab_finetune "$@"
  [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace +o filenames 2>/dev/null
  return 0
}
complete -o filenames -o default -F _finetune finetune
"""


def add_parser(subparsers: Subparsers) -> None:
    text = "print the completion script of a shell"
    parser = subparsers.add_parser(
        "completion", help=text, description=text, epilog='example: eval "$(finetune completion bash)"'
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell; docs/doctor.md says where its script belongs")
    parser.set_defaults(run=partial(run, subparsers))


def run(subparsers: Subparsers, args: argparse.Namespace) -> int:
    """Prints the script. Raises MissingExtraError without shtab."""
    from finetune.core.recipe import known_keys

    shtab = require("shtab", extra="completion")
    root = argparse.ArgumentParser(prog="finetune")
    root.add_argument("--version", action="store_true", help="print the version")
    root._add_action(subparsers)
    recipes = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    for action in _actions(root):
        if completion := _completion(action, shtab, recipes, known_keys()):
            action.complete = completion  # type: ignore[attr-defined]
    print(shtab.complete(root, shell=args.shell) + BASH_END * (args.shell == "bash"))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)
        elif action.nargs != 0 and not action.choices:
            yield action


def _completion(action: argparse.Action, shtab: Any, recipes: list[str], settings: list[str]) -> Any:
    if action.dest == "overrides":
        words = [f"{key}=" for key in settings]
        return {**_words(shtab, words), "zsh": f"compadd -S '' {shlex.join(words)}"}  # no space after the "="
    if action.metavar == "NAME" and not action.option_strings:  # of `finetune recipes`
        return _words(shtab, recipes)
    return shtab.FILE if action.metavar in PATHS else None


def _words(shtab: Any, words: list[str]) -> Any:
    return shtab.cmd(f"printf '%s\\n' {shlex.join(words)}")
