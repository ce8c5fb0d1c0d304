"""WebDataset shards through check and prepare."""

import json
from pathlib import Path

import fsspec
import pytest
from command import Command
from shapes import assert_clip, run_check_and_prepare, write_audio, write_tar

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus
from finetune.data.row import Row


def read(path: object) -> list[Row]:
    return list(read_corpus(str(path), Path("media")))


def as_json(**values: object) -> bytes:
    return json.dumps(values).encode()


def found(row: Row) -> tuple[str, object, str]:
    """Member, text and kind of fault."""
    return row.where.rpartition(": ")[2], row.values["text"], row.fault.kind if row.fault else ""


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for number in range(4):
        write_audio(tmp_path / "source" / f"{number}.flac", number, 1.0 + number)
    return tmp_path / "source"


@pytest.fixture
def shards(tmp_path: Path, audio: Path) -> Path:
    """Two shards; the keys of both are the same, and the files of a key need not be neighbours."""
    folder = tmp_path / "shards"
    first = {
        "./000.flac": audio / "0.flac",
        "a/001.json": as_json(sentence="eins", lang="de", speaker="ann", snr=4),
        "000.txt": "\ufeffzero\r\n".encode(),
        "a/001.flac": audio / "1.flac",
        "a/001.cls": b"3",
    }
    second = {
        "000.FLAC": audio / "2.flac",
        "000.text": b"two",
        "000.npy": b"\x93NUMPY",
        "000.json": as_json(duration=3.0),
    }
    third = {"001.flac": audio / "3.flac", "001.json": as_json(text="three", id="mine", audio_filepath="/old/x.wav")}
    write_tar(folder / "shard-000000.tar", first)
    write_tar(
        folder / "shard-000001.tar", {**second, **third, "README": b"notes", "._001.flac": b"x", "dir/.txt": b"x"}
    )
    (folder / "sizes.json").write_text("{}")
    return folder


@pytest.mark.parametrize("source", ["", "shard-{000000..000001}.tar", "*.tar"])
def test_every_way_to_name_it_gives_the_clips(
    finetune: Command, nano: Path, tmp_path: Path, audio: Path, shards: Path, source: str
) -> None:
    result = run_check_and_prepare(finetune, tmp_path, shards / source, nano)
    assert result.check.code == 0 and "4 rows" in result.check.out and not result.dropped, result
    assert list(result.clips) == ["shard-000000/000", "shard-000000/a/001", "shard-000001/000", "mine"]
    clips = list(result.clips.values())
    for number, text in enumerate(("zero", "eins", "two", "three")):
        assert_clip(clips[number], audio / f"{number}.flac", text)
    assert (clips[1].language, clips[1].speaker, clips[1].extra) == ("de", "ann", {"snr": 4, "cls": "3"})
    assert clips[3].extra == {"audio_filepath_original": "/old/x.wav"}
    assert clips[1].audio_filepath.startswith(f"{shards}/shard-000000.tar::a/001.flac?bytes=")


def test_a_shard_alone_has_positions_of_members(shards: Path) -> None:
    path = shards / "shard-000001.tar"
    assert [row.where for row in read(path)] == [f"{path}: 000.FLAC", f"{path}: 001.flac"]


def test_incomplete_samples_are_faults(finetune: Command, nano: Path, tmp_path: Path, audio: Path) -> None:
    clip = audio / "0.flac"
    members: dict[str, bytes | Path] = {
        "good.flac": clip,
        "good.txt": b"words",
        "silent.flac": clip,
        "mute.txt": b"no audio",
        "empty.flac": b"",
        "empty.txt": b"words",
        "twice.flac": clip,
        "twice.wav": clip,
        "twice.txt": b"words",
        "texts.flac": clip,
        "texts.txt": b"one",
        "texts.lab": b"another",
        "same.flac": audio / "1.flac",
        "same.txt": b"one",
        "same.lab": b"one ",
        "latin.flac": clip,
        "latin.txt": "\u00e4".encode("latin-1"),
        "list.flac": clip,
        "list.json": b"[1]",
        "broken.flac": clip,
        "broken.json": b"{",
        "long.flac": clip,
        "long.txt": b"a" * (2 << 20),
        "rich.flac": clip,
        "rich.txt": rb"{\rtf1\ansi one}",
        "blank.flac": clip,
        "blank.json": as_json(text=None),
    }
    path = write_tar(tmp_path / "x.tar", members)
    result = run_check_and_prepare(finetune, tmp_path, path, nano)
    assert list(result.clips) == ["x/good", "x/same"]
    assert [(row["where"].rpartition(": ")[2], row["kind"]) for row in result.dropped] == [
        ("silent.flac", "empty transcript"),
        ("mute.txt", "missing audio"),
        ("empty.flac", "missing audio"),
        ("twice.flac", "ambiguous sample"),
        ("texts.flac", "ambiguous sample"),
        ("latin.flac", "invalid Unicode in transcript"),
        ("list.flac", "empty transcript"),
        ("broken.flac", "empty transcript"),
        ("long.flac", "transcript too long"),
        ("rich.flac", "unreadable annotation"),
        ("blank.flac", "empty transcript"),
    ]
    details = [row["detail"] for row in result.dropped]
    assert details[0] == "no text in the files silent.flac" and details[1] == "the key mute has no audio file"
    assert details[3] == "the audio files twice.flac and twice.wav have the same key"
    assert details[8] == f"long.txt has {2 << 20} bytes"
    assert details[7] == "broken.json is not a JSON object of at most 16 MB"


