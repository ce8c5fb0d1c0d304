"""Writes audio that is embedded in a dataset (bytes of a file, or samples) to files, which `audit` then checks."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import soundfile

from finetune.core.errors import DataError
from finetune.core.files import replaced_file
from finetune.data.cells import cell_number, shown

MAGIC = {
    b"RIFF": ".wav",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3\x03": ".mp3",
    b"ID3\x04": ".mp3",
    b"\x1aE\xdf\xa3": ".mkv",
    b"0&\xb2u": ".wma",
    b"#!AM": ".amr",
}
BYTES = (bytes, bytearray, memoryview)
KEYS = ("bytes", "path", "array", "sampling_rate")  # of an object with embedded audio
SAMPLES = (list, tuple, np.ndarray)
MAX_STEM = 160  # bytes; a file name has at most 255, with digest and suffix
MAX_CHANNELS = 8  # a dimension of an array with more items is time


def audio_file(value: object, rate: object, media_dir: Path) -> str | None:
    """The path of the audio in a cell; audio that is not a file is written to `media_dir`, once.

    Args:
        value: the bytes of a file, samples, or an object with `bytes`, `path`, `array` or `sampling_rate`.
        rate: the sampling rate of samples, from another column.
        media_dir: folder for the files.

    Returns:
        The path; None for an empty cell.

    Raises:
        DataError: the samples have no sampling rate or are not numbers.
    """
    if isinstance(value, Mapping):
        path, data, samples = value.get("path"), value.get("bytes"), value.get("array")
        rate = rate if value.get("sampling_rate") is None else value["sampling_rate"]
        if samples is not None:
            return _write_samples(samples, rate, media_dir)
        value = data or path
        name = PurePath(str(path or "clip"))
    else:
        name = PurePath("clip")
    if isinstance(value, BYTES):
        data = bytes(value)
        suffix = name.suffix if re.fullmatch(r"\.\w{1,5}", name.suffix) else MAGIC.get(data[:4], ".audio")
        return write_media(name.stem, hashlib.sha256(data), suffix, media_dir, lambda: data) if data else None
    if isinstance(value, SAMPLES):
        return _write_samples(value, rate, media_dir)
    return str(value) if value else None


def other_values(value: object) -> dict[str, object]:
    """What an object with embedded audio has besides the audio."""
    return {key: item for key, item in value.items() if key not in KEYS} if isinstance(value, Mapping) else {}


def _write_samples(samples: Any, rate: object, media_dir: Path) -> str:
    """Writes samples as WAV with exactly their values: 16-bit integers, or 32-bit floating point."""
    frequency = cell_number(rate)
    if not frequency or frequency != int(frequency) or not 0 < frequency < 1e6:
        raise DataError(f"samples without a sampling rate ({shown(rate)}); add a column `sampling_rate` in Hz")
    try:
        array = np.asarray(samples)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.ndim == 2 and len(array) <= MAX_CHANNELS < array.shape[1]:
        array = array.T
    is_integer = array.dtype.kind in "iu" and array.size > 0 and bool(np.abs(array.astype(np.int64)).max() < 2**15)
    if array.ndim not in (1, 2) or not (is_integer or array.dtype == np.float32) or array.shape[-1] == 0:
        raise DataError(f"{shown(samples)}: not samples of a clip; give floating-point numbers or 16-bit integers")
    array = np.ascontiguousarray(array.astype(np.int16) if is_integer else array)
    digest = hashlib.sha256(array.tobytes() + f"{frequency:g} {array.shape}".encode())
    subtype = "PCM_16" if is_integer else "FLOAT"

    def write(path: Path) -> None:
        soundfile.write(path, array, int(frequency), subtype, format="WAV")

    return _write_once(_target("clip", digest, ".wav", media_dir), write)


def write_media(stem: str, digest: Any, suffix: str, media_dir: Path, content: Callable[[], bytes]) -> str:
    """The path of a file whose name has a stem and a digest; `content` is called only if it does not exist."""
    return _write_once(_target(stem, digest, suffix, media_dir), lambda path: path.write_bytes(content()))


def _target(stem: str, digest: Any, suffix: str, media_dir: Path) -> Path:
    stem = re.sub(r"[^\w.-]+", "_", stem)[:80].encode()[:MAX_STEM].decode(errors="ignore")
    return media_dir / f"{stem}-{digest.hexdigest()[:12]}{suffix}"


def _write_once(target: Path, write: Callable[[Path], object]) -> str:
    if not target.exists():
        with replaced_file(target) as temporary:
            write(temporary)
    return str(target)
