"""Finds the Python of an engine's environment, and compares its version with the pinned one."""

import logging
import re
import subprocess
import sys
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.core.extras import DISTRIBUTION
from finetune.core.files import cache_home
from finetune.exporting.engines.registry import ENGINES, Engine

log = logging.getLogger(__name__)

ENVIRONMENTS = cache_home() / DISTRIBUTION / "engines"
REQUIREMENTS = Path(__file__).parent / "requirements"
SECONDS = 120  # for a Python to find a package
FIND = """import importlib.metadata as m, importlib.util as u, sys
if u.find_spec(sys.argv[1]) is None: sys.exit(9)
try: print("version", m.version(sys.argv[2]))
except Exception: print("version -")
"""
NO_PACKAGE = 9  # exit code of FIND


def python_of(engine: str, python: Path | None = None, environments: Path = ENVIRONMENTS) -> Path:
    """The interpreter that has the engine.

    Args:
        engine: A name of `ENGINES`.
        python: An interpreter chosen by the user; it may have another version of the engine, which is logged.
        environments: Where `scripts/engines/setup` puts environments.

    Raises:
        ModelError: there is none, it cannot import the engine, or the environment has another version than the pinned.
    """
    spec = ENGINES[engine]
    own = environments / spec.environment / "bin" / "python" if spec.environment else Path(sys.executable)
    path = python or own
    setup = f"run scripts/engines/setup {spec.environment}, or n" if spec.environment else "n"
    setup = f"run: pip install '{DISTRIBUTION}[{spec.extra}]', or n" if spec.extra else setup
    setup += f"ame a Python that has {spec.package} with --python"
    if not path.is_file():
        raise ModelError(f"{engine} is not installed ({path} is missing); {setup}")
    installed = _version(path, spec, setup)
    pinned = pinned_version(spec)
    if pinned and installed != pinned:
        differs = f"{path} has {spec.distribution} {installed or 'of an unknown version'}, not the pinned {pinned}"
        if not python:
            raise ModelError(f"{differs}; {setup}")
        log.warning("%s", differs)
    return path


def pinned_version(spec: Engine) -> str:
    """The version of an engine in the requirements of its environment; "" for that of the toolkit."""
    if not spec.environment:
        return ""
    lines = (REQUIREMENTS / f"{spec.environment}.txt").read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{spec.distribution}=="))


def _version(python: Path, spec: Engine, setup: str) -> str:
    """The version of the engine in an environment, "" if it is not known."""
    command = [str(python), "-c", FIND, spec.package, spec.distribution or spec.package]
    try:
        result = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{python} did not answer in {SECONDS} s; {setup}") from None
    except OSError as error:
        raise ModelError(f"{python} cannot be run ({error.strerror}); {setup}") from error
    if result.returncode == NO_PACKAGE:
        raise ModelError(f"{python} has no package {spec.package}; {setup}")
    match = re.search(r"^version (\S+)$", result.stdout.decode(errors="replace"), re.MULTILINE)
    if result.returncode or not match:
        reason = result.stderr.decode(errors="replace").strip()[-300:] or f"exit code {result.returncode}"
        raise ModelError(f"{python} is no working Python ({reason}); {setup}")
    return "" if match[1] == "-" else match[1]
