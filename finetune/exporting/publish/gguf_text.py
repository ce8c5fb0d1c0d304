"""Reads the texts in the head of a GGUF file: keys and strings of the metadata, and the names of tensors.

The values of tensors are no text: in megabytes of them, some bytes look like a path.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9  # numbers of the other types
VOCABULARY = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")  # pieces of text can look like a path
MAX_STRING = 64_000_000  # bytes
MAX_DIMENSIONS = 16


def gguf_text(path: Path) -> str:
    """The texts of a GGUF file, one on a line, without the pieces of its vocabulary.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or no GGUF file.
    """
    with path.open("rb") as file:
        return "\n".join(_texts(file))


def _texts(file: BinaryIO) -> Iterator[str]:
    if file.read(4) != b"GGUF" or _number(file, "I") not in VERSIONS:
        raise ValueError("not a GGUF file of version 2 or 3")
    tensors, keys = _number(file, "Q"), _number(file, "Q")
    for _ in range(keys):
        key = _string(file)
        yield key
        values = _strings(file, _number(file, "I"))
        yield from (value for value in values if key not in VOCABULARY)
    for _ in range(tensors):
        yield _string(file)
        dimensions = _number(file, "I")
        if dimensions > MAX_DIMENSIONS:
            raise ValueError("the GGUF file is damaged")
        _read(file, 8 * dimensions + 4 + 8)  # sizes, type, position


def _strings(file: BinaryIO, kind: int) -> Iterator[str]:
    """The strings of a value, which is read completely. An array of arrays is in no file that llama.cpp reads."""
    if kind == STRING:
        yield _string(file)
    elif kind == ARRAY:
        kind, length = _number(file, "I"), _number(file, "Q")
        if kind == STRING:
            yield from (_string(file) for _ in range(length))
        else:
            _read(file, length * struct.calcsize(_scalar(kind)))
    else:
        _read(file, struct.calcsize(_scalar(kind)))


def _scalar(kind: int) -> str:
    if kind not in SCALARS:
        raise ValueError("the GGUF file has metadata of an unknown type")
    return SCALARS[kind]


def _string(file: BinaryIO) -> str:
    return _read(file, _number(file, "Q")).decode("utf-8", "replace")


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(f"<{form}", _read(file, struct.calcsize(form)))[0]


def _read(file: BinaryIO, size: int) -> bytes:
    content = file.read(size) if size <= MAX_STRING else b""
    if len(content) < size:
        raise ValueError("the GGUF file is damaged")
    return content
