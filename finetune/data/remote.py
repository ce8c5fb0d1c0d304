"""Reads byte ranges of files on other machines: `https://` with requests, every other protocol with fsspec.

A read that fails is tried again, except if the file is missing or the access is denied.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, TypeVar

from finetune.core.errors import DataError

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt
UNKNOWN_DELAYS = (0.5,)  # for a host that has not answered yet: its name can be wrong, or there is no network
TIMEOUT = (20, 60)  # seconds to connect, and without a byte
MAX_SKIPPED = 64 << 20  # bytes before a range that are read from a server that ignores ranges
PIECE = 1 << 16  # bytes that are read at a time from an answer
# Of a web server: try again.
RETRIED = {408, 425, 429, 500, 502, 503, 504}

Result = TypeVar("Result")
_local = threading.local()
_answered = set[str]()  # hosts


@dataclass(frozen=True)
class RemoteState:
    """Size of a remote file (None if the server does not state it), and what changes with its content."""

    size: int | None
    version: str


class _Busy(Exception):
    """A server answers that it should be asked again."""


class _Final(Exception):
    """A failure that is the same at every attempt; its text is for a message."""


def read_range(url: str, start: int, stop: int, label: str = "", delays: Sequence[float] | None = None) -> bytes:
    """The bytes of a remote file from `start` to `stop`; fewer if the file ends before.

    Args:
        url: a URL of fsspec.
        start: first byte.
        stop: the byte after the last one.
        label: what is read, for messages; by default the URL.
        delays: seconds before each further attempt; by default DELAYS or UNKNOWN_DELAYS.

    Raises:
        DataError: the file is missing, access is denied, the protocol needs a package, or every attempt failed.
    """
    read = _http_range if is_http(url) else _fsspec_range
    return _attempts(lambda: read(url, start, stop), url, label or url, delays)


def remote_state(url: str, label: str = "") -> RemoteState:
    """Size and version of a remote file. Raises DataError as `read_range`."""
    state = _http_state if is_http(url) else _fsspec_state
    return _attempts(lambda: state(url), url, label or url)


def is_http(url: str) -> bool:
    return re.match(r"https?://", url, re.IGNORECASE) is not None


def _attempts(read: Callable[[], Result], url: str, label: str, delays: Sequence[float] | None = None) -> Result:
    host = _host(url)
    for attempt in count(1):
        try:
            result = read()
        except FileNotFoundError as error:
            raise DataError(f"{label}: no such file") from error
        except PermissionError as error:
            raise DataError(f"{label}: access is denied; give credentials, or check the name") from error
        except _Final as error:
            raise DataError(f"{label}: {error}") from error
        except Exception as error:  # the errors of file systems have no common base class
            if isinstance(error, _Busy):
                _answered.add(host)
            allowed = delays if delays is not None else DELAYS if host in _answered else UNKNOWN_DELAYS
            if attempt > len(allowed):
                tried = f"cannot be read after {attempt} attempts ({_reason(error)})"
                raise DataError(f"{label}: {tried}; check the network and the name") from error
            time.sleep(allowed[attempt - 1])
        else:
            _answered.add(host)
            return result
    raise AssertionError("unreachable")


def _host(url: str) -> str:
    """Protocol and host of a URL, or its bucket."""
    return url[: len(url) - len(url.partition("://")[2].partition("/")[2])]


def _reason(error: BaseException) -> str:
    """The text of an error, or of the error of the operating system behind it, which is shorter."""
    inner = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    error = inner if isinstance(inner, OSError) else error
    name = "" if isinstance(error, _Busy) else f"{type(error).__name__}: "
    return " ".join(f"{name}{error}".split())[:300]


def _fsspec_range(url: str, start: int, stop: int) -> bytes:
    system, path = _file_system(url)
    return bytes(system.cat_file(path, start=start, end=stop))


def _fsspec_state(url: str) -> RemoteState:
    system, path = _file_system(url)
    info = system.info(path)
    if info.get("type") == "directory":
        raise FileNotFoundError(url)
    size = info.get("size")
    marks = ("ETag", "etag", "sha256", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "created")
    stated = [f"{mark}={info[mark]}" for mark in marks if info.get(mark)]
    return RemoteState(None if size is None else int(size), " ".join(stated))


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, of this process and thread, and the path in it."""
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise _Final("reading this URL needs a package: pip install fsspec") from error
    protocol = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or str(error)
        raise _Final(f"{protocol}:// needs a package: pip install {package.partition('.')[0]}") from error
    except ValueError as error:
        raise _Final(f"{protocol}:// is not a protocol that fsspec knows") from error
    try:
        return url_to_fs(url)
    except ImportError as error:  # of an archive in a chain of URLs
        raise _Final(f"reading this URL needs a package ({error})") from error


def _http_range(url: str, start: int, stop: int) -> bytes:
    with _answer(url, {"Range": f"bytes={start}-{stop - 1}"}) as answer:
        if answer.status_code == 416:  # the file ends before the range
            return b""
        skipped = 0 if answer.status_code == 206 else start
        if answer.status_code == 206:
            first = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            if first is None or int(first[1]) != start:
                raise _Final("the server answers with another range; download the file")
        elif start > MAX_SKIPPED:
            raise _Final("the server does not support ranges (HTTP Range); download the file")
        pieces, missing = list[bytes](), stop - start
        for piece in answer.iter_content(PIECE):
            taken = piece[skipped : skipped + missing]
            skipped = max(0, skipped - len(piece))
            missing -= len(taken)
            pieces.append(taken)
            if not missing:
                break
        return b"".join(pieces)


def _http_state(url: str) -> RemoteState:
    with _answer(url, {"Range": "bytes=0-0"}) as answer:  # a signed URL allows GET, but not HEAD
        total = re.fullmatch(r"bytes \S+/(\d+)", answer.headers.get("Content-Range", ""))
        size = total[1] if total else answer.headers.get("Content-Length") if answer.status_code == 200 else None
        if answer.status_code == 206:
            _ = answer.content  # a connection with unread bytes is not used again
        marks = [answer.headers.get(name, "") for name in ("ETag", "Last-Modified")]
        return RemoteState(None if size is None else int(size), " ".join(filter(None, marks)))


def _answer(url: str, headers: dict[str, str]) -> Any:
    """The answer to a request for a file, not yet read. Raises an error for a status other than 200, 206 and 416."""
    session, headers = _session(), headers | {"Accept-Encoding": "identity"}
    answer = session.get(url, headers=headers, stream=True, timeout=TIMEOUT, **_environment(_host(url)))
    status = answer.status_code
    if status in (200, 206, 416):
        return answer
    answer.close()
    if status in (404, 410):
        raise FileNotFoundError(url)
    if status in (401, 403, 407):
        raise PermissionError(url)
    if status in RETRIED:
        raise _Busy(f"HTTP status {status}")
    raise _Final(f"the server answers with HTTP status {status}")


def _session() -> Any:
    """The session of this process and thread: connections cannot be shared."""
    if getattr(_local, "process", None) != os.getpid():
        try:
            import requests
        except ImportError as error:
            raise _Final("https:// needs a package: pip install requests") from error
        _local.session, _local.process = requests.Session(), os.getpid()
        _local.session.trust_env = False  # it is slow; see `_environment`
    return _local.session


@lru_cache(256)
def _environment(host: str) -> dict[str, Any]:
    """Proxies, certificates and credentials for a host, from environment variables and ~/.netrc."""
    import requests

    settings = requests.Session().merge_environment_settings(host, {}, True, None, None)
    return {"proxies": settings["proxies"], "verify": settings["verify"], "auth": requests.utils.get_netrc_auth(host)}
