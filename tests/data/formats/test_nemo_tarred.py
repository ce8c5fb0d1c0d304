"""Tarred manifests of NeMo through check and prepare."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from command import Command
from shapes import assert_clip, run_check_and_prepare, write_audio, write_tar

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus
from finetune.data.row import Row

Json = dict[str, Any]


def write(path: Path, *rows: Json) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path: object) -> list[Row]:
    return list(read_corpus(str(path), Path("media")))


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for number in range(4):
        write_audio(tmp_path / "source" / f"{number}.wav", number, 2.0 + number)
    return tmp_path / "source"


@pytest.fixture
def rows() -> list[Json]:
    """Rows of two shards; wav_1.wav has three segments."""
    return [
        {"audio_filepath": "wav_0.wav", "duration": 2.0, "text": "zero", "shard_id": 0},
        {"audio_filepath": "wav_1.wav", "offset": 0.5, "duration": 1.0, "text": "one", "shard_id": 0},
        {"audio_filepath": "wav_1-sub1.wav", "offset": 1.5, "duration": 1.25, "text": "sub one", "shard_id": 0},
        {
            "audio_filepath": "wav_1-sub2.wav",
            "offset": 2.75,
            "duration": 0.25,
            "text": "sub",
            "shard_id": 0,
            "lang": "de",
        },
        {"audio_filepath": "wav_2.wav", "duration": 4.0, "text": "two", "shard_id": 1, "speaker": "ann"},
        {"audio_filepath": "wav_3-sub9.wav", "duration": 5.0, "text": "its own name", "shard_id": 1},
    ]


@pytest.fixture
def folder(tmp_path: Path, audio: Path, rows: list[Json]) -> Path:
    """As NeMo writes it: tars, the manifest of all shards, and one manifest for each shard."""
    folder = tmp_path / "tarred"
    write_tar(folder / "audio_0.tar", {"wav_0.wav": audio / "0.wav", "wav_1.wav": audio / "1.wav"})
    write_tar(folder / "audio_1.tar", {"wav_2.wav": audio / "2.wav", "wav_3-sub9.wav": audio / "3.wav"})
    write(folder / "tarred_audio_manifest.json", *rows)
    for shard in (0, 1):
        shard_rows = (row for row in rows if row["shard_id"] == shard)
        write(folder / "sharded_manifests" / f"manifest_{shard}.json", *shard_rows)
    (folder / "metadata.yaml").write_text("version: 0\n")
    return folder


TEXTS = ["zero", "one", "sub one", "sub", "two", "its own name"]


@pytest.mark.parametrize(
    "source",
    ["", "tarred_audio_manifest.json", "sharded_manifests/manifest__OP_0..1_CL_.json", "sharded_manifests/*.json"],
)
def test_every_way_to_name_it_gives_the_clips(
    finetune: Command, nano: Path, tmp_path: Path, audio: Path, folder: Path, source: str
) -> None:
    result = run_check_and_prepare(finetune, tmp_path, folder / source, nano)
    assert result.check.code == 0 and "6 rows" in result.check.out and not result.dropped, result
    clips = list(result.clips.values())
    assert_clip(clips[0], audio / "0.wav", "zero")
    assert_clip(clips[1], audio / "1.wav", "one", 0.5, 1.5)
    assert_clip(clips[2], audio / "1.wav", "sub one", 1.5, 2.75)
    assert_clip(clips[3], audio / "1.wav", "sub", 2.75, 3.0)
    assert_clip(clips[4], audio / "2.wav", "two")
    assert_clip(clips[5], audio / "3.wav", "its own name")
    assert (clips[3].language, clips[4].speaker) == ("de", "ann")
    assert clips[2].audio_filepath.startswith(f"{folder}/audio_0.tar::wav_1.wav?bytes=")


def test_positions_are_lines_of_the_manifest_that_is_read(folder: Path) -> None:
    whole, sharded = folder / "tarred_audio_manifest.json", folder / "sharded_manifests"
    assert [row.where for row in read(whole)] == [f"{whole}:{line}" for line in range(1, 7)]
    assert read(sharded / "manifest__OP_0..1_CL_.json")[-1].where == f"{sharded / 'manifest_1.json'}:2"


def test_mixed_shards_are_read_shard_by_shard_and_once(folder: Path, rows: list[Json]) -> None:
    order = [4, 0, 5, 1, 3, 2]
    path = write(folder / "tarred_audio_manifest_version_1.json.gz", *(rows[index] for index in order))
    assert [row.where for row in read(path)] == [f"{path}:{line}" for line in (1, 3, 2, 4, 5, 6)]
    assert [row.values["text"] for row in read(folder)] == ["two", "its own name", "zero", "one", "sub", "sub one"]


def test_the_number_in_the_name_of_a_manifest_is_the_shard(folder: Path, rows: list[Json]) -> None:
    plain = [{key: value for key, value in row.items() if key != "shard_id"} for row in rows if row["shard_id"] == 1]
    path = write(folder / "manifest_normalized_1.jsonl", *plain)
    assert [row.values["text"] for row in read(path)] == ["two", "its own name"]


def test_a_member_in_a_folder_of_the_tar_is_found_by_its_name(tmp_path: Path, audio: Path) -> None:
    write_tar(tmp_path / "audio_7.tar", {"./deep/a.wav": audio / "0.wav"})
    rows = read(write(tmp_path / "m.json", {"audio_filepath": "a.wav", "duration": 2.0, "text": "words"}))
    assert "audio_7.tar::deep/a.wav?bytes=" in str(rows[0].values["audio_filepath"])


def test_a_missing_member_is_a_fault_of_its_row(finetune: Command, nano: Path, tmp_path: Path, folder: Path) -> None:
    rows = [
        {"audio_filepath": name, "duration": 2.0, "text": name[:-4], "shard_id": 0}
        for name in ("wav_0.wav", "gone.wav")
    ]
    path = write(folder / "some.json", *rows)
    result = run_check_and_prepare(finetune, tmp_path, path, nano)
    assert [clip.text for clip in result.clips.values()] == ["wav_0"]
    expected = ("missing audio", f"{path}:2", "audio_0.tar has no member 'gone.wav'")
    assert [(row["kind"], row["where"], row["detail"]) for row in result.dropped] == [expected]


def test_errors_name_the_missing_file(folder: Path, rows: list[Json]) -> None:
    with pytest.raises(DataError, match=r"texts of this tar are in the manifest .*tarred_audio_manifest\.json; give"):
        read(folder / "audio__OP_0..1_CL_.tar")
    (folder / "audio_1.tar").rename(folder / "audio_1.tar.gz")
    (folder / "audio_1.tar.gz").write_bytes(gzip.compress((folder / "audio_1.tar.gz").read_bytes()))
    with pytest.raises(DataError, match=r"audio_1\.tar\.gz: compressed with gzip"):
        read(folder)
    (folder / "audio_1.tar.gz").unlink()
    with pytest.raises(DataError, match=r"tarred_audio_manifest\.json: audio_1\.tar is missing in .*tarred; the audio"):
        read(folder)
    without = [{key: value for key, value in row.items() if key != "shard_id"} for row in rows]
    write(folder / "audio_5.tar.unused", {})
    (folder / "audio_5.tar").write_bytes((folder / "audio_0.tar").read_bytes())
    with pytest.raises(DataError, match=r"m\.json:1: `shard_id` is None; write the number of the tar"):
        read(write(folder / "m.json", *without))


def test_two_tars_of_one_number_are_an_error(folder: Path) -> None:
    (folder / "audio_other_0.tar").write_bytes((folder / "audio_0.tar").read_bytes())
    with pytest.raises(DataError, match=r"audio_0\.tar and .*audio_other_0\.tar are both shard 0"):
        read(folder)


def test_a_manifest_of_files_that_exist_is_read_as_before(folder: Path, audio: Path) -> None:
    names = ["source/gone.wav", "source/0.wav"]
    rows = [{"audio_filepath": name, "duration": 2.0, "text": "file", "shard_id": 0} for name in names]
    path = write(folder.parent / "m.json", *rows)
    write_tar(folder.parent / "audio_0.tar", {"0.wav": audio / "1.wav"})
    assert [row.values["audio_filepath"] for row in read(path)] == [str(audio / "gone.wav"), str(audio / "0.wav")]


def test_the_offset_in_the_source_is_not_that_in_a_slice(tmp_path: Path, audio: Path) -> None:
    write_tar(tmp_path / "audio_0.tar", {"a_1_5_2_0.wav": audio / "0.wav"})
    row = {
        "audio_filepath": "a_1_5_2_0.wav",
        "source_audio_offset": 1.5,
        "duration": 2.0,
        "text": "slice",
        "shard_id": 0,
    }
    rows = read(write(tmp_path / "m.json", row))
    assert "offset" not in rows[0].values and rows[0].values["source_audio_offset"] == 1.5
