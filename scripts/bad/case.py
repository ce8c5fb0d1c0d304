"""One case: a command line on a bad input, and what its output, exit code and files must be."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FAILED, USAGE, ANY = (1,), (2,), (0, 1, 2)
MAX_OUTPUT = 20_000  # bytes
TEMPORARY = re.compile(r"\.part$|\.tmp$|^tmp\w{6,}$")


@dataclass(frozen=True)
class Case:
    """A command line in a folder of its own.

    Attributes:
        name: unique; the folder has this name.
        folder: working directory.
        argv: the arguments of `finetune`.
        codes: the exit codes that are right.
        says: a regular expression that the output must contain, without regard to case.
        environment: variables to set; None removes one.
        process: run it in a new interpreter, for what a fork cannot change.
        shell: redirections for the new interpreter, such as `<&-`.
        max_file: largest file that it can write, in bytes.
        disk: size in bytes of the file system of its folder `runs`: a full disk.
        unprivileged: without the permissions of root.
        keeps: files that must not change.
        absent: paths that must not exist afterwards.
    """

    name: str
    folder: Path
    argv: Sequence[str]
    codes: tuple[int, ...] = FAILED
    says: str = ""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    process: bool = False
    shell: str = ""
    max_file: int | None = None
    disk: int | None = None
    unprivileged: bool = False
    keeps: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a case did; `code` is None if it was killed at the time limit."""

    code: int | None
    output: bytes
    seconds: float


def faults(case: Case, outcome: Outcome, before: Mapping[Path, str], started: float) -> list[str]:
    """What is wrong with an outcome; empty if nothing is.

    Args:
        case: the case.
        outcome: its outcome.
        before: digests of `case.keeps` before it ran.
        started: time at which it started, in seconds since the epoch.
    """
    text = outcome.output.decode(case.environment.get("PYTHONIOENCODING") or "utf-8", "replace")
    found = []
    if outcome.code is None:
        found.append("did not end within the time limit")
    elif outcome.code not in case.codes:
        found.append(f"exit code {outcome.code}, not {' or '.join(map(str, case.codes))}")
    if "Traceback" in text or "This is a bug" in text:
        found.append("prints a traceback")
    if len(outcome.output) > MAX_OUTPUT:
        found.append(f"prints {len(outcome.output)} bytes")
    if "\ufffd" in text or any(ord(char) < 32 and char not in "\n\r\t" for char in text):
        found.append("prints raw bytes or control characters")
    if not re.search(case.says, text, re.IGNORECASE):
        found.append(f"does not say {case.says!r}")
    found += [f"changed {path}" for path, digest in before.items() if content_of(path) != digest]
    found += [f"wrote {path}" for path in case.absent if os.path.lexists(path)]
    return found + list(_half_files(case.folder, started))


def content_of(path: Path) -> str:
    """The content of a file, to see whether it changes."""
    return path.read_bytes().hex() if path.is_file() else "missing"


def _half_files(folder: Path, started: float) -> list[str]:
    """Files that the case wrote and that are not complete, and its temporary files."""
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.stat().st_mtime < started:
            continue
        if TEMPORARY.search(path.name):
            found.append(f"leaves {path.name}")
        elif path.suffix == ".json":
            try:
                json.loads(path.read_bytes())
            except ValueError:
                found.append(f"leaves half of {path.name}")
        elif path.suffix == ".safetensors":
            head = path.read_bytes()
            size = int.from_bytes(head[:8], "little")
            tensors = [row for name, row in json.loads(head[8 : 8 + size]).items() if name != "__metadata__"]
            if len(head) != 8 + size + max((row["data_offsets"][1] for row in tensors), default=0):
                found.append(f"leaves half of {path.name}")
    return found
