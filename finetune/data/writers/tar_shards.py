"""Writes utterances to tar shards: `shard-000000.tar` and so on, and a manifest whose audio paths name their members.

Each clip is two members, `NNNNNNNN.flac` and `NNNNNNNN.json`, as in WebDataset (https://github.com/webdataset/webdataset);
the JSON object has the columns of the manifest. The same utterances give the same bytes.
"""

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.data.byte_range import ByteRange
from finetune.data.manifest import Utterance, json_line, manifest_row, write_manifest
from finetune.data.tar_index import write_tar_index
from finetune.data.writers.clip_audio import ClipAudio, moved_to

MANIFEST = "manifest.jsonl"
SHARD = "shard-{:06d}.tar"


@dataclass
class _Shard:
    """An open shard: its name, the file, and the archive in it."""

    name: str
    archive: tarfile.TarFile
    temporary: Path

    def add(self, name: str, data: bytes) -> ByteRange:
        """Appends a member, and returns its place."""
        start = self.archive.offset + tarfile.BLOCKSIZE  # the header of a short name is one block
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644  # no time and no owner: the same bytes at each run
        self.archive.addfile(info, io.BytesIO(data))
        return ByteRange(self.name, name, start, len(data))

    def close(self, folder: Path) -> None:
        self.archive.close()
        os.replace(self.temporary, folder / self.name)


def write_tar_shards(folder: Path, clips: Iterable[tuple[Utterance, ClipAudio]], shard_bytes: int) -> list[Path]:
    """Writes shards, an index beside each, and `manifest.jsonl`, whose names of shards are relative to its folder.

    Args:
        folder: the folder; shards of an earlier call are deleted first.
        clips: utterances and their audio.
        shard_bytes: a shard that has reached this size is closed.

    Returns:
        The shards.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / MANIFEST, *folder.glob("shard-*.tar"), *folder.glob("shard-*.tar.index")):
        old.unlink(missing_ok=True)
    paths = list[Path]()
    try:
        write_manifest(folder / MANIFEST, _write(folder, clips, shard_bytes, paths))
        for path in paths:
            write_tar_index(path)
    except BaseException:  # shards without their manifest would be a smaller corpus
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    return paths


def _write(
    folder: Path, clips: Iterable[tuple[Utterance, ClipAudio]], shard_bytes: int, paths: list[Path]
) -> Iterator[Utterance]:
    """Writes the shards, adds their paths to `paths`, and yields the utterances with their new audio paths."""
    shard: _Shard | None = None
    try:
        for number, (item, audio) in enumerate(clips):
            if shard is None:
                shard = _open(folder, SHARD.format(len(paths)))
            place = shard.add(f"{number:08d}{audio.suffix}", audio.data)
            moved = moved_to(item, str(place), audio)
            row = {key: value for key, value in manifest_row(moved).items() if key != "audio_filepath"}
            shard.add(f"{number:08d}.json", json_line(row, item.id))
            yield moved
            if shard.archive.offset >= shard_bytes:
                shard.close(folder)
                paths.append(folder / shard.name)
                shard = None
        if shard is not None:
            shard.close(folder)
            paths.append(folder / shard.name)
            shard = None
    finally:
        if shard is not None:
            shard.temporary.unlink(missing_ok=True)


def _open(folder: Path, name: str) -> _Shard:
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    return _Shard(name, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT), temporary)
