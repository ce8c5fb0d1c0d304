"""Checks of Python and of the installed packages: versions, and packages that break others."""

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from finetune.core.extras import DISTRIBUTION
from finetune.doctor.finding import Finding, failed, passed, skipped, warned

# Imported by libraries if they are installed; this toolkit does not need them.
UNNEEDED = ("torchaudio", "torchcodec", "torchvision")
IMPORT_SECONDS = 60.0
Version = Callable[[str], str]


def check_python(version: str = "{}.{}.{}".format(*sys.version_info[:3])) -> Finding:
    """The Python version against `requires-python`."""
    required = SpecifierSet(metadata.metadata(DISTRIBUTION)["Requires-Python"])
    if version in required:
        return passed("python", version)
    return failed("python", f"{version}, but {required} is needed", "create a virtual environment with another Python")


def check_packages(version: Version = metadata.version) -> Finding:
    """The versions of the packages that every command needs.

    Args:
        version: returns the installed version of a package, or raises `PackageNotFoundError`.
    """
    wrong, right, needed = list[str](), list[str](), list[str]()
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or ()):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            needed.append(f"'{requirement}'")
            continue
        if requirement.specifier.contains(installed, prereleases=True):
            right.append(f"{requirement.name} {installed}")
        else:
            wrong.append(f"{requirement.name} is {installed}, but {requirement.specifier} is needed")
            needed.append(f"'{requirement}'")
    if wrong:
        return failed("packages", "; ".join(wrong), f"pip install --upgrade {' '.join(needed)}")
    return passed("packages", ", ".join(right))


def import_error(module: str) -> str:
    """The last line of the error of an import in another process; "" if it works."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {IMPORT_SECONDS:.0f} s"
    return "" if not done.returncode else (done.stderr.strip().splitlines() or ["it crashed"])[-1]


def check_unneeded(version: Version = metadata.version, import_error: Callable[[str], str] = import_error) -> Finding:
    """Packages that transformers and datasets import if they are installed, and that then can break them."""
    broken, working = list[str](), list[str]()
    for name in UNNEEDED:
        try:
            working.append(f"{name} {version(name)}")
        except metadata.PackageNotFoundError:
            continue
        if error := import_error(name):
            broken.append(f"{name} cannot be imported ({error})")
    if broken:
        names = " ".join(text.split()[0] for text in broken)
        return failed("unneeded packages", "; ".join(broken), f"they are not needed: pip uninstall {names}")
    return passed("unneeded packages", f"{', '.join(working)}: works" if working else "none installed")


def check_quantization(gpus: int, version: Version = metadata.version) -> Finding:
    """bitsandbytes, which `model.quantize: 4bit` and `train.optimizer: adamw-8bit` need."""
    try:
        installed = version("bitsandbytes")
    except metadata.PackageNotFoundError:
        return skipped(
            "bitsandbytes", "not installed; only model.quantize: 4bit and train.optimizer: adamw-8bit need it"
        )
    if not gpus:
        return warned("bitsandbytes", f"{installed}, but no GPU was found", "model.quantize: 4bit needs a CUDA GPU")
    return passed("bitsandbytes", installed)
