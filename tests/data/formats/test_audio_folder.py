"""Folders of audio: text files at any depth, metadata tables in the folder or below it, one split at a time."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus
from finetune.data.row import Row


def write_audio(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(1600, 0.1, np.float32), 16_000)


def read(source: Path) -> list[Row]:
    return list(read_corpus(str(source), source / "media"))


def found(rows: list[Row], folder: Path) -> dict[str, object]:
    """The text of each audio file, by its path in the folder."""
    return {str(Path(str(row.values["audio_filepath"])).relative_to(folder)): row.values["text"] for row in rows}


def test_text_files_at_any_depth_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/2", "b/c/1", "a", "c", "b-3"):
        write_audio(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(name)
    assert [row.values["text"] for row in read(tmp_path)] == ["a", "b/2", "b/c/1", "b-3", "c"]


def test_folders_of_speakers_with_a_table_in_each_are_one_corpus(tmp_path: Path) -> None:
    for speaker in ("anna", "bert"):
        write_audio(tmp_path / speaker / "clips" / "1.wav")
        (tmp_path / speaker / "metadata.csv").write_text(f"file_name,text\n1.wav,{speaker}\n")
    assert found(read(tmp_path), tmp_path) == {"anna/clips/1.wav": "anna", "bert/clips/1.wav": "bert"}


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet"])
def test_a_table_names_files_in_folders_below(tmp_path: Path, name: str) -> None:
    write_audio(tmp_path / "x" / "y" / "1.wav")
    write_audio(tmp_path / "2.wav")
    rows = [("x/y/1.wav", "one"), ("2.wav", "two")]
    if name.endswith("parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"file_name": [row[0] for row in rows], "transcription": [row[1] for row in rows]})
        pq.write_table(table, tmp_path / name)
    elif name.endswith("jsonl"):
        (tmp_path / name).write_text("".join(f'{{"file_name": "{a}", "transcription": "{b}"}}\n' for a, b in rows))
    else:
        sign = "\t" if name.endswith("tsv") else ","
        lines = [("file_name", "transcription"), *rows]
        (tmp_path / name).write_text("".join(f"{a}{sign}{b}\n" for a, b in lines))
    assert found(read(tmp_path), tmp_path) == {"x/y/1.wav": "one", "2.wav": "two"}


@pytest.mark.parametrize("level", ["train", "data/train"])
def test_one_split_below_the_folder_is_read(tmp_path: Path, level: str) -> None:
    write_audio(tmp_path / level / "1.wav")
    (tmp_path / level / "metadata.csv").write_text("file_name,text\n1.wav,one\n")
    assert found(read(tmp_path), tmp_path) == {f"{level}/1.wav": "one"} == found(read(tmp_path / level), tmp_path)


def test_a_table_in_one_of_several_splits_is_not_taken_for_all(tmp_path: Path) -> None:
    write_audio(tmp_path / "train" / "1.wav")
    write_audio(tmp_path / "test" / "2.wav")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\n1.wav,one\n")
    with pytest.raises(DataError, match="subfolders test, train; give one of them"):
        read(tmp_path)


def test_a_second_table_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_audio(tmp_path / "1.wav")
    for suffix, text in (("csv", "file_name,text\n1.wav,one\n"), ("jsonl", '{"file_name": "1.wav", "text": "two"}')):
        (tmp_path / f"metadata.{suffix}").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert found(read(tmp_path), tmp_path) == {"1.wav": "one"}
    assert "metadata.csv is read; metadata.jsonl is not" in caplog.text


def test_a_transcript_of_timit_has_no_numbers_of_samples(tmp_path: Path) -> None:
    for name in ("SA1", "SA2"):
        soundfile.write(tmp_path / f"{name}.WAV", np.full(1600, 0.1, np.float32), 16_000, format="WAV")
        (tmp_path / f"{name}.TXT").write_text("0 46797 She had your dark suit.\n")
    (tmp_path / "SA1.PHN").write_text("0 3050 h#\n")
    texts = found(read(tmp_path), tmp_path)
    assert texts == {"SA1.WAV": "She had your dark suit.", "SA2.WAV": "0 46797 She had your dark suit.\n"}


def test_a_linked_folder_is_not_followed_and_a_linked_file_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "corpus"
    write_audio(tmp_path / "elsewhere" / "1.wav")
    (tmp_path / "elsewhere" / "1.txt").write_text("one")
    folder.mkdir()
    for name in ("1.wav", "1.txt"):
        (folder / name).symlink_to(tmp_path / "elsewhere" / name)
    (folder / "loop").symlink_to(folder)
    assert found(read(folder), folder) == {"1.wav": "one"}
    assert f"{folder}: 1 linked folder is not followed, such as {folder / 'loop'}; give each" in caplog.text


def test_of_two_audio_files_of_one_name_the_preferred_one_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mp3", "a.wav", "b.mp3", "c.FLAC", "c.ogg"):
        write_audio(tmp_path / name)
        (tmp_path / name).with_suffix(".txt").write_text(name[0])
    with caplog.at_level("INFO"):
        assert found(read(tmp_path), tmp_path) == {"a.wav": "a", "b.mp3": "b", "c.FLAC": "c"}
    assert "audio files are not read, because another one has the same name (.wav and .mp3): 2" in caplog.text


def test_the_hidden_files_of_macos_are_not_read(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("one")
    for name in ("._a.wav", "._a.txt", "._a.srt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert found(read(tmp_path), tmp_path) == {"a.wav": "one"}


@pytest.mark.parametrize("content", [b"caf\xe9", b"a\0b", rb"{\rtf1\ansi a}", b"\xef\xbb\xbf<HTML><p>a", b"%PDF-1.4"])
def test_one_damaged_text_file_is_a_fault_of_its_row(tmp_path: Path, content: bytes) -> None:
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_bytes(content if name == "a" else b"two")
    bad, good = read(tmp_path)
    assert bad.fault is not None and bad.fault.kind == "unreadable annotation" and bad.fault.detail.startswith("a.txt")
    assert good.fault is None and good.values["text"] == "two"


def test_a_folder_of_linked_folders_names_one(tmp_path: Path) -> None:
    write_audio(tmp_path / "elsewhere" / "1.wav")
    (tmp_path / "elsewhere" / "1.txt").write_text("one")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="no audio files in this folder .1 linked folder is not followed, such as .*a;"):
        read(tmp_path / "corpus")


COMMON_VOICE = "client_id\tpath\tsentence_id\tsentence\tup_votes\tage\tgender\taccents\tvariant\tlocale\tsegment\n"


@pytest.fixture
def common_voice(tmp_path: Path) -> Path:
    for name in ("train", "dev", "test"):
        write_audio(tmp_path / "clips" / f"{name}.mp3.wav")
        row = f'c1\t{name}.mp3.wav\ts1\t"{name}\t2\ttwenties\tfemale_feminine\tUnited States English\t\ten\t\n'
        (tmp_path / f"{name}.tsv").write_text(COMMON_VOICE + row)
    return tmp_path


def test_a_split_of_common_voice(common_voice: Path) -> None:
    (row,) = read_corpus(str(common_voice / "train.tsv"), common_voice / "media")
    assert row.values == {
        "audio_filepath": str(common_voice / "clips" / "train.mp3.wav"),
        "text": '"train',
        "speaker": "c1",
        "language": "en",
        "accent": "United States English",
        "sentence_id": "s1",
        "up_votes": "2",
        "age": "twenties",
        "gender": "female_feminine",
        "variant": "",
        "segment": "",
    }


def test_the_folder_of_common_voice_names_its_splits(common_voice: Path) -> None:
    with pytest.raises(DataError, match=rf"tables dev.tsv, test.tsv, train.tsv; give one .*{common_voice}/dev.tsv"):
        read(common_voice)


def test_audio_by_its_id_as_in_voxpopuli(tmp_path: Path) -> None:
    write_audio(tmp_path / "2009" / "20090112-0900-x_1.wav")
    write_audio(tmp_path / "2010" / "20100112-0900-x_2.wav")
    header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\n"
    rows = "20090112-0900-x_1\tOne.\tone\t7\ttrain\tmale\n20100112-0900-x_2\tTwo.\ttwo\t8\ttrain\tfemale\n"
    (tmp_path / "asr_train.tsv").write_text(header + rows)
    rows_read = list(read_corpus(str(tmp_path / "asr_train.tsv"), tmp_path / "media"))
    assert found(rows_read, tmp_path) == {"2009/20090112-0900-x_1.wav": "one", "2010/20100112-0900-x_2.wav": "two"}
    assert rows_read[0].values["id"] == "20090112-0900-x_1" and rows_read[0].values["raw_text"] == "One."


def test_other_suffixes_of_transcripts(tmp_path: Path) -> None:
    files = {
        "a.txt": "a",
        "a.lab": "no",
        "b.lab": "b",
        "c.normalized.txt": "c",
        "c.original.txt": "C.",
        "d.lab": "0 5 sil\n",
    }
    for name, text in files.items():
        write_audio(tmp_path / f"{name[0]}.wav")
        (tmp_path / name).write_text(text)
    (tmp_path / "gone.normalized.txt").write_text("gone")
    rows = read(tmp_path)
    assert [row.values["text"] for row in rows] == ["a", "b", "c", "0 5 sil\n", None]
    assert [row.fault.kind if row.fault else "" for row in rows] == ["", "", "", "times in transcript", ""]
    assert str(rows[-1].values["audio_filepath"]) == str(tmp_path / "gone.wav")


def test_a_column_with_audio_counts_more_than_the_id(tmp_path: Path) -> None:
    write_audio(tmp_path / "x" / "1.wav")
    write_audio(tmp_path / "2.wav")
    (tmp_path / "m.csv").write_text("id,path,text\n1,2.wav,two\n")
    assert found(list(read_corpus(str(tmp_path / "m.csv"), tmp_path)), tmp_path) == {"2.wav": "two"}


@pytest.mark.parametrize("name", ["b.wav", "train.jsonl"])
def test_a_folder_with_a_corpus_of_its_own_and_one_below_is_an_error(tmp_path: Path, name: str) -> None:
    write_audio(tmp_path / "more" / "1.wav")
    (tmp_path / "more" / "metadata.csv").write_text("file_name,text\n1.wav,one\n")
    assert found(read(tmp_path), tmp_path) == {"more/1.wav": "one"}
    (tmp_path / name).touch()
    with pytest.raises(
        DataError, match=rf"it has {name}, and its folders more have a table too; give .*{tmp_path}/more"
    ):
        read(tmp_path)


def test_timit_in_lower_case_and_with_copies_of_its_audio(tmp_path: Path) -> None:
    for name in ("sa1.wav", "SA2.WAV", "SA2.WAV.wav"):
        soundfile.write(tmp_path / name, np.full(1600, 0.1, np.float32), 16_000, format="WAV")
    for name in ("sa1.txt", "SA2.TXT"):
        (tmp_path / name).write_text("0 46797 She had your dark suit.\n")
    for name in ("sa1.phn", "SA2.PHN"):
        (tmp_path / name).write_text("0 3050 h#\n")
    texts = found(read(tmp_path), tmp_path)
    assert texts == {"SA2.WAV": "She had your dark suit.", "sa1.wav": "She had your dark suit."}


def test_a_table_of_segments_in_a_text_file_is_a_fault(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_audio(tmp_path / f"{name}.wav")
    rows = ("speech\t\t00:00:00.500\t00:00:02.500\thello", "speech\t\t00:00:03.500\t00:00:04.500\tbye")
    (tmp_path / "c.txt").write_text("\n".join(rows))
    (tmp_path / "a.txt").write_text("Line\tSpkr\tStTime\tContent\tEnTime\n1\tDCA_se1\t0.5\tI was there\t2.1\n")
    (tmp_path / "b.txt").write_text("He said:\tone\ttwo\nand\tthree\tfour\n")
    faults = {Path(row.where).name: row.fault.detail if row.fault else "" for row in read(tmp_path)}
    assert faults["a.txt"] == "lines such as 'Line\\tSpkr\\tStTime\\tContent\\tEnTime' are not spoken"
    assert faults["b.txt"] == ""
    assert faults["c.txt"].startswith("lines such as 'speech")


@pytest.mark.parametrize(
    "lines",
    [
        "Speaker 1:    00:00    hello there\nSpeaker 2:    00:03    good morning",  # Rev
        "Speaker1 [00:00:01]  hello there\nSpeaker2 [00:00:03]  good morning",  # Sonix
        "A talk\n\n**Ann:** [00:00:01] hello there\n\n**Bob:** [00:00:03] good morning",  # Descript
        "00;00;00;12 - 00;00;03;03\nSpeaker 1\nhello there\n\n00;00;03;12 - 00;00;06;03\nSpeaker 2\nhi",  # Premiere
        "Ann (00:00:00 - 00:00:03):\nhello there\nBob (00:00:03 - 00:00:05):\ngood morning",  # Verbit
        "[00:00:00.40] - Speaker 1\nhello there\n\n[00:00:03.68] - Speaker 2\ngood morning",  # Happy Scribe
        "Speaker 1 | 00:00\nhello there\n\nSpeaker 2 | 00:03\ngood morning",  # Amberscript
        "B1: hello there #00:00:03-2#\nI: good morning #00:00:06-7#",  # f4
    ],
)
def test_speakers_and_times_before_the_words_of_a_line_are_a_fault(tmp_path: Path, lines: str) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text(lines)
    (row,) = read(tmp_path)
    assert row.fault and row.fault.kind == "times in transcript"


def test_names_of_speakers_before_the_lines_of_a_text_file_are_no_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = {
        "a": "Ann: hello there\nBob: good morning\nAnn: how are you\nBob: fine",
        "b": "meet at: 10:15 or\nat 11:30",
    }
    for name, text in texts.items():
        write_audio(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(text)
    with caplog.at_level(logging.INFO):
        rows = found(read(tmp_path), tmp_path)
    assert rows == {"a.wav": "hello there\ngood morning\nhow are you\nfine", "b.wav": texts["b"]}
    assert "names before a colon are the speaker, and not a part of the text: 4" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Unknown Speaker\nhello there\n\nSpeaker 2\nhi\n", "hello there\nhi"),  # Otter without times
        ("Ann Mc Day\n\nhello\n\nBob\n\nhi\n\nAnn Mc Day\n\nbye\n\nBob\n\nbye now", "hello\nhi\nbye\nbye now"),
        ("Q. did you see it\nA. yes\nI did\nQ. when", "did you see it\nyes\nI did\nwhen"),
        ("1   Q.  did you\n2   see it\n3\n4   A.  yes\n1   and so", "did you\nsee it\nyes\nand so"),  # two pages
        ("one\ntwo\nOne\nTwo", ""),
        ("1\n2\n3", ""),
        ("1 two\n3 four\n4 five", ""),
        ("Row Row\nyour boat\nRow Row\ngently\nRow Row\nmerrily\nRow Row\nlife", ""),
        ("A. Smith\nand others", ""),
    ],
)
def test_numbers_of_lines_and_names_in_lines_of_their_own_are_no_words(tmp_path: Path, text: str, words: str) -> None:
    write_audio(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text(text)
    assert found(read(tmp_path), tmp_path) == {"a.wav": words or text}


def test_the_text_of_lrs_is_read_without_its_confidence_and_words(tmp_path: Path) -> None:
    for name, more in (("a", ""), ("b", "\nWORD START END ASDSCORE\nHELLO 0.1 0.4 5.7\n")):
        write_audio(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(f"Text:  HELLO THERE\nConf:  3\n{more}")
    assert found(read(tmp_path), tmp_path) == {"a.wav": "HELLO THERE", "b.wav": "HELLO THERE"}
