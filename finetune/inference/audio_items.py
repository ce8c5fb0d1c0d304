"""The audio that the Python API takes: paths, arrays, tensors, dicts and decoders of `datasets`."""

from collections.abc import Callable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.errors import DataError
from finetune.data.waveform import Recording, to_recordings


def audio_sources(
    items: Sequence[Any], sample_rate: int | None, channel: str, failed: Callable[[str, DataError], None] | None
) -> Iterator[str | Path | Recording]:
    """Paths and recordings in the order of the items; audio that cannot be used is reported to `failed`."""
    for number, item in enumerate(items, start=1):
        if isinstance(item, str | Path):
            yield item
            continue
        name = f"array {number}"
        if isinstance(item, dict):
            name = str(item.get("path") or name)
        try:
            yield from _recordings(item, sample_rate, name, channel)
        except DataError as error:
            if not failed:
                raise
            failed(name, error)


def _recordings(item: Any, sample_rate: int | None, name: str, channel: str) -> list[Recording]:
    if hasattr(item, "get_all_samples"):  # torchcodec's AudioDecoder, which `datasets` 4 and newer give
        decoded = item.get_all_samples()
        return to_recordings(decoded.data, decoded.sample_rate, name, channel)
    if isinstance(item, dict):
        if not {"array", "sampling_rate"} <= item.keys():
            hint = ""
            if item.get("bytes"):  # datasets.Audio(decode=False)
                hint = "; for bytes, give samples, sample_rate = soundfile.read(io.BytesIO(item['bytes']))"
            elif "audio" in item:
                hint = "; give item['audio']"
            raise DataError(f"{name}: a dict needs the keys 'array' and 'sampling_rate'; it has {[*item]}{hint}")
        if sample_rate not in (None, item["sampling_rate"]):
            raise DataError(f"{name}: sample_rate is {sample_rate}, and its sampling_rate {item['sampling_rate']}")
        return to_recordings(item["array"], item["sampling_rate"], name, channel)
    if isinstance(item, int | float | np.number):
        raise DataError(f"{name}: a list is a list of audio; for one list of samples give numpy.array(samples)")
    if item is None or isinstance(item, bytes | bytearray) or hasattr(item, "read"):  # an open file
        raise DataError(f"{name}: {type(item).__name__} is not audio; give a path, an array, a tensor or a dict")
    if _names_files(item):
        raise DataError(f"{name}: names of files, not an array of samples; give a list, such as list(files)")
    if isinstance(item, Iterator | Set):
        raise DataError(f"{name}: {type(item).__name__} is not audio; give a list, such as list(files)")
    return to_recordings(item, sample_rate, name, channel)


def _names_files(item: Any) -> bool:
    """Whether this is an array or a column of pandas with names of files."""
    kind = getattr(getattr(item, "dtype", None), "kind", "")
    return kind in ("O", "T", "U") and any(isinstance(name, str | Path) for name in np.ravel(item)[:1])
