"""Finds absolute paths, which name users and machines, and replaces them by the name of the file."""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

# Two components at least, so that "/" and "/n" in texts are none; not in URLs, of the system, or of OpenAI's API.
POSIX = r"(?<![\w.:/~<\\-])/(?!(?:dev|proc|sys|v1)/)[\w.@+,=-]+(?:/[\w.@+,=-]+)+/?"
HOME = r"(?<![\w/~])~[\w.-]*/[\w.@+,=/-]+"
WINDOWS = r"(?<![\w])[A-Za-z]:\\+[\w.@+\\-]+|(?<!\\)\\\\\w[\w.-]*\\+[\w.$\\-]+"
ABSOLUTE = re.compile(rf"(?:file://)?(?:{POSIX})|file:///[\w./-]+|{HOME}|{WINDOWS}")

WHOLE = re.compile(r"(?:/[^/\n]+/|~[\w.-]*/|file:/|[A-Za-z]:[\\/]|\\\\)[^\n]*")  # a value that is one path


def absolute_path(text: str) -> str:
    """The first absolute path in a text; "" if there is none."""
    match = ABSOLUTE.search(text)
    return match[0] if match else ""


def shortened_text(text: str) -> str:
    """A text whose absolute paths are replaced by their last components."""
    return ABSOLUTE.sub(lambda match: _last(match[0]), text)


def shortened_values(content: Any) -> Any:
    """JSON values with the last components of absolute paths, in keys and strings, also those with spaces."""
    if isinstance(content, dict):
        return {shortened_values(key): shortened_values(value) for key, value in content.items()}
    if isinstance(content, list):
        return [shortened_values(value) for value in content]
    if not isinstance(content, str):
        return content
    return _last(content) if WHOLE.fullmatch(content) else shortened_text(content)


def _last(path: str) -> str:
    windows = "\\" in path and "/" not in path
    return (PureWindowsPath(path) if windows else PurePosixPath(path)).name or path.strip("/\\~")
