"""Trees of LibriSpeech and MLS through check and prepare."""

from pathlib import Path

import pytest
from command import Command
from shapes import assert_clip, run_check_and_prepare, write_audio

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus
from finetune.data.row import Row


def read(folder: Path) -> list[Row]:
    return list(read_corpus(str(folder), folder / "media"))


def faults(rows: list[Row]) -> dict[object, tuple[str, str] | None]:
    return {row.values.get("id"): row.fault and (row.fault.kind, row.fault.detail) for row in rows}


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    folder = tmp_path / "LibriSpeech" / "dev-clean"
    for speaker, chapter, count in (("84", "121123", 2), ("174", "50561", 1)):
        for number in range(count):
            name = f"{speaker}-{chapter}-{number:04d}.flac"
            write_audio(folder / speaker / chapter / name, int(speaker) * 100 + number, 1.0 + number)
        lines = [f"{speaker}-{chapter}-{number:04d} WORDS OF NUMBER {number}\n" for number in range(count)]
        (folder / speaker / chapter / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    (folder.parent / "SPEAKERS.TXT").write_text("; speakers\n")
    return folder


def test_librispeech(finetune: Command, nano: Path, tmp_path: Path, librispeech: Path) -> None:
    result = run_check_and_prepare(finetune, tmp_path, librispeech, nano)
    assert result.check.code == 0 and "3 rows" in result.check.out and not result.dropped
    assert list(result.clips) == ["174-50561-0000", "84-121123-0000", "84-121123-0001"]
    for key, clip in result.clips.items():
        speaker, chapter, number = key.split("-")
        assert_clip(clip, librispeech / speaker / chapter / f"{key}.flac", f"WORDS OF NUMBER {int(number)}")
        assert (clip.speaker, clip.extra["chapter"]) == (speaker, chapter)


def test_a_relative_folder_gives_absolute_paths(librispeech: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chapter = librispeech / "84" / "121123"
    (chapter / "84-121123-0001.flac").unlink()
    monkeypatch.chdir(librispeech.parent)
    paths = {row.values["id"]: row.values["audio_filepath"] for row in read(Path("dev-clean"))}
    assert paths["84-121123-0001"] == str(chapter / "84-121123-0001.flac")


def test_missing_parts_of_librispeech_are_faults(librispeech: Path) -> None:
    chapter = librispeech / "84" / "121123"
    transcript = chapter / "84-121123.trans.txt"
    transcript.write_text("\ufeff84-121123-0001 TWO\r\n\r\n84-121123-0002 THREE\r\n84-121123-0003\r\n")
    (librispeech / "174" / "50561" / "174-50561.trans.txt").unlink()
    rows = read(librispeech)
    assert faults(rows) == {
        "174-50561-0000": ("empty transcript", "174-50561.trans.txt is missing"),
        "84-121123-0001": None,
        "84-121123-0002": None,  # the audit reports the missing file
        "84-121123-0003": ("empty transcript", "the line has an id and no words"),
        "84-121123-0000": ("empty transcript", "no line of 84-121123.trans.txt has this id"),
    }
    by_id = {row.values["id"]: row for row in rows}
    assert by_id["84-121123-0002"].where == f"{transcript}:3"
    assert by_id["84-121123-0002"].values["audio_filepath"] == str(chapter / "84-121123-0002.flac")
    assert by_id["84-121123-0000"].where == str(chapter / "84-121123-0000.flac")


def test_a_root_names_its_subsets(librispeech: Path) -> None:
    with pytest.raises(DataError, match="subfolders dev-clean; give one of them, such as .*/dev-clean"):
        read(librispeech.parent)


@pytest.fixture
def mls(tmp_path: Path) -> Path:
    folder = tmp_path / "mls_german" / "dev"
    for number, (key, suffix) in enumerate(
        (("10_200_000001", "flac"), ("7_30_000000", "ogg"), ("10_200_000000", "flac"))
    ):
        speaker, book, _ = key.split("_")
        write_audio(folder / "audio" / speaker / book / f"{key}.{suffix}", number, 1.0 + number)
    (folder / "transcripts.txt").write_text(
        "10_200_000001\teins\n7_30_000000\tzwei Wörter\n10_200_000000\tdrei\n", encoding="utf-8"
    )
    (folder / "segments.txt").write_text("10_200_000001\thttp://x/y.mp3\t1.0\t2.0\n")
    return folder


def test_mls(finetune: Command, nano: Path, tmp_path: Path, mls: Path) -> None:
    result = run_check_and_prepare(finetune, tmp_path, mls, nano)
    assert result.check.code == 0 and "3 rows" in result.check.out and not result.dropped
    expected = {
        "10_200_000001": ("10/200/10_200_000001.flac", "eins", "10"),
        "7_30_000000": ("7/30/7_30_000000.ogg", "zwei Wörter", "7"),
        "10_200_000000": ("10/200/10_200_000000.flac", "drei", "10"),
    }
    assert list(result.clips) == list(expected)
    for key, (path, text, speaker) in expected.items():
        assert_clip(result.clips[key], mls / "audio" / path, text)
        assert (result.clips[key].speaker, result.clips[key].extra["book"]) == (speaker, key.split("_")[1])


def test_missing_parts_of_mls_are_faults(mls: Path) -> None:
    (mls / "transcripts.txt").write_text("10_200_000001\teins\nno id\n7_30_000000\t\n")
    detail = "the line does not start with an id such as 10_20_000001 and a tab"
    rows = read(mls)
    assert faults(rows) == {
        "10_200_000001": None,
        None: ("missing audio", detail),
        "7_30_000000": ("empty transcript", "the line has an id and no words"),
        "10_200_000000": ("empty transcript", "transcripts.txt has no line with this id"),
    }
    assert rows[-1].where == str(mls / "audio/10/200/10_200_000000.flac")


def test_an_incomplete_split_of_mls_names_the_file(mls: Path) -> None:
    (mls / "audio").rename(mls / "sound")
    with pytest.raises(DataError, match=r"dev/audio is missing; a split of MLS"):
        read(mls)
    (mls / "sound").rename(mls / "audio")
    with pytest.raises(DataError, match=r"subfolders dev; give one of them, such as .*/dev"):
        read(mls.parent)
    (mls / "transcripts.txt").unlink()
    with pytest.raises(DataError, match=r"dev/transcripts\.txt is missing; a split of MLS"):
        read(mls)


def test_pairs_beside_another_transcripts_file_are_still_a_folder_of_audio(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 1)
    (tmp_path / "a.txt").write_text("right")
    (tmp_path / "transcripts.txt").write_text("a\twrong\n")
    assert [row.values["text"] for row in read(tmp_path) if row.fault is None][:1] == ["right"]
