"""Shar folders of Lhotse through check and prepare."""

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from command import Command
from shapes import assert_clip, run_check_and_prepare, write_audio, write_tar

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus
from finetune.data.row import Row

Json = dict[str, Any]


def read(path: object) -> list[Row]:
    return list(read_corpus(str(path), Path("media")))


def recording(name: str, seconds: float, *channels: int) -> Json:
    ids = list(channels) or [0]
    source = {"type": "shar", "channels": ids, "source": ""}
    return {"id": name, "sources": [source], "sampling_rate": 16000, "duration": seconds, "channel_ids": ids}


def cut(key: str, seconds: float, *supervisions: tuple[float, float, str], channel: Any = 0, **more: Any) -> Json:
    ids = channel if isinstance(channel, list) else [channel]
    items = [
        {
            "id": f"{key}-{number}",
            "recording_id": "r",
            "start": start,
            "duration": length,
            "channel": channel,
            "text": text,
        }
        for number, (start, length, text) in enumerate(supervisions)
    ]
    kind = "MultiCut" if isinstance(channel, list) else "MonoCut"
    content = {"id": key, "start": 0, "duration": seconds, "channel": channel, "supervisions": items, "type": kind}
    return content | {"recording": recording("r", seconds, *ids)} | more


def write_cuts(path: Path, *cuts: Json) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(item) + "\n" for item in cuts).encode()))
    return path


def manifest(seconds: float, *channels: int) -> bytes:
    return (json.dumps(recording("r", seconds, *channels)) + "\n").encode()


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for number in range(3):
        write_audio(tmp_path / "source" / f"{number}.flac", number, 2.0 + number)
    write_audio(tmp_path / "source" / "stereo.flac", 9, 3.0, channels=2)
    return tmp_path / "source"


@pytest.fixture
def shar(tmp_path: Path, audio: Path) -> Path:
    folder = tmp_path / "shar"
    several = cut("a/1.5", 3.0, (0.25, 1.0, "first"), (1.5, 1.5, "second"))
    write_cuts(folder / "cuts.000000.jsonl.gz", cut("a-0", 2.0, (0, 2.0, "zero")), several)
    write_tar(
        folder / "recording.000000.tar",
        {
            "a-0.flac": audio / "0.flac",
            "a-0.json": manifest(2.0),
            "a/1.5.flac": audio / "1.flac",
            "a/1.5.json": manifest(3.0),
        },
    )
    both = cut("both", 3.0, (0, 3.0, "both"), channel=[0, 1])
    side = cut("side", 4.0, (0, 4.0, "one side of a call"), channel=1)
    bare = {key: value for key, value in cut("bare", 2.0, (0.5, 1.0, "bare")).items() if key != "recording"}
    write_cuts(folder / "cuts.000001.jsonl.gz", both, cut("none", 2.0, (0, 2.0, "no audio")), side, bare)
    write_tar(
        folder / "recording.000001.tar",
        {
            "both.flac": audio / "stereo.flac",
            "both.json": manifest(3.0, 0, 1),
            "none.nodata": b"",
            "none.nometa": b"",
            "side.flac": audio / "2.flac",
            "side.json": manifest(4.0, 1),
            "bare.flac": audio / "0.flac",
            "bare.json": manifest(2.0),
        },
    )
    (folder / "features.000000.tar").write_bytes(b"")
    write_cuts(folder / "cuts_all.jsonl.gz", cut("other", 2.0, (0, 2.0, "not of the shards")))
    return folder


