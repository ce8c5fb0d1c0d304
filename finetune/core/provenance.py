"""Records what produced a result: the code, the libraries, the machine."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from finetune.core.wording import count
from finetune.version import __version__

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "jiwer", "numpy", "soundfile", "soxr")


SOURCE = Path(__file__).resolve().parents[1]


def provenance(device: str, dtype: str, libraries: Sequence[str] = LIBRARIES, source: Path = SOURCE) -> dict[str, Any]:
    """Values for JSON; `commit` is None outside a git checkout, and ends in "+" if tracked files are modified.

    Args:
        device: The device of the model, such as the name of a GPU; "cpu" is replaced by the name of the processor.
        dtype: Data type of the weights in memory.
        libraries: Packages whose versions are recorded.
        source: Folder of this package's code.
    """
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "toolkit": __version__,
        "commit": _commit(source),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in libraries},
        "device": _processor() if device == "cpu" else device,
        "dtype": dtype,
        "system": platform.platform(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit(folder: Path) -> str | None:
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=20)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "."],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + "+" * bool(changes.stdout) if commit.returncode == 0 else None


def _processor() -> str:
    """Such as "Intel(R) Xeon(R) ..., 2 cores"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor() or platform.machine()}, {count(os.cpu_count() or 1, 'core')}"
