"""Finds the Python of an engine's environment."""

import os
import subprocess
import sys
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.exporting.engines.registry import ENGINES

ENVIRONMENTS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-granite-speech" / "engines"


def python_of(engine: str, python: Path | None = None, environments: Path = ENVIRONMENTS) -> Path:
    """The interpreter that has the engine.

    Args:
        engine: A name of `ENGINES`.
        python: An interpreter chosen by the user.
        environments: Where `scripts/engines/setup` puts environments.

    Raises:
        ModelError: there is none, or it cannot import the engine.
    """
    spec = ENGINES[engine]
    path = python or (environments / engine / "bin" / "python" if spec.own_environment else Path(sys.executable))
    setup = f"run scripts/engines/setup {engine}, or name a Python that has it with --python"
    if not path.is_file():
        raise ModelError(f"{engine} is not installed ({path} is missing); {setup}")
    found = subprocess.run(
        [path, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec({spec.package!r}) is None)"],
        capture_output=True,
        check=False,
    )
    if found.returncode:
        raise ModelError(f"{path} has no package {spec.package}; {setup}")
    return path