def test_a_text_file_counts_more_than_the_text_in_the_json_file(tmp_path: Path, audio: Path) -> None:
    members = {"0.flac": audio / "0.flac", "0.en.txt": b"only one", "0.json": as_json(text="json", transcript="x")}
    members |= {"1.flac": audio / "1.flac", "1.json": as_json(transcript="in json")}
    members |= {"2.flac": audio / "1.flac", "2.txt": b"same", "2.json": as_json(text="same")}
    rows = read(write_tar(tmp_path / "x.tar", members))
    assert [row.values["text"] for row in rows] == ["only one", "in json", "same"]
    assert rows[0].values["json_text"] == "json" and "json_text" not in rows[2].values


def test_times_in_the_json_file_are_those_of_a_segment(tmp_path: Path, audio: Path) -> None:
    members = {"0.flac": audio / "2.flac", "0.json": as_json(text="part", start=0.5, end=1.5)}
    row = read(write_tar(tmp_path / "x.tar", members))[0]
    assert (row.values["offset"], row.values["duration"]) == (0.5, 1.0)


def test_an_empty_text_is_kept_as_one(tmp_path: Path, audio: Path) -> None:
    row = read(write_tar(tmp_path / "x.tar", {"0.flac": audio / "0.flac", "0.txt": b"\n"}))[0]
    assert row.values["text"] == "" and row.fault is None


def test_folders_of_shards_are_named(shards: Path) -> None:
    (shards.parent / "data").mkdir()
    shards.rename(shards.parent / "data" / "train")
    with pytest.raises(DataError, match=r"in its subfolders train; give one of them, such as .*/train, or a pattern"):
        read(shards.parent / "data")


def test_other_archives_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"notes": b"x"})
    with pytest.raises(DataError, match="x.tar: the corpus has no rows"):
        read(tmp_path / "x.tar")
    for name in ("x.tar.gz", "x.tgz", "x.zip"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
        with pytest.raises(DataError, match=r"compressed archive; its clips cannot be read in place: unpack it"):
            read(tmp_path / name)


def test_a_folder_of_audio_beside_an_archive_is_read_as_before(audio: Path) -> None:
    (audio / "0.txt").write_text("right")
    write_tar(audio / "backup.tar", {"0.flac": audio / "1.flac", "0.txt": b"wrong"})
    assert "right" in [row.values["text"] for row in read(audio)]
    (audio / "0.txt").rename(audio / "0.srt")
    (audio / "0.srt").write_text("1\n00:00:00,000 --> 00:00:00,900\na cue\n")
    assert "a cue" in [row.values["text"] for row in read(audio)]


def test_members_with_strange_names_stay_members(tmp_path: Path, audio: Path) -> None:
    names = ["../../etc/evil", "/abs/evil", "a:b?c=d/x", "ünï code"]
    members = {
        f"{name}.{suffix}": content
        for name in names
        for suffix, content in (("flac", audio / "0.flac"), ("txt", b"words"))
    }
    rows = read(write_tar(tmp_path / "x.tar", members))
    assert len(rows) == len(names)
    assert all(str(row.values["audio_filepath"]).startswith(f"{tmp_path}/x.tar::") for row in rows)


def test_shards_of_urls(finetune: Command, nano: Path, tmp_path: Path, audio: Path, shards: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("shard-000000.tar", "shard-000001.tar"):
        memory.pipe(f"/{tmp_path.name}/{name}", (shards / name).read_bytes())
    url = f"memory://{tmp_path.name}/shard-{{000000..000001}}.tar"
    result = run_check_and_prepare(finetune, tmp_path, url, nano)
    assert result.check.code == 0 and "not opened" in result.check.out and not result.dropped, result
    for number, clip in enumerate(result.clips.values()):
        assert_clip(clip, audio / f"{number}.flac", ("zero", "eins", "two", "three")[number])
        assert clip.audio_filepath.startswith(f"memory://{tmp_path.name}/shard-00000{number // 2}.tar::")
    with pytest.raises(DataError, match=r"x\.jsonl: of URLs, only tar shards \(\.tar\), Parquet files and cuts of"):
        read("https://localhost/x.jsonl")


def test_shards_of_several_splits_in_one_folder_are_an_error(tmp_path: Path, audio: Path) -> None:
    for number, name in enumerate(("train-0", "train-1", "test-0")):
        write_tar(tmp_path / "shards" / f"{name}.tar", {"0.flac": audio / f"{number}.flac", "0.txt": b"one"})
    with pytest.raises(
        DataError, match=r"the shards are of the splits test, train; give one of them, .*\*train\*.tar'"
    ):
        read(tmp_path / "shards")
    assert len(read(tmp_path / "shards" / "*train*.tar")) == 2
    (tmp_path / "shards" / "test-0.tar").rename(tmp_path / "shards" / "more-0.tar")
    assert len(read(tmp_path / "shards")) == 3
