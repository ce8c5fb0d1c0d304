"""Runs the verification of an export in this process: the same work without ten seconds of imports."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from finetune.core.files import read_json
from finetune.exporting import verify


class InThisProcess:
    """Stands for `verify.run_process`.

    Attributes:
        logits: Those of each verification.
    """

    def __init__(self, before: Callable[[Path], None] = lambda folder: None) -> None:
        """`before` is called with the saved folder before it is loaded."""
        self.before = before
        self.logits: list[dict[str, Tensor]] = []

    def __call__(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        assert command[1:3] == ["-m", "finetune.exporting.verify"]
        work_dir = Path(command[3])
        opened = read_json(work_dir / verify.REQUEST)["opened"]
        self.before(Path(opened["adapter"] or opened["source"]))
        verify.write_outputs(work_dir)
        self.logits.append(load_file(work_dir / verify.LOGITS))
        return subprocess.CompletedProcess(command, 0, "", "")
