"""Explains an error that is not a FinetuneError in one line, and saves its traceback for a bug report."""

import os

from finetune.core.files import is_disk_full

TRACEBACK = "FINETUNE_TRACEBACK"  # set it to see the traceback
# What every command that loads a model imports, as in pyproject.toml; an export has no other list of them.
PACKAGES = (
    "torch>=2.9",
    "transformers>=5.10.1,<6",
    "huggingface-hub>=1.5",
    "numpy>=2.0",
    "soundfile>=0.13",
    "soxr>=0.5",
)


def explain(error: Exception) -> str:
    """The message of an error that no stage has explained. Raises it again if `TRACEBACK` is set."""
    if os.environ.get(TRACEBACK):
        raise error
    if is_disk_full(error):
        reason = error if getattr(error, "errno", None) else f"no space left on the disk ({error})"
        return f"{reason}; free some disk space, then rerun"
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}cannot be read or written ({error.strerror or error})"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, ImportError) and not (error.name or "").startswith("finetune"):
        return _unfitting_packages(error)
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"unexpected {type(error).__name__} in {frame.filename}:{frame.lineno}: {str(error)[:500]}. This is a bug; "
        f"please report it with the traceback, {_traceback_file(error)}"
    )


def _unfitting_packages(error: ImportError) -> str:
    """A package is missing, or two do not fit together: the reason, what is installed, and what is needed."""
    import re
    from importlib import metadata

    installed = dict[str, str]()
    for name in (*(re.split("[<>=]", package)[0] for package in PACKAGES), "tokenizers"):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "missing"
    reason = " ".join(str(error).split())[:500]
    versions = ", ".join(f"{name} {version}" for name, version in installed.items())
    needed = " ".join(f"'{package}'" for package in PACKAGES)
    return (
        f"a Python package is missing or does not fit the others: {reason}\nInstalled: {versions}\n"
        f"Run: pip install {needed}"
    )


def _traceback_file(error: Exception) -> str:
    """Saves the traceback, because the error may be the end of a long run; says where it is."""
    import tempfile
    import traceback

    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="finetune_traceback_", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            traceback.print_exception(error, file=file)
    except OSError:
        return f"which a run with {TRACEBACK}=1 prints"
    return f"which is in {file.name}"
