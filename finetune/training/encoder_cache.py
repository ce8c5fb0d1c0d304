"""Caches the output of the frozen encoder (or projector) on disk, for clips that are not augmented."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.core.errors import DataError
from finetune.core.files import read_json, sha256_file
from finetune.data.audio import SAMPLE_RATE
from finetune.data.audio_source import AudioSource, audio_source
from finetune.data.features import HOP_LENGTH, N_FFT, NUM_MELS, WIN_LENGTH
from finetune.data.manifest import Utterance

log = logging.getLogger(__name__)

ROWS, INDEX = "rows.bin", "index.json"
FRONT_END = [1, SAMPLE_RATE, N_FFT, WIN_LENGTH, HOP_LENGTH, NUM_MELS]  # raise the first number when the features change


@dataclass(frozen=True, eq=False)
class StateCache:
    """The memory-mapped states of each clip, bit for bit as written.

    `cache[i]` has shape (T, D) for the encoder, or (A, H) for the projector.
    """

    rows: np.ndarray  # (total frames, bytes of a frame) uint8, on disk
    offsets: NDArray[np.int64]
    frames: NDArray[np.int64]
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Tensor:
        start = int(self.offsets[index])
        return torch.from_numpy(self.rows[start : start + self.frames[index]].copy()).view(self.dtype)


def cache_key(weights: str, clips: Sequence[Utterance]) -> str:
    """SHA-256 of everything that the states depend on: weights, feature settings, and the audio of the clips in order.

    Args:
        weights: identifies the weights: fingerprint of the base, and encoder or projector.
        clips: each audio file is read once, completely; a file that cannot be read counts as empty.
    """
    files: dict[str, str] = {}
    for path in {clip.audio_filepath for clip in clips}:
        try:
            files[path] = _digest(audio_source(path))
        except (OSError, DataError):
            files[path] = ""
    # The hash of JSON text, [weights, FRONT_END, [[file, offset, duration, channel], ...]], clip by clip.
    digest, comma = hashlib.sha256(f"{json.dumps([weights, FRONT_END])[:-1]}, [".encode()), ""
    for clip in clips:
        row = (files[clip.audio_filepath], clip.offset, clip.duration, clip.channel)
        digest.update((comma + json.dumps(row)).encode())
        comma = ", "
    digest.update(b"]]")
    return digest.hexdigest()


def _digest(source: AudioSource) -> str:
    if source.local_path:
        return sha256_file(source.local_path)
    with source.buffer() as data:
        return hashlib.sha256(data).hexdigest()


def predicted_bytes(frames: int, width: int, dtype: torch.dtype) -> int:
    """The size on disk of a cache.

    Args:
        frames: number of frames of all clips.
        width: numbers per frame.
        dtype: data type of the numbers.
    """
    return frames * width * dtype.itemsize


def cached_states(
    folder: Path,
    key: str,
    dtype: torch.dtype,
    batches: Iterable[Sequence[int]],
    encode: Callable[[Sequence[int]], Sequence[Tensor]],
    fsync: Callable[[int], object] = os.fsync,
) -> StateCache:
    """Opens the cache in `folder`, and builds it first if it is missing, damaged, or of another key or dtype.

    If several processes need it, one builds the cache and the others wait. The build is staged in another folder, so a
    killed build never looks complete.

    Args:
        folder: folder of this cache only; a cache with another key is replaced.
        key: from `cache_key`.
        dtype: data type of the numbers on disk.
        batches: clip indices; each index from 0 to the number of clips occurs once.
        encode: returns the states (T, D) of each clip of a batch of indices, with the same D for all clips; T is 0 for
            a clip whose audio cannot be read.
        fsync: flushes a file to disk.

    Raises:
        DataError: the cache cannot be written.
    """
    key = f"{key}/{dtype}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(folder.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (cache := _opened(folder, key, dtype)) is None:
                _build(folder, key, dtype, batches, encode, fsync)
                cache = _opened(folder, key, dtype)
    except OSError as error:
        raise DataError(
            f"{folder}: the cache of encoder states cannot be written ({error.strerror or error}); free disk space, or "
            "set machine.cache_encoder: false"
        ) from error
    if cache is None:
        raise DataError(
            f"{folder}: the cache of encoder states is damaged directly after writing it; check the disk, or set "
            "machine.cache_encoder: false"
        )
    return cache


def _opened(folder: Path, key: str, dtype: torch.dtype) -> StateCache | None:
    try:
        index: dict[str, Any] = read_json(folder / INDEX)
        if index["key"] != key:
            log.info("%s: built again, because the weights or the audio changed", folder)
            return None
        offsets, frames = np.array(index["offsets"], np.int64), np.array(index["frames"], np.int64)
        rows = np.memmap(folder / ROWS, np.uint8, "r").reshape(int(frames.sum()), index["width"] * dtype.itemsize)
        return StateCache(rows, offsets, frames, dtype)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: damaged (%s); built again", folder, error)
        return None


def _build(
    folder: Path,
    key: str,
    dtype: torch.dtype,
    batches: Iterable[Sequence[int]],
    encode: Callable[[Sequence[int]], Sequence[Tensor]],
    fsync: Callable[[int], object],
) -> None:
    staged = folder.with_name(folder.name + ".part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    offsets, frames, width, total = dict[int, int](), dict[int, int](), 0, 0
    try:
        with open(staged / ROWS, "wb") as file:
            for batch in batches:
                for index, states in zip(batch, encode(batch), strict=True):
                    offsets[index], frames[index] = total, len(states)
                    total, width = total + len(states), states.shape[1]
                    file.write(states.detach().to("cpu", dtype).contiguous().view(torch.uint8).numpy().data)
            file.flush()
            fsync(file.fileno())
        clips = range(len(frames))
        (staged / INDEX).write_text(
            json.dumps(
                {
                    "key": key,
                    "width": width,
                    "offsets": [offsets[i] for i in clips],
                    "frames": [frames[i] for i in clips],
                }
            )
        )
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
