"""Reads tarred manifests of NeMo: JSON Lines whose `audio_filepath` is the name of a member of audio_N.tar.

N is the `shard_id` of a row, or the number in the name of the manifest. A file of which several segments are rows is
once in the tar; the names of the further rows end in -sub1, -sub2 and so on. Members are read in place, as byte ranges.
"""

import json
import os
import re
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.data.audio_paths import audio_folders, find_audio
from finetune.data.byte_range import ByteRange
from finetune.data.cells import shown
from finetune.data.formats.folders import is_known_folder
from finetune.data.formats.lines import first_object, json_objects
from finetune.data.key_tables import KeyTables
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.tar_index import read_tar_index

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
TAR = re.compile(r"audio[^/]*?_?(?P<number>\d+)[^/\d]*\.tar(\.gz)?")
SHARDED = re.compile(r"manifest[^/]*?_(?P<number>\d+)[^/\d]*\.jsonl?(\.gz)?")
SUB = re.compile(r"(?P<stem>.+)-sub\d+(?P<suffix>\.\w+)?")
KEYS = ("audio_filepath", "audio_file")
FIRST = 20  # rows whose files are looked up
WHOLE = "tarred_audio_manifest"  # the name of the manifest of all shards; a version can follow


def matches(path: Path) -> bool:
    """Whether a file is a tarred manifest or its audio, or a folder has both."""
    if path.is_dir():
        return bool(_tars([path])) and _manifests(path) != [] and not is_known_folder(path)
    if path.suffix == ".tar":
        return TAR.fullmatch(path.name) is not None and _manifests(path.parent) != []
    return path.name.endswith(SUFFIXES) and _is_tarred(path)


def _is_tarred(path: Path) -> bool:
    """Whether none of the first rows names a file, and the first has a shard or a tar beside the manifest."""
    row = first_object(path)
    key = next((key for key in KEYS if row and isinstance(row.get(key), str)), None)
    if row is None or key is None or "::" in row[key] or "://" in row[key]:
        return False
    if not any(find_audio(str(values.get(key)), audio_folders(path.parent)) for values in _first_rows(path)):
        return "shard_id" in row or bool(_tars(_folders(path)))
    return False


def _first_rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [values for _, values in islice(json_objects(path), FIRST)]
    except DataError:
        return []


def _folders(manifest: Path) -> list[Path]:
    """Where the tars of a manifest can be: beside it, or beside the folder sharded_manifests."""
    return [manifest.parent, *([manifest.parent.parent] if "manifest" in manifest.parent.name else [])]


def _tars(folders: list[Path]) -> dict[int, list[Path]]:
    """The tars by number, of the first folder that has any."""
    for folder in folders:
        tars: dict[int, list[Path]] = {}
        for name in sorted(os.listdir(folder)):
            if match := TAR.fullmatch(name):
                tars.setdefault(int(match["number"]), []).append(folder / name)
        if tars:
            return tars
    return {}


def _manifests(folder: Path) -> list[Path]:
    """The manifests of a folder: the latest one of all shards, or those of each shard in the order of their numbers."""
    complete = sorted(path for path in folder.iterdir() if path.name.startswith(WHOLE) and path.name.endswith(SUFFIXES))
    if complete:
        return [max(complete, key=_numbers)]
    for place in (folder / "sharded_manifests", folder):
        names = sorted(os.listdir(place)) if place.is_dir() else []
        if manifests := [place / name for name in names if SHARDED.fullmatch(name)]:
            return sorted(manifests, key=_numbers)
    return []


def _numbers(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", path.name)], path.name


def read(path: Path, media_dir: Path) -> Iterator[Row]:
    """One row for each line, in the order of the shards.

    Raises:
        DataError: a manifest cannot be read, a tar is missing or compressed, or it is not known which one has a row.
    """
    if path.suffix == ".tar":
        folder = path.parent
        raise DataError(f"{path}: the texts of this tar are in the manifest {_manifests(folder)[0]}; give the manifest")
    for manifest in _manifests(path) if path.is_dir() else [path]:
        yield from _read_manifest(manifest)


def _read_manifest(path: Path) -> Iterator[Row]:
    tars = _tars(_folders(path))
    match = SHARDED.fullmatch(path.name)
    default = int(match["number"]) if match else next(iter(tars)) if len(tars) == 1 else None
    rows = json_objects(path) if match and not path.name.startswith(WHOLE) else _by_shard(path)
    for shard, group in groupby(rows, lambda row: _shard(row, default)):
        yield from _shard_rows(path, tars, shard, group)


def _shard(row: tuple[str, dict[str, Any]], default: int | None) -> int:
    where, values = row
    shard = values.get("shard_id", default)
    if isinstance(shard, str) and shard.isdecimal():
        shard = int(shard)
    if isinstance(shard, bool) or not isinstance(shard, int):
        raise DataError(f"{where}: `shard_id` is {shown(shard)}; write the number of the tar that has the audio")
    return shard


def _by_shard(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a manifest with the shards in the order in which they begin, so that each tar is opened once."""
    tables = KeyTables()
    try:
        rows = (
            (str(item[1].get("shard_id")), number, json.dumps(item)) for number, item in enumerate(json_objects(path))
        )
        tables.load_list("rows", rows)
        first = "(SELECT key, min(line) AS start FROM rows GROUP BY key)"
        for (item,) in tables.query(f"SELECT value FROM rows JOIN {first} USING (key) ORDER BY start, line"):
            where, row = json.loads(item)
            yield where, row
    finally:
        tables.close()


def _shard_rows(
    manifest: Path, tars: dict[int, list[Path]], shard: int, rows: Iterator[tuple[str, dict[str, Any]]]
) -> Iterator[Row]:
    shard_tars = tars.get(shard, [])
    if len(shard_tars) != 1:
        places = " and ".join(map(str, _folders(manifest)))
        reason = (
            f"audio_{shard}.tar is missing in {places}"
            if not shard_tars
            else " and ".join(map(str, shard_tars)) + " are both"
        )
        advice = "the audio of a tarred manifest lies beside it or in the folder above sharded_manifests"
        raise DataError(f"{manifest}: {reason}{f' shard {shard}' if shard_tars else ''}; {advice}")
    index = read_tar_index(os.path.abspath(shard_tars[0]))
    members = {index.name(number): number for number in range(len(index))}
    by_base = {os.path.basename(name): number for name, number in members.items()}
    for where, values in rows:
        key = next((key for key in KEYS if key in values), KEYS[0])
        name = values.get(key)
        numbers = [table[each] for each in _spellings(name) for table in (members, by_base) if each in table]
        member = index[numbers[0]] if numbers else None
        fault = None
        if member is None or not member.length:
            reason = "has no member" if member is None else "has no bytes for"
            fault = Finding("missing audio", f"{shard_tars[0].name} {reason} {shown(name)}")
        yield Row(where, {**values, key: _path(member)}, fault)


def _spellings(name: object) -> list[str]:
    """A name as it is, and the name of the file of which it is a further segment."""
    if not isinstance(name, str):
        return []
    match = SUB.fullmatch(name)
    return [name, *([match["stem"] + (match["suffix"] or "")] if match else [])]


def _path(member: ByteRange | None) -> str | None:
    return str(member) if member is not None and member.length else None
