"""Data directories of Kaldi through check and prepare."""

from pathlib import Path

import pytest
from command import Command
from shapes import assert_clip, run_check_and_prepare, write_audio

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus
from finetune.data.row import Row


def write(folder: Path, **files: str | bytes) -> Path:
    """Files of a directory; `wav` is wav.scp."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / ("wav.scp" if name == "wav" else name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(folder: Path) -> list[Row]:
    return list(read_corpus(str(folder), folder / "media"))


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Three files with one channel, and a call with two."""
    for number, name in enumerate(("a", "b", "c")):
        write_audio(tmp_path / f"{name}.flac", number, 4.0)
    write_audio(tmp_path / "call.wav", 9, 5.0, channels=2, rate=8000)
    return tmp_path


def test_utterances_without_segments(finetune: Command, nano: Path, audio: Path) -> None:
    folder = write(
        audio / "data" / "train",
        wav=f"\ufeffu2 {audio}/b.flac\nu1\t{audio}/a.flac\nu3  {audio}/c.flac  ",
        text="u1 one  and a half\r\n\r\nu3\tdrei Wörter\r\nu2 two\r\n",
        utt2spk="u1 anna\nu2 anna\nu3 ben\n",
        utt2lang="u3 de\nu1 en\nu2 en\n",
        utt2dur="u1 4.0\nu2 4.0\nu3 4.0\n",
        spk2gender="anna f\nben m\n",
    )
    result = run_check_and_prepare(finetune, audio, folder, nano)
    assert result.check.code == 0 and "3 rows" in result.check.out
    assert list(result.clips) == ["u1", "u3", "u2"] and not result.dropped
    for key, name, text in (("u1", "a", "one and a half"), ("u2", "b", "two"), ("u3", "c", "drei Wörter")):
        assert_clip(result.clips[key], audio / f"{name}.flac", text)
    clips = result.clips.values()
    assert [(c.speaker, c.language, c.extra["gender"]) for c in clips] == [
        ("anna", "en", "f"),
        ("ben", "de", "m"),
        ("anna", "en", "f"),
    ]


def test_segments_and_sides_of_a_call(finetune: Command, nano: Path, audio: Path) -> None:
    folder = write(
        audio / "train",
        wav=f"call-A {audio}/call.wav\ncall-B {audio}/call.wav\nmono-B {audio}/a.flac\nunused {audio}/b.flac\n",
        text="x hello there\ny good morning\nz from the side\nend until the end\nfifth a channel here\n",
        segments=("z mono-B 0.5 2\nx call-A 0.25 1.75\ny\tcall-B 1\t3.5\nend call-A 3.5 -1\nfifth call-A 1.0 2.5 1\n"),
        reco2file_and_channel="call-A call A\ncall-B call B\nmono-B mono B\n",
        utt2spk="x x\ny y\nz z\nend end\nfifth fifth\n",
    )
    result = run_check_and_prepare(finetune, audio, folder, nano)
    assert result.check.code == 0, result.check
    assert_clip(result.clips["x"], audio / "call.wav", "hello there", 0.25, 1.75, channel=0)
    assert_clip(result.clips["y"], audio / "call.wav", "good morning", 1.0, 3.5, channel=1)
    assert_clip(result.clips["z"], audio / "a.flac", "from the side", 0.5, 2.0)
    assert_clip(result.clips["end"], audio / "call.wav", "until the end", 3.5, 5.0, channel=0)
    assert_clip(result.clips["fifth"], audio / "call.wav", "a channel here", 1.0, 2.5, channel=1)
    assert result.clips["z"].channel is None and result.clips["y"].extra["recording"] == "call"
    assert {clip.speaker for clip in result.clips.values()} == {""}, "utt2spk of ids names no speakers"


@pytest.mark.parametrize(("lines", "channels"), [("r 1|s 2", (0, 1)), ("r 0|s 1", (0, 1)), ("r b|s a", (1, 0))])
def test_numbers_of_channels_start_at_1_unless_one_is_0(audio: Path, lines: str, channels: tuple[int, int]) -> None:
    folder = write(
        audio / "train",
        wav=f"r {audio}/call.wav\ns {audio}/call.wav",
        text="r one\ns two",
        reco2file_and_channel="\n".join(f"{line.split()[0]} call {line.split()[1]}" for line in lines.split("|")),
    )
    assert tuple(row.values["channel"] for row in read(folder)) == channels


