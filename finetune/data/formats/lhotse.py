"""Reads manifests of Lhotse and Shar folders without the package lhotse.

Manifests: cuts, or supervisions with the recordings of the same name, as JSON Lines or a list, also with gzip.
Shar: cuts.000000.jsonl.gz and recording.000000.tar with the audio of the cuts, which are read in place as byte ranges.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.data.byte_range import is_url
from finetune.data.columns import known_columns
from finetune.data.formats.folders import FileFinder, is_known_folder
from finetune.data.formats.lhotse_cuts import cut_rows, objects, supervision_row
from finetune.data.formats.lines import first_object, json_objects
from finetune.data.key_tables import KeyTables
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.tar_index import TarIndex, read_tar_index

SUFFIX = re.compile(r"\.jsonl?(\.gz)?$", re.IGNORECASE)
SHARD = re.compile(r"cuts(?P<number>\.\d+)?\.jsonl(\.gz)?")  # of Shar
RECORDING = re.compile(r"recording(\.\d+)?\.tar(\.gz)?")


def kind_of(path: Path) -> str | None:
    """`cuts`, `supervisions` or `recordings`: what the first line of a file is; None for another file."""
    if not SUFFIX.search(path.name) or (row := first_object(path)) is None:
        return None
    if "audio_filepath" in known_columns(row).values():  # a manifest with some of these columns
        return None
    keys = row.keys()
    if str(row.get("type", "")).endswith("Cut") and ({"supervisions", "tracks"} & keys or {"id", "duration"} <= keys):
        return "cuts"
    if {"recording_id", "start", "duration"} <= keys:
        return "supervisions"
    return "recordings" if {"sources", "sampling_rate"} <= keys else None


def matches(path: Path) -> bool:
    """Whether a file is a manifest, or a folder has manifests or Shar files."""
    if path.is_file():
        return kind_of(path) is not None or RECORDING.fullmatch(path.name) is not None
    manifests = _manifests(path)
    known = any(kind == "tar" or kind_of(files[0]) == kind for kind, files in manifests.items())
    return known and not is_known_folder(path)


def _manifests(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder that have the names of manifests, by kind; `tar` for the audio of Shar."""
    manifests: dict[str, list[Path]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if RECORDING.fullmatch(name):
            manifests.setdefault("tar", []).append(folder / name)
        for kind in ("cuts", "supervisions", "recordings"):
            if SUFFIX.search(name) and re.search(rf"(?<![a-z]){kind}(?![a-z])", name):
                manifests.setdefault(kind, []).append(folder / name)
    return manifests


def read(path: Path, media_dir: Path) -> Iterator[Row]:
    """One row for each supervision.

    Raises:
        DataError: a manifest is missing or cannot be read; a folder has several corpora.
    """
    if path.is_dir():
        yield from _read_folder(path)
    elif RECORDING.fullmatch(path.name):
        raise DataError(f"{path}: the audio of a Shar shard; give its folder, or cuts.*.jsonl.gz")
    elif kind_of(path) == "cuts":
        yield from _located(read_cuts(os.path.abspath(path)), path.parent)
    else:
        yield from _located(_read_pair(path), path.parent)


def _read_folder(folder: Path) -> Iterator[Row]:
    manifests = _manifests(folder)
    shards = [path for path in manifests.get("cuts", ()) if SHARD.fullmatch(path.name)]
    if manifests.get("tar") and not shards:
        raise DataError(f"{folder}: cuts.*.jsonl.gz is missing beside {manifests['tar'][0].name}; Shar has both")
    files = shards or manifests.get("cuts") or manifests.get("supervisions") or manifests["recordings"]
    if len(files) > 1 and not shards:
        names = ", ".join(path.name for path in files[:10])
        raise DataError(f"{folder}: the folder has the manifests {names}; give one of them, such as {files[0]}")
    for path in files:
        yield from read(path, folder)


def _located(rows: Iterator[Row], folder: Path) -> Iterator[Row]:
    """Rows with the paths of their files, which can be relative to where a recipe of Lhotse ran."""
    files = FileFinder(folder)
    for row in rows:
        name = row.values.get("audio_filepath")
        if isinstance(name, str) and "::" not in name:
            row.values["audio_filepath"] = files.find(name) or name
        yield row


def read_cuts(path: str) -> Iterator[Row]:
    """One row for each supervision of the cuts in a file or a URL, with the audio of a Shar shard beside it.

    Raises:
        DataError: the cuts or their audio cannot be read.
    """
    folder, _, name = path.rpartition("/")
    match = SHARD.fullmatch(name)
    tar = f"{folder}/recording{match['number'] or ''}.tar" if match else None
    audio = _SharAudio(tar) if tar and not is_url(tar) and os.path.isfile(tar) else None
    for where, cut in json_objects(path):
        if audio is None and tar and _is_placeholder(cut):
            if os.path.isfile(f"{tar}.gz"):
                raise DataError(f"{where}: the audio, {tar}.gz, is compressed; run gunzip {tar}.gz")
            if not is_url(tar):
                raise DataError(f"{where}: the audio of the cuts, {tar}, is missing")
            audio = _SharAudio(tar)
        yield from cut_rows(cut if audio is None else audio.attached(cut), where)


def _is_placeholder(cut: dict[str, Any]) -> bool:
    recording = cut.get("recording")
    sources = objects(recording.get("sources")) if isinstance(recording, dict) else []
    return any(source.get("type") == "shar" for source in sources)


class _SharAudio:
    """The audio of one shard: a tar with the audio of each cut, named by its id."""

    def __init__(self, tar: str) -> None:
        self.index: TarIndex = read_tar_index(tar)
        self.members: dict[str, list[int]] = {}
        for number in range(len(self.index)):
            stem, _, suffix = self.index.name(number).rpartition(".")
            if suffix not in ("json", "nodata", "nometa"):
                self.members.setdefault(stem, []).append(number)

    def attached(self, cut: dict[str, Any]) -> dict[str, Any]:
        """A cut whose recording is its audio in the tar. Cuts of the same id have it in the order of their lines."""
        key = str(cut.get("id"))
        audio = self.members.get(key)
        recording = cut.get("recording")
        if not audio:
            nothing = {"type": "nodata", "channels": cut.get("channel"), "source": os.path.basename(self.index.path)}
            return {**cut, "recording": {"sources": [nothing]}}
        member = self.index[audio.pop(0)]
        recording = recording if isinstance(recording, dict) else {"duration": cut.get("duration")}
        sources = [*objects(recording.get("sources")), {"channels": cut.get("channel")}]
        source = {**sources[0], "type": "file" if member.length else "nodata", "source": str(member)}
        return {**cut, "recording": {**recording, "sources": [source], "transforms": None}}


def _read_pair(path: Path) -> Iterator[Row]:
    """The rows of supervisions, each with its recording."""
    kind = kind_of(path)
    other = "recordings" if kind == "supervisions" else "supervisions"
    names = [re.sub(rf"(?<![a-z]){kind}(?![a-z])", other, path.name)]
    names += [f"{names[0]}.gz" if not names[0].endswith(".gz") else names[0].removesuffix(".gz")]
    partner = next((path.parent / name for name in names if name != path.name and (path.parent / name).is_file()), None)
    if partner is None:
        raise DataError(f"{path.parent / names[0]} is missing; {kind} are read with the {other} of the same name")
    supervisions, recordings = (path, partner) if kind == "supervisions" else (partner, path)
    tables = KeyTables()
    try:
        rows = (
            (str(item.get("id")), number, json.dumps(item))
            for number, (_, item) in enumerate(json_objects(recordings), 1)
        )
        tables.load("recordings", rows)
        for where, supervision in json_objects(supervisions):
            yield _joined(tables, supervision, where, recordings.name)
    finally:
        tables.close()


def _joined(tables: KeyTables, supervision: dict[str, Any], where: str, recordings: str) -> Row:
    key = str(supervision.get("recording_id"))
    stored = tables.value("recordings", key)
    recording = json.loads(stored) if stored else {}
    cut = {
        "start": 0,
        "duration": recording.get("duration"),
        "channel": supervision.get("channel"),
        "recording": recording,
    }
    if stored:
        return supervision_row(cut, supervision, where)
    row = supervision_row({**cut, "duration": 1}, {**supervision, "start": 0, "duration": 1}, where)
    return Row(where, row.values, Finding("missing audio", f"{recordings} has no recording with the id {key!r}"))
