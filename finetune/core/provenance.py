"""What a result was made with: the code, the libraries, the machine."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from finetune.version import __version__

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "jiwer", "numpy", "soundfile", "soxr")


def provenance(device: str, dtype: str) -> dict[str, Any]:
    """Plain values; `commit` is None outside a git checkout, and ends in "+" where files of it were changed.

    Args:
        device: what the model ran on, such as a GPU's name; the processor where it is "cpu".
        dtype: of the weights in memory.
    """
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "toolkit": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "device": _processor() if device == "cpu" else device,
        "dtype": dtype,
        "system": platform.platform(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    folder = Path(__file__).resolve().parents[1]
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
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        facts = []
    name = next((line.partition(":")[2].strip() for line in facts if line.startswith("model name")), "")
    return f"{name or platform.processor() or platform.machine()}, {os.cpu_count()} cores"