def test_each_fault_names_its_line(finetune: Command, nano: Path, audio: Path) -> None:
    wav = [f"ok {audio}/a.flac", "pipe flac -c -d -s /x/y.flac |", f"ark {audio}/wav.ark:1042", "none"]
    wav += [f"twice {audio}/a.flac", f"twice {audio}/b.flac", f"same {audio}/c.flac", f"same {audio}/c.flac"]
    wav += [f"silent {audio}/b.flac", f"extra {audio}/a.flac", "gone /not/there.wav"]
    text = ["ok words", "pipe p", "ark a", "none n", "twice t", "same s", "silent", "gone g", "ghost g", "ok again"]
    folder = write(audio / "train", wav="\n".join(wav), text="\n".join(text))
    result = run_check_and_prepare(finetune, audio, folder, nano)
    assert list(result.clips) == ["ok", "same"]
    assert [(row["id"], row["kind"], row["where"]) for row in result.dropped] == [
        ("pipe", "unreadable audio", f"{folder}/text:2"),
        ("ark", "unreadable audio", f"{folder}/text:3"),
        ("none", "missing audio", f"{folder}/text:4"),
        ("twice", "duplicate id", f"{folder}/text:5"),
        ("silent", "empty transcript", f"{folder}/text:7"),
        ("gone", "missing audio", f"{folder}/text:8"),
        ("ghost", "missing audio", f"{folder}/text:9"),
        ("ok", "duplicate id", f"{folder}/text:10"),
        ("extra", "empty transcript", f"{folder}/wav.scp:10"),
    ]
    details = [row["detail"] for row in result.dropped]
    assert "wav.scp:2: 'flac -c -d -s /x/y.flac |' is a command" in details[0] and "write the path" in details[0]
    assert details[1].startswith("wav.scp:3: ") and "is a part of a Kaldi archive; extract it" in details[1]
    assert details[4].startswith("the line has an id and no words; fix it")
    assert "wav.scp:5 and wav.scp:6 differ" in details[3] and "wav.scp has no line with the id 'ghost'" in details[6]


def test_faults_of_segments(audio: Path) -> None:
    lines = ["a r 1 0.5", "b r x 2", "c r 1", "d other 0 1", "e r 0 1", "e r 0 2", "g r -1 2", "unused r 0 1"]
    folder = write(
        audio / "train",
        wav=f"r {audio}/a.flac",
        text="\n".join(f"{key} words" for key in "abcdefg"),
        segments="\n".join(lines),
    )
    rows = {str(row.values["id"]): row.fault for row in read(folder)}
    assert {key: fault and fault.kind for key, fault in rows.items()} == {
        "a": "contradictory segment",
        "b": "invalid offset",
        "c": "invalid offset",
        "d": "missing audio",
        "e": "duplicate id",
        "f": "missing audio",
        "g": "invalid offset",
        "unused": "empty transcript",
    }
    assert rows["f"] is not None and rows["f"].detail == "segments has no line with the id 'f'"


def test_the_stated_duration_of_a_whole_file_is_compared(finetune: Command, nano: Path, audio: Path) -> None:
    files = {"wav": f"a {audio}/a.flac\nb {audio}/b.flac", "text": "a one\nb two", "utt2dur": "a 4.0\nb 7.5"}
    result = run_check_and_prepare(finetune, audio, write(audio / "train", **files), nano)
    assert list(result.clips) == ["a"]
    assert [(row["id"], row["kind"]) for row in result.dropped] == [("b", "wrong duration")]


def test_a_directory_of_commands_is_one_error(audio: Path) -> None:
    folder = write(audio / "train", wav="u sph2pipe -f wav -p -c 1 /x.sph |", text="u words")
    with pytest.raises(DataError, match=r"text:1: wav\.scp:1: 'sph2pipe .*\|' is a command: commands are not run"):
        read(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav": "u /a.wav"}, r"train/text is missing"),
        ({"text": "u words", "utt2spk": "u s"}, r"train/wav\.scp is missing"),
        ({"feats.scp": "u x.ark:1", "utt2spk": "u s"}, r"train/wav\.scp is missing"),
        ({"wav": "u /a.wav", "text": "u words\nv \xe9\n".encode("latin-1")}, r"train/text:2: not UTF-8"),
        ({"wav": "u /a.wav\0", "text": "u words"}, r"wav\.scp:1: a binary file"),
        ({"wav": "", "text": "\n"}, r"the corpus has no rows"),
    ],
)
def test_incomplete_directories_name_the_file(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / "train", **files))


def test_a_folder_of_directories_names_them_and_wav_scp_names_its_folder(audio: Path) -> None:
    for split in ("train", "dev"):
        write(audio / "data" / split, wav=f"{split} {audio}/a.flac", text=f"{split} words")
    with pytest.raises(DataError, match=r"subfolders dev, train; give one, such as .*/data/dev"):
        read(audio / "data")
    assert [row.values["id"] for row in read(audio / "data" / "dev" / "wav.scp")] == ["dev"]


def test_relative_paths_start_at_the_folder_of_the_recipe(audio: Path) -> None:
    folder = write(audio / "data" / "train", wav="u b.flac\nv data/train/v.flac", text="u words\nv more")
    write_audio(folder / "v.flac", 77)
    assert [row.values["audio_filepath"] for row in read(folder)] == [f"{audio}/b.flac", f"{folder}/v.flac"]


def test_a_metadata_table_is_still_the_corpus(audio: Path) -> None:
    folder = write(audio / "train", wav="u x", text="u wrong")
    write(folder, **{"metadata.csv": f"file_name,text\n{audio}/a.flac,right\n"})
    assert [row.values["text"] for row in read(folder)] == ["right"]


@pytest.mark.parametrize(("end", "warned"), [("3.0", True), ("3.2", False)])
def test_segments_of_whole_seconds_are_a_warning(
    audio: Path, end: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    text, segments = "x one\ny two\nz three\n", f"x r 0 1\ny r 1 2\nz r 2 {end}\n"
    read(write(audio / "data", wav=f"r {audio}/a.flac\n", text=text, segments=segments))
    assert caplog.text.count("the times of all 3 segments are whole seconds") == warned
