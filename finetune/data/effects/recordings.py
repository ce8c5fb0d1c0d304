"""Recordings for augmentation: noise and room responses from folders, manifests and audio files."""

import difflib
import hashlib
import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.core.files import stream_jsonl
from finetune.core.wording import count
from finetune.data.audio import MIN_SAMPLES, SAMPLE_RATE, load_audio
from finetune.data.audio_file import AudioFile, open_audio
from finetune.data.audio_readers import TOLERANCE
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.effects.rooms import MAX_RESPONSE

Wave = NDArray[np.float32]

MAX_OPENED = 2000  # files of an entry that `check_recordings` opens
MAX_SHOWN = 3  # files in a message


@dataclass(frozen=True)
class Recording:
    """A segment of an audio file; without a duration, up to its end."""

    path: str
    offset: float = 0.0
    duration: float | None = None


def find_recordings(entry: str, key: str, names: Collection[str] = ()) -> list[Recording]:
    """The recordings of a folder with its subfolders, of a JSON Lines manifest, or of an audio file, in a fixed order.

    Args:
        entry: the path.
        key: the setting, for messages.
        names: what else the setting can name, for a hint at a misspelled name.

    Raises:
        DataError: there is no such path, or it has no audio.
    """
    path = Path(os.path.expanduser(entry))
    if path.is_dir():
        recordings = [Recording(file) for file in _audio_in(path)]
    elif path.is_file():
        recordings = list(_rows(path, key)) if path.suffix == ".jsonl" else [Recording(str(path))]
    else:
        near = difflib.get_close_matches(entry, names, 1)
        hint = f"; did you mean {near[0]}?" if near else f" and not one of {', '.join(names)}" if names else ""
        raise DataError(f"{key}: {entry}: no such file or folder{hint}")
    if not recordings:
        raise DataError(f"{key}: {entry}: has no audio; name a folder with audio files, a .jsonl manifest or a file")
    return recordings


def _audio_in(folder: Path) -> Iterator[str]:
    """The audio files of a folder and its subfolders, sorted, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(AUDIO_SUFFIXES):
                yield os.path.join(parent, name)


def _rows(manifest: Path, key: str) -> Iterator[Recording]:
    """The recordings of a manifest; relative paths start at its folder."""
    try:
        for where, row in stream_jsonl(manifest):
            name = row.get("audio_filepath")
            if not isinstance(name, str) or not name:
                raise DataError(f"{where}: `audio_filepath` must be a string; {key} needs it in each row")
            try:
                offset, duration = float(row.get("offset") or 0.0), row.get("duration")
                duration = None if duration is None else float(duration)
                if not 0 <= offset < math.inf or not 0 <= (duration or 0.0) < math.inf:
                    raise ValueError("negative, NaN or infinite")
                yield Recording(str(manifest.parent / name), offset, duration)
            except (TypeError, ValueError) as error:
                raise DataError(f"{where}: `offset` and `duration` must be numbers of seconds, not negative") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{key}: {manifest}: cannot be read ({error})") from error


def excerpt(recording: Recording, count: int, rng: np.random.Generator) -> Wave:
    """A random part (count,) at 16 kHz of the first channel. A recording that is too short is repeated.

    Raises:
        DataError: the audio cannot be read.
    """
    place, needed = rng.random(), count / SAMPLE_RATE
    seconds = seconds_of_recording(recording)
    if seconds > needed:
        offset = recording.offset + place * (seconds - needed)
        wave = load_audio(recording.path, offset, max(needed, MIN_SAMPLES / SAMPLE_RATE), 0)
    else:
        wave = load_recording(recording)
        wave = np.roll(wave, -int(place * len(wave)))
    return np.resize(wave, count) if len(wave) < count else wave[:count]


def load_recording(recording: Recording) -> Wave:
    """The complete recording (N,) at 16 kHz, its first channel. Raises DataError if it cannot be read."""
    return load_audio(recording.path, recording.offset, recording.duration, 0)


def seconds_of_recording(recording: Recording) -> float:
    """Its length; without a duration, from the header of the file. Raises DataError if that cannot be read."""
    if recording.duration is not None:
        return recording.duration
    with open_audio(recording.path) as file:
        return file.frames / file.samplerate - recording.offset


def check_recordings(recordings: Sequence[Recording], entry: str, key: str) -> None:
    """Opens the files of an entry, at most MAX_OPENED at even distances.

    Raises:
        DataError: some cannot be read, are too short or silent, or end before their segment ends.
    """
    problems, opened = list[str](), recordings[:: -(-len(recordings) // MAX_OPENED)]
    used = MAX_RESPONSE / SAMPLE_RATE if key == "augment.rooms" else math.inf
    for recording in opened:
        try:
            with open_audio(recording.path) as file:
                seconds = file.frames / file.samplerate - recording.offset
                silent = _is_silent(file, recording, used)
            length = seconds if recording.duration is None else recording.duration
            if min(seconds, length) * SAMPLE_RATE < MIN_SAMPLES:
                problems.append(f"{recording.path}: too short ({max(0.0, min(seconds, length)):.3f} s)")
            elif length > seconds + TOLERANCE:
                problems.append(
                    f"{recording.path}: the segment {recording.offset:.3f} to {recording.offset + length:.3f} s ends "
                    f"after the end of the file at {recording.offset + seconds:.3f} s"
                )
            elif silent:
                problems.append(f"{recording.path}: silent{f' in the first {used:g} s' if used < seconds else ''}")
        except DataError as error:
            problems.append(str(error))
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:MAX_SHOWN])
        raise DataError(
            f"{key}: {entry}: {len(problems)} of {count(len(opened), 'file')} cannot be used; repair or remove "
            f"them:{shown}"
        )


def _is_silent(file: AudioFile, recording: Recording, used: float) -> bool:
    """Whether the first `used` seconds of a recording have zeros only, in the first channel.

    Only a silent recording is read to its end.
    """
    position = round(recording.offset * file.samplerate)
    seconds = min(used, math.inf if recording.duration is None else recording.duration)
    end = file.frames if seconds == math.inf else position + round(seconds * file.samplerate)
    if position >= file.frames:
        return False  # too short
    file.seek(position)
    while position < end and len(block := file.read(min(end - position, file.samplerate))):
        if block[:, 0].any():
            return False
        position += len(block)
    return True


def state_of(recordings: Sequence[Recording]) -> str:
    """A hash of names, segments and sizes, by which a change between two parts of a run is noticed."""
    digest = hashlib.sha256()
    for item in recordings:
        size = os.path.getsize(item.path) if os.path.exists(item.path) else -1
        digest.update(
            f"{os.path.basename(item.path)}\0{item.offset}\0{item.duration}\0{size}\n".encode(errors="replace")
        )
    return digest.hexdigest()
