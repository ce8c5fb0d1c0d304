"""Reads WebDataset shards: tar archives with the files of each clip under one name, such as 000.flac and 000.txt.

The key of a sample is the name up to the first dot after the last slash. Audio is read in place, as byte ranges; only
the texts are read from the archive here.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.byte_range import ByteRange
from finetune.data.columns import known_columns
from finetune.data.formats.folders import SPLIT_FOLDERS, few_folders, is_known_folder
from finetune.data.formats.small_members import SmallMembers
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.tar_index import read_tar_index
from finetune.data.text_lines import document_kind

log = logging.getLogger(__name__)

NAME = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<suffix>[^/]+)")
TEXT = ("txt", "text", "transcript", "transcription", "trans", "lab")
COLUMNS = {"cls": "cls", "lang": "language", "language": "language", "spk": "speaker", "speaker": "speaker"}
MAX_TEXT, MAX_JSON = 1 << 20, 16 << 20  # bytes of a text and of a JSON file
MAX_LISTED = 1000  # files of a folder that are looked at to find its shape


def matches(path: Path) -> bool:
    """Whether a path is a tar archive, or a folder of them without audio files beside them."""
    if path.is_dir():
        known = _shards(path, MAX_LISTED) or any(_shards(folder, MAX_LISTED) for folder in few_folders(path))
        return bool(known) and not _has_audio(path) and not is_known_folder(path)
    return path.suffix.lower() == ".tar"


def _shards(folder: Path, limit: int | None = None) -> list[Path]:
    """The archives of a folder, or those of its first entries."""
    with os.scandir(folder) as entries:
        listed = (entry for entry in islice(entries, limit) if entry.name.lower().endswith(".tar"))
        return sorted(Path(entry.path) for entry in listed if entry.is_file())


def _has_audio(folder: Path) -> bool:
    return any(os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES for _, _, names in os.walk(folder) for name in names)


def read(path: Path, media_dir: Path) -> Iterator[Row]:
    """The samples of a shard, or of all shards of a folder in the order of their names.

    Raises:
        DataError: an archive cannot be read, or a folder has its shards in subfolders.
    """
    shards = _shards(path) if path.is_dir() else [path]
    if not shards:
        folders = sorted(str(folder) for folder in few_folders(path) if _shards(folder))
        raise DataError(
            f"{path}: the shards are in its subfolders {', '.join(map(os.path.basename, folders[:10]))}; give one of "
            f"them, such as {folders[0]}, or a pattern such as {path}/*/*.tar"
        )
    stated = (frozenset(re.split(r"[^a-z]+", shard.stem.lower())) & {*SPLIT_FOLDERS} for shard in shards)
    if len(splits := sorted({"-".join(sorted(words)) for words in stated} - {""})) > 1:
        raise DataError(
            f"{path}: the shards are of the splits {', '.join(splits)}; give one of them, such as "
            f"'{path}/*{splits[-1]}*.tar'"
        )
    for shard in shards:
        yield from read_shard(os.path.abspath(shard))


def read_shard(path: str) -> Iterator[Row]:
    """The samples of a shard, a file or a URL, in the order in which they begin."""
    index = read_tar_index(path)
    samples: dict[str, list[tuple[str, int]]] = {}
    for number in range(len(index)):
        if match := NAME.fullmatch(index.name(number)):
            samples.setdefault(match["key"], []).append((match["suffix"].lower(), number))
    contents, others = SmallMembers(index), 0
    try:
        for key, files in samples.items():
            row = _Sample(path, contents, key, [(suffix, index[number]) for suffix, number in files]).row()
            others += row is None
            if row is not None:
                yield row
    finally:
        contents.close()
    if others:
        log.info(f"{path}: {others} of {len(samples)} names have neither audio nor text and are not read")


class _Sample:
    """The files of one key, as pairs of suffix and member."""

    def __init__(self, archive: str, contents: SmallMembers, key: str, files: list[tuple[str, ByteRange]]) -> None:
        self.archive, self.contents, self.key, self.files = archive, contents, key, files
        self.faults: list[Finding] = []

    def row(self) -> Row | None:
        """The row of the sample; None if it has neither audio nor text."""
        audio = [member for suffix, member in self.files if f".{suffix.rpartition('.')[2]}" in AUDIO_SUFFIXES]
        values = self._json()
        columns = {COLUMNS[suffix]: self._content(member) for suffix, member in self.files if suffix in COLUMNS}
        text = self._text()
        if not audio and not values and text is None and not self.faults:
            return None
        path = self._audio(audio)
        if text is None and isinstance(values.get("text"), str | None) and not values.get("text"):
            detail = f"no text in the files {', '.join(member.name for _, member in self.files)}"
            self.faults.append(Finding("empty transcript", detail))
        if text is not None and values.get("text", text) != text:
            columns["json_text"] = values["text"]
        shard = os.path.basename(self.archive).removesuffix(".tar")
        values = {"id": f"{shard}/{self.key}", "text": text, **values, **columns, "audio_filepath": path}
        values |= {} if text is None else {"text": text}
        where = audio[0].name if audio else self.files[0][1].name
        return Row(f"{self.archive}: {where}", values, self.faults[0] if self.faults else None)

    def _audio(self, members: list[ByteRange]) -> str | None:
        if len(members) == 1 and members[0].length:
            return str(members[0])
        if len(members) > 1:
            names = " and ".join(member.name for member in members)
            self.faults.insert(0, Finding("ambiguous sample", f"the audio files {names} have the same key"))
        else:
            reason = f"{members[0].name} has 0 bytes" if members else f"the key {self.key} has no audio file"
            self.faults.insert(0, Finding("missing audio", reason))
        return None

    def _text(self) -> str | None:
        """The text of the sample from a file such as .txt; of a file such as .en.txt if there is only one."""
        members = [member for suffix, member in self.files if suffix in TEXT]
        members = members or [member for suffix, member in self.files if suffix.rpartition(".")[2] in TEXT]
        texts = list(dict.fromkeys(self._content(member) for member in members))
        if len(texts) > 1:
            names = " and ".join(member.name for member in members)
            self.faults.append(Finding("ambiguous sample", f"the files {names} have different texts"))
        return texts[0] if texts else None

    def _content(self, member: ByteRange) -> str | None:
        if member.length > MAX_TEXT:
            self.faults.append(Finding("transcript too long", f"{member.name} has {member.length} bytes"))
            return None
        try:
            text = self.contents.read(member).decode("utf-8-sig").strip()
            if kind := document_kind(text):
                self.faults.append(Finding("unreadable annotation", f"{member.name} is {kind}, not plain text"))
            return text
        except UnicodeDecodeError as error:
            detail = f"{member.name} is not UTF-8 text ({error.reason})"
            self.faults.append(Finding("invalid Unicode in transcript", detail))
            return None

    def _json(self) -> dict[str, Any]:
        """The values of the JSON file, with `text` as the name of the text."""
        member = next((member for suffix, member in self.files if suffix == "json"), None)
        if member is None:
            return {}
        try:
            values = json.loads(self.contents.read(member)) if member.length <= MAX_JSON else None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            self.faults.append(Finding("empty transcript", f"{member.name} is not a JSON object of at most 16 MB"))
            return {}
        names = {"audio_filepath": "audio_filepath_original"}
        if "text" not in values:
            names |= {name: key for name, key in known_columns(values).items() if key == "text"}
        return {names.get(str(name)) or str(name): value for name, value in values.items()}
