"""Arrow columns from Python values and numpy arrays, built from their buffers.

`pyarrow.array` gives the same columns, but it imports pandas, which is 40 MB in each process.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def text_column(values: Sequence[str | None]) -> Any:
    """Strings (n), None is null."""
    content = [b"" if value is None else value.encode() for value in values]
    buffers = [_bounds([len(text) for text in content]), pa.py_buffer(b"".join(content))]
    return pa.Array.from_buffers(pa.string(), len(values), [_validity(values), *buffers])


def number_column(values: NDArray[Any]) -> Any:
    """Numbers (n), none of them null."""
    numbers = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), [None, pa.py_buffer(numbers)])


def optional_column(values: Sequence[int | None]) -> Any:
    """Numbers (n) of 32 bits, None is null."""
    numbers = np.array([value or 0 for value in values], np.int32)
    return pa.Array.from_buffers(pa.int32(), len(values), [_validity(values), pa.py_buffer(numbers)])


def list_column(sizes: Sequence[int], items: Any) -> Any:
    """Lists (n) of the items of another column, by the size of each list."""
    bounds = _bounds(sizes)
    return pa.Array.from_buffers(pa.list_(items.type), len(sizes), [None, bounds], children=[items])


def text_list_column(values: Sequence[Sequence[str]]) -> Any:
    """Lists (n) of strings."""
    return list_column([len(value) for value in values], text_column([*chain.from_iterable(values)]))


def _bounds(sizes: Sequence[int]) -> Any:
    total = np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))])
    if total[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{total[-1]} bytes or items; a column holds 2 GiB")
    return pa.py_buffer(total.astype(np.int32))


def _validity(values: Sequence[object]) -> Any:
    """The bitmap of the values that are not None; None if all are."""
    if None not in values:
        return None
    return pa.py_buffer(np.packbits([value is not None for value in values], bitorder="little"))