@pytest.mark.parametrize("source", ["", "cuts.*.jsonl.gz", "cuts.{000000..000001}.jsonl.gz"])
def test_every_way_to_name_it_gives_the_clips(
    finetune: Command, nano: Path, tmp_path: Path, audio: Path, shar: Path, source: str
) -> None:
    result = run_check_and_prepare(finetune, tmp_path, shar / source, nano)
    assert result.check.code == 0 and "7 rows" in result.check.out
    clips = result.clips
    assert list(clips) == ["a-0-0", "a/1.5-0", "a/1.5-1", "both-0", "side-0", "bare-0"]
    assert_clip(clips["a-0-0"], audio / "0.flac", "zero")
    assert_clip(clips["a/1.5-0"], audio / "1.flac", "first", 0.25, 1.25)
    assert_clip(clips["a/1.5-1"], audio / "1.flac", "second", 1.5, 3.0)
    assert_clip(clips["both-0"], audio / "stereo.flac", "both")
    assert_clip(clips["side-0"], audio / "2.flac", "one side of a call")
    assert_clip(clips["bare-0"], audio / "0.flac", "bare", 0.5, 1.5)
    assert clips["a/1.5-1"].audio_filepath.startswith(f"{shar}/recording.000000.tar::a/1.5.flac?bytes=")
    assert [(row["id"], row["kind"], row["where"]) for row in result.dropped] == [
        ("none-0", "unreadable audio", f"{shar}/cuts.000001.jsonl.gz:2")
    ]
    assert (
        "recording.000001.tar" in result.dropped[0]["detail"] and "no audio of this cut" in result.dropped[0]["detail"]
    )


def test_cuts_of_the_same_id_have_their_audio_in_order(tmp_path: Path, audio: Path) -> None:
    folder = tmp_path / "shar"
    write_cuts(folder / "cuts.jsonl.gz", cut("a", 2.0, (0, 2.0, "zero")), cut("a", 3.0, (0, 3.0, "one")))
    write_tar(folder / "recording.tar", {"a.flac": audio / "0.flac"})
    write_tar(folder / "second.tar", {"a.flac": audio / "1.flac"})
    with (folder / "recording.tar").open("ab") as file:  # an archive after the end of another one
        file.write((folder / "second.tar").read_bytes())
    paths = [str(row.values["audio_filepath"]) for row in read(folder / "cuts.jsonl.gz")]
    assert len(set(paths)) == 2 and all("a.flac?bytes=" in path for path in paths)


def test_a_missing_part_is_named(shar: Path) -> None:
    tar = shar / "recording.000001.tar"
    with pytest.raises(DataError, match=r"recording\.000001\.tar: the audio of a Shar shard; give its folder"):
        read(tar)
    content = tar.read_bytes()
    tar.unlink()
    with pytest.raises(DataError, match=r"cuts\.000001\.jsonl\.gz:1: the audio .*recording\.000001\.tar, is missing"):
        read(shar)
    (shar / "recording.000001.tar.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"recording\.000001\.tar\.gz, is compressed; run gunzip .*"):
        read(shar)
    for path in shar.glob("cuts.*"):
        path.unlink()
    with pytest.raises(DataError, match=r"shar: cuts\.\*\.jsonl\.gz is missing beside recording\.000000\.tar"):
        read(shar)


def test_cuts_with_files_need_no_tar(tmp_path: Path, audio: Path) -> None:
    item = cut("a", 2.0, (0.5, 1.0, "words"))
    item["recording"]["sources"][0] |= {"type": "file", "source": str(audio / "0.flac")}
    rows = read(write_cuts(tmp_path / "shar" / "cuts.000000.jsonl.gz", item))
    assert [row.values["audio_filepath"] for row in rows] == [str(audio / "0.flac")]


def test_shards_of_urls(finetune: Command, nano: Path, tmp_path: Path, audio: Path, shar: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("cuts.000000.jsonl.gz", "recording.000000.tar", "cuts.000001.jsonl.gz"):
        memory.pipe(f"/{tmp_path.name}/{name}", (shar / name).read_bytes())
    result = run_check_and_prepare(finetune, tmp_path, f"memory://{tmp_path.name}/cuts.00000{{0..0}}.jsonl.gz", nano)
    assert result.check.code == 0 and list(result.clips) == ["a-0-0", "a/1.5-0", "a/1.5-1"]
    assert_clip(result.clips["a/1.5-0"], audio / "1.flac", "first", 0.25, 1.25)
    with pytest.raises(DataError, match=r"recording\.000001\.tar: no such file"):
        read(f"memory://{tmp_path.name}/cuts.000001.jsonl.gz")
