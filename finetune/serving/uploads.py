"""Reads a multipart request: limits of size and speed, the audio in an unlinked temporary file, the text fields."""

import asyncio
import mmap
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, BinaryIO

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from finetune.core.errors import DataError
from finetune.core.serve_options import ServeOptions
from finetune.data.audio_source import LOCAL_BLOCK, WHOLE, AudioSource, Buffer
from finetune.data.range_file import RangeFile
from finetune.serving.errors import ApiError

MAX_FIELDS = 2000  # 1,000 keywords and other fields
MAX_FIELD = 64 << 10  # bytes
NOT_UTF8 = "the text fields must be UTF-8"
NO_FILE_NAME = "`file` is text, not a file: its part of the form has no filename; send the audio as a file"
EXTENDED_NAME = re.compile(rb"(;\s*filename)\*(?=\s*=)", re.IGNORECASE)  # of RFC 5987
PLAIN_NAME = re.compile(rb";\s*filename\s*=", re.IGNORECASE)
CHARSETS = (b"utf-8", b"utf8", b"us-ascii")  # others of Python's are slow, or make half characters
MAX_FILE_TEXT = 4 << 10  # bytes of a field `file` without a filename, after which it is audio
MAX_TEXT = 256 << 10  # bytes of all text fields
_numbers = count()


class Upload(AudioSource):
    """An uploaded file. It has no name on the disk, so nothing stays behind; its own name is not used.

    Args:
        file: the content; `close` closes it.
    """

    path = "file"  # the name in messages

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._number = file, next(_numbers)
        self.size = file.seek(0, os.SEEK_END)

    @property
    def key(self) -> Hashable:
        return "upload", self._number

    def open(self) -> RangeFile:
        return RangeFile(self._read, self.size, LOCAL_BLOCK, largest=WHOLE)

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data

    def close(self) -> None:
        """Removes the file from the disk. Reading it afterwards raises DataError, which ends a decoder in a thread."""
        self._file.close()

    def _read(self, start: int, stop: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), stop - start, start)
        except ValueError as error:
            raise DataError(f"{self}: the request has ended") from error


class Form:
    """The fields of a request: texts by name, in their order, and the uploaded file.

    Attributes:
        fields: the values of each text field; `name[]` counts as `name`.
        upload: the file of the field `file`; None without one.
    """

    def __init__(self, fields: dict[str, list[str]], upload: Upload | None) -> None:
        self.fields, self.upload = fields, upload

    def close(self) -> None:
        if self.upload:
            self.upload.close()


class _Parser(MultiPartParser):
    """Starlette's parser with a limit for all text fields together, which are in memory.

    A text that is not UTF-8 is an error; Starlette reads it as Latin-1. A part with only `filename*`, as older clients
    write names outside of ASCII, is a file.
    """

    max_text, _text = MAX_TEXT, 0
    complete = False

    def on_headers_finished(self) -> None:
        disposition = self._current_part.content_disposition
        if disposition and not PLAIN_NAME.search(disposition):
            self._current_part.content_disposition = EXTENDED_NAME.sub(rb"\1", disposition)
        super().on_headers_finished()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            size = len(self._current_part.data) + end - start
            if self._current_part.field_name == "file" and size > MAX_FILE_TEXT:
                raise _no_file_name()
            self._text += end - start
            if self._text > self.max_text:
                raise ApiError(413, f"the text fields have more than {self.max_text >> 10} kB", None, "text_too_long")
        super().on_part_data(data, start, end)

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            try:
                self._current_part.data.decode()
            except UnicodeDecodeError:
                if self._current_part.field_name == "file":
                    raise _no_file_name() from None
                raise
        super().on_part_end()

    def on_end(self) -> None:
        self.complete = True


async def read_form(request: Request, options: ServeOptions, max_field: int = MAX_FIELD) -> Form:
    """Reads a multipart request.

    Args:
        request: the request.
        options: limits of size and speed.
        max_field: most bytes of a text field.

    Raises:
        ApiError: not multipart, damaged, too large, or too slow.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(
            415, "the request must be multipart/form-data with the audio in `file`", None, "unsupported_media_type"
        )
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8")
    if charset.lower() not in CHARSETS:
        raise ApiError(415, NOT_UTF8, None, "unsupported_charset")
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > options.max_upload:
        raise too_large(options)
    try:
        stream = _limited(request.stream(), options)
        parser = _Parser(request.headers, stream, max_files=1, max_fields=MAX_FIELDS, max_part_size=max_field)
        parser.max_text = max(MAX_TEXT, max_field)
        form = await parser.parse()
    except ClientDisconnect as error:
        raise ApiError(400, "the upload was not complete", "file", "incomplete") from error
    except UnicodeDecodeError as error:
        raise ApiError(400, NOT_UTF8, None, "invalid_multipart") from error
    except (MultiPartException, ValueError) as error:
        message = f"the multipart data cannot be read ({getattr(error, 'message', error)})"
        raise ApiError(400, message, None, "invalid_multipart") from error
    if not parser.complete:
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                value.file.close()
        raise ApiError(400, "the multipart data has no end: its last boundary is missing", None, "invalid_multipart")
    return _sorted(form.multi_items())


def too_large(options: ServeOptions) -> ApiError:
    """The error of a request that is larger than the limit."""
    megabytes = options.max_upload / 1e6
    return ApiError(
        413,
        f"the request has more than {megabytes:g} MB; the server can accept more with --max-upload",
        "file",
        "file_too_large",
    )


async def _limited(stream: AsyncIterator[bytes], options: ServeOptions) -> AsyncGenerator[bytes, None]:
    """The body of a request. Raises ApiError if it is too large, or arrives too slowly."""
    started, size = time.monotonic(), 0
    iterator = aiter(stream)
    while True:
        try:
            chunk = await asyncio.wait_for(anext(iterator), options.upload_pause)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise _too_slow() from error
        size += len(chunk)
        if size > options.max_upload:
            raise too_large(options)
        elapsed = time.monotonic() - started
        if chunk and elapsed > options.upload_pause and size < options.upload_rate * elapsed:
            raise _too_slow()
        yield chunk


def _no_file_name() -> ApiError:
    return ApiError(422, NO_FILE_NAME, "file", "missing_file")


def _too_slow() -> ApiError:
    return ApiError(408, "the upload is too slow", "file", "upload_timeout", {"Connection": "close"})


def _sorted(items: list[tuple[str, Any]]) -> Form:
    fields: dict[str, list[str]] = {}
    upload: Upload | None = None
    for name, value in items:
        if isinstance(value, UploadFile):
            if name != "file":
                value.file.close()
                raise ApiError(
                    400, f"the field {name[:100]!r} is a file; only `file` can be one", name[:100], "unexpected_file"
                )
            spooled: Any = value.file
            spooled.rollover()  # a file on disk can be read at several places at a time
            upload = Upload(spooled)
        else:
            fields.setdefault(name.removesuffix("[]"), []).append(value)
    return Form(fields, upload)
