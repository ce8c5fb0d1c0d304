"""Explains an error that is not a FinetuneError in one line, and saves its traceback for a bug report."""

import os

from finetune.core.files import is_disk_full

TRACEBACK = "FINETUNE_TRACEBACK"  # set it to see the traceback


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
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"unexpected {type(error).__name__} in {frame.filename}:{frame.lineno}: {str(error)[:500]}. This is a bug; "
        f"please report it with the traceback, {_traceback_file(error)}"
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
