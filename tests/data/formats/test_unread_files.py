"""Folders whose transcripts are in files that are not read: the message names the file and what to do."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".wav":
            soundfile.write(path, np.full(1600, 0.1, np.float32), 16_000)
        else:
            path.write_text("x")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["talk.wav", "talk.ass"], "talk.ass is not read: export it as SRT or WebVTT (.srt, .vtt)"),
        (["talk.wav", "talk.sbv", "README.md"], "talk.sbv is not read: export it as SRT or WebVTT (.srt, .vtt)"),
        (["talk.wav", "talk.json"], "talk.json is not read: export it as SRT or WebVTT (.srt, .vtt)"),
        (["talk.wav", "talk.docx"], "talk.docx is not read: save it as UTF-8 text (.txt)"),
        (["talk.wav", "texts.xlsx"], "If texts.xlsx has the transcripts: save it as CSV UTF-8 (.csv)"),
        (["wav/p1/1.wav", "txt/p1/1.txt"], "txt/p1/1.txt has the name of an audio file, but lies in another folder"),
        (["wav/1.wav", "speakers.txt", "transcript/all.txt"], "If transcript/all.txt has the transcripts: write its"),
        (["de/clips/1.wav", "de/durations.tsv", "de/train.tsv"], "If the table de/train.tsv has the transcripts, give"),
    ],
)
def test_the_file_is_named(tmp_path: Path, names: list[str], message: str) -> None:
    write(tmp_path, *names)
    with pytest.raises(DataError, match="none has a transcript") as caught:
        read_corpus(str(tmp_path), tmp_path)
    assert message in str(caught.value)


def test_other_files_are_not_named(tmp_path: Path) -> None:
    write(tmp_path, "1.wav", "README.md", "LICENSE.txt", "1.png")
    with pytest.raises(DataError, match="with the columns file_name and text$"):
        read_corpus(str(tmp_path), tmp_path)


def test_of_several_tables_one_of_a_split_is_proposed(tmp_path: Path) -> None:
    write(tmp_path, "clips/1.wav", "clip_durations.tsv", "train.tsv", "validated.tsv")
    with pytest.raises(DataError, match=r"clip_durations.tsv, train.tsv, validated.tsv; .* such as \S+/train.tsv$"):
        read_corpus(str(tmp_path), tmp_path)


def test_audio_with_another_file_in_a_folder_with_transcripts_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "1.wav", "1.txt", "2.wav", "2.ass")
    with caplog.at_level("INFO"):
        assert [row.values["text"] for row in read_corpus(str(tmp_path), tmp_path)] == ["x", None]
    assert (
        "audio files have only a .ass file, which is not read (export it as SRT or WebVTT (.srt, .vtt)): 1"
        in caplog.text
    )
