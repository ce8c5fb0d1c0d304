"""Corrections of transcripts, saved as a manifest with audio files, which `data.train` of a recipe takes.

A folder of corrections has `manifest.jsonl` and `audio/`. Audio files are named by their content, so no name of a
request becomes part of a path. A row is a segment of a file that a person has read. A segment that is saved again
replaces its earlier row.
"""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune.core.errors import DataError
from finetune.core.files import stream_jsonl, write_lines
from finetune.core.languages import SPEECH_LANGUAGES, language_code
from finetune.data.audio import inspect_audio
from finetune.data.audio_source import AudioSource, Buffer, audio_source
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.cells import clean_text
from finetune.data.manifest import MAX_TEXT, Utterance, manifest_line
from finetune.data.row_checks import CONTROL_TOKEN

MANIFEST, AUDIO, LOCK = "manifest.jsonl", "audio", ".lock"
MAX_SEGMENTS = 10_000  # of one request; more than ten hours of speech
TOLERANCE = (
    0.1  # seconds that a segment may end after its audio, because a browser and the server can count differently
)
ID_DIGITS = 16  # hexadecimal digits of the content's hash


class CorrectedSegment(BaseModel):
    """A part of the audio, in seconds, with its correct text, and the text that the model wrote."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    start: Annotated[float, Field(ge=0)]
    end: Annotated[float, Field(gt=0)]
    text: Annotated[str, Field(max_length=MAX_TEXT)]
    machine_text: Annotated[str, Field(max_length=MAX_TEXT)] = ""


class Corrections(BaseModel):
    """The corrected segments of one file, as `POST /v1/corrections` gets them in its field `corrections`."""

    model_config = ConfigDict(extra="forbid")

    segments: Annotated[list[CorrectedSegment], Field(min_length=1, max_length=MAX_SEGMENTS)]
    file_name: Annotated[str, Field(max_length=1000)] = ""
    """As the user's computer names it; only a known suffix is used."""
    model: Annotated[str, Field(max_length=200)] = ""
    language: Annotated[str, Field(max_length=50)] = ""


@dataclass(frozen=True)
class SavedCorrections:
    """How many segments were saved, and how many of them replaced an earlier row."""

    saved: int
    replaced: int


def parse_corrections(content: str | bytes) -> Corrections:
    """Parses the JSON of a request.

    Raises:
        DataError: not JSON, or not of this form; the message names the first wrong field.
    """
    try:
        return Corrections.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "JSON"
        raise DataError(f"corrections: {field}: {first['msg']}") from None


class CorrectionStore:
    """A folder of corrections. Several threads and processes may save into one folder.

    Args:
        folder: created if it is missing.

    Raises:
        DataError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, folder / MANIFEST
        try:
            (folder / AUDIO).mkdir(parents=True, exist_ok=True)
            with self._locked():
                pass
        except OSError as error:
            raise DataError(f"{folder}: corrections cannot be saved here ({error.strerror})") from error

    def save(
        self, audio: Path | AudioSource, corrections: Corrections, max_seconds: float = math.inf
    ) -> SavedCorrections:
        """Saves the audio and one row for each segment: first the audio, then all rows at once.

        Args:
            audio: the file as it was uploaded, or its bytes.
            corrections: the segments.
            max_seconds: longer audio is refused.

        Raises:
            DataError: the audio cannot be decoded, or a segment has no place in it, no words or a control token.
            RecipeError: the language is unknown.
            OSError: the disk is full, or the folder can no longer be written. Nothing is saved then.
        """
        source = audio_source(audio)
        duration = inspect_audio(source, max_duration=max_seconds).duration
        if duration > max_seconds:
            raise DataError(f"the audio has {duration:.0f} s; at most {max_seconds:g} s are accepted")
        texts = [_checked_text(number, item, duration) for number, item in enumerate(corrections.segments, 1)]
        language = language_code(corrections.language, SPEECH_LANGUAGES)
        with source.buffer() as content:
            digest = hashlib.sha256(content).hexdigest()
        suffix = PurePosixPath(corrections.file_name.lower()).suffix
        target = self.folder / AUDIO / f"{digest}{suffix if suffix in AUDIO_SUFFIXES else ''}"
        saved_at = datetime.now(UTC).isoformat(timespec="seconds")
        rows = dict[str, bytes]()
        for item, text in zip(corrections.segments, texts, strict=True):
            row_id = f"{digest[:ID_DIGITS]}@{item.start:.3f}"
            utterance = Utterance(
                id=row_id,
                audio_filepath=f"{AUDIO}/{target.name}",
                offset=round(item.start, 3),
                duration=round(min(item.end, duration) - item.start, 3),
                text=text,
                language=language,
                extra={
                    "machine_text": item.machine_text,
                    "corrected_model": corrections.model,
                    "corrected_at": saved_at,
                },
            )
            rows[row_id] = manifest_line(utterance)
        with self._locked():
            if not target.exists():
                with source.buffer() as content:
                    _write_audio(target, content)
            replaced = self._write(rows)
        return SavedCorrections(len(rows), replaced)

    def _write(self, rows: dict[str, bytes]) -> int:
        """Appends rows, or writes the manifest anew without the rows that they replace. Returns how many those are."""
        self._cut_torn_line()
        replaced = self._known(rows)
        if replaced:
            write_lines(self.manifest, self._lines_without(rows, rows.values()))
        else:
            _append(self.manifest, b"".join(rows.values()))
        return replaced

    def _known(self, ids: Collection[str]) -> int:
        return sum(row.get("id") in ids for _, row in stream_jsonl(self.manifest)) if self.manifest.exists() else 0

    def _lines_without(self, ids: Collection[str], more: Collection[bytes]) -> Iterator[bytes]:
        with open(self.manifest, "rb") as lines:
            yield from (line for line in lines if line.strip() and json.loads(line).get("id") not in ids)
        yield from more

    def _cut_torn_line(self) -> None:
        """Removes a line without its end, which a kill or a power cut during `_append` can leave."""
        if not self.manifest.exists():
            return
        with open(self.manifest, "rb+") as file:
            content_end = file.seek(0, os.SEEK_END)
            if content_end and not _ends_with_line(file.fileno(), content_end):
                file.seek(0)
                file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / LOCK, "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _checked_text(number: int, segment: CorrectedSegment, duration: float) -> str:
    """The text as transcripts have it. Raises DataError if a training could not use the segment."""
    if not segment.start < segment.end <= duration + TOLERANCE:
        raise DataError(
            f"segment {number}: {segment.start:g} to {segment.end:g} s is not a part of the audio, "
            f"which has {duration:.2f} s"
        )
    text = clean_text(segment.text)
    if not any(map(str.isalnum, text)):
        raise DataError(f"segment {number} has no words; leave it out")
    if token := CONTROL_TOKEN.search(text):
        raise DataError(f"segment {number}: {token[0]} is a command for the model; remove it")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise DataError(f"segment {number}: half of a surrogate pair is not a character")
    return text


def _write_audio(target: Path, content: Buffer) -> None:
    """Writes a file atomically. Readers of other processes see it complete or not at all."""
    temporary = target.with_name(f".{uuid4().hex}.part")
    try:
        with open(temporary, "xb") as output:
            output.write(content)
            output.flush()
            os.fsync(output.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _append(path: Path, content: bytes) -> None:
    """Appends complete lines; after an error, such as a full disk, the file is as before."""
    with open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(content):
                written += file.write(content[written:])
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(before)
            raise


def _ends_with_line(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"
