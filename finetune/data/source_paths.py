"""Expands the name of a corpus that stands for several files: globs, brace patterns and the patterns of NeMo.

`shard-{000000..000009}.tar` and `{train,extra}.jsonl` are brace patterns as in bash; NeMo writes `_OP_` and `_CL_` for
the braces. `*`, `?`, `[...]` and `**` are globs. The name of an existing file is never a pattern.
"""

import glob
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.byte_range import is_url

MAX_FILES = 100_000  # files of one pattern
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_GROUP = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")  # the innermost braces with a list or a range
_GLOB = re.compile(r"[*?]|\[[^\]]+\]")


def is_pattern(source: str) -> bool:
    """Whether a name stands for several files. An existing file or folder never does."""
    braces = _braces(source)
    if not _GROUP.search(braces) and not _GLOB.search(_path_part(braces)):
        return False
    return is_url(source) or not _exists(source)


def expand(source: str) -> list[str]:
    """The files and folders that a pattern names, in the order of its braces, those of a glob sorted by name.

    Raises:
        DataError: a file that the braces name does not exist, a glob matches nothing, or there are too many names.
    """
    pattern = _braces(source if is_url(source) else os.path.expanduser(source))
    names = list(islice(_expand_braces(pattern), MAX_FILES + 1))
    if len(names) > MAX_FILES:
        raise DataError(f"{source}: the pattern has more than {MAX_FILES:,} names; correct its range")
    files, missing = list[str](), list[str]()
    for name in names:
        if not _GLOB.search(_path_part(name)):
            (files if is_url(name) or _exists(name) else missing).append(name)
        elif paths := _glob(name):
            files += paths
        else:
            missing.append(name)
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(names)} names of the pattern match no file, such as {missing[0]}; "
            "correct the pattern, or add the files"
        )
    return list(dict.fromkeys(files))


def _braces(source: str) -> str:
    """The name with braces in place of the marks of NeMo."""
    return source.replace("_OP_", "{").replace("_CL_", "}")


def _path_part(name: str) -> str:
    """The name without the scheme and the query of a URL, whose ? is not a glob."""
    return name.split("://", 1)[1].split("?")[0] if is_url(name) else name


def _expand_braces(pattern: str) -> Iterator[str]:
    match = _GROUP.search(pattern)
    if match is None:
        yield pattern
        return
    for item in _items(match[1]):
        yield from _expand_braces(pattern[: match.start()] + item + pattern[match.end() :])


def _items(group: str) -> Iterator[str]:
    """The names of one group: the items of a list, or the numbers of a range with the width of its first number."""
    if (numbers := _RANGE.fullmatch(group)) is None:
        yield from group.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    width = max(map(len, numbers.groups())) if any(re.match(r"-?0\d", number) for number in numbers.groups()) else 0
    step = 1 if last >= first else -1
    yield from (f"{number:0{width}d}" for number in range(first, last + step, step))


def _glob(pattern: str) -> list[str]:
    if not is_url(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(pattern)
        return sorted(system.unstrip_protocol(name) for name in system.glob(path))
    except Exception as error:  # the errors of file systems have no common base class
        raise DataError(f"{pattern}: the files cannot be listed ({type(error).__name__}: {error})") from error


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, an unknown user, a NUL
        return False
