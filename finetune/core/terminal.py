"""Escapes text for a terminal, because transcripts and ids can contain control sequences."""

import io
import logging
import os
import sys
import unicodedata
from contextlib import suppress
from typing import Any, TextIO

from finetune.core.wording import count

HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (text direction), surrogates, line and paragraph separators
MAX_LINES, MAX_LINE = 100, 1000
JOINERS = "\u200c\u200d"  # zero-width joiners, which Persian and Hindi need


def visible(text: str) -> str:
    """Replaces control characters by escapes such as `\\x1b`; line breaks and tabs stay."""
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in HARMFUL and char not in "\n\t" + JOINERS else char
        for char in text
    )


def shortened(text: str) -> str:
    """A message of at most `MAX_LINES` lines of `MAX_LINE` characters: a name or a cell can be megabytes long."""
    lines = text.split("\n")
    more = [f"... and {count(len(lines) - MAX_LINES, 'more line')}"] if len(lines) > MAX_LINES else []
    cut = [line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} ... {line[-MAX_LINE // 2 :]}" for line in lines]
    return "\n".join([*cut[:MAX_LINES], *more])


def prepare_streams() -> None:
    """Makes standard output and error accept any text: what their encoding lacks is escaped (`\\u6771`).

    A stream that the caller closed becomes the null device; otherwise the next file that is opened takes its number,
    and output of libraries goes into that file.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):
                stream.reconfigure(errors="backslashreplace")


def log_stream() -> TextIO:
    """Standard output for log messages: a terminal itself, else the same file without a buffer.

    A message that cannot be written then does not stay in the buffer of what is printed, where it would fail again.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):  # a stream in memory
        return sys.stdout
    if sys.stdout.isatty():
        return sys.stdout
    raw: Any = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding=sys.stdout.encoding, errors="backslashreplace", write_through=True)


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes log messages to `log_stream`, after what was printed before."""

    def __init__(self) -> None:
        super().__init__(log_stream())
        self.setFormatter(VisibleFormatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # reported when the command ends
            sys.stdout.flush()
        super().emit(record)


class VisibleFormatter(logging.Formatter):
    """Formats log messages through `shortened` and `visible`."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(shortened(super().format(record)))
