"""Text files of any size, hostile ones among them: bounded memory, one error, and the rows of compressed manifests."""

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from shapes import write_audio, write_tar

from finetune.core.errors import DataError
from finetune.data.corpora import read_corpus
from finetune.data.formats import kaldi
from finetune.data.formats.json_list import list_items
from finetune.data.formats.lines import MAX_LINE, json_objects, text_lines
from finetune.data.key_tables import KeyTables

MB = 1 << 20


def peak_mb(items: Iterable[object]) -> float:
    """The largest memory of Python objects while an iterator is used up."""
    tracemalloc.start()
    try:
        for _ in items:
            pass
        return tracemalloc.get_traced_memory()[1] / MB
    finally:
        tracemalloc.stop()


def test_lines_have_numbers_and_no_ends(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    content = "\ufeffone\r\n\r\n two\u2028\x0cthree \n\ufefflast".encode()
    for data in (content, gzip.compress(content)):
        path.write_bytes(data)
        assert list(text_lines(path)) == [(1, "one"), (2, ""), (3, " two\u2028\x0cthree "), (4, "\ufefflast")]


def test_a_compressed_manifest(tmp_path: Path) -> None:
    audio = write_audio(tmp_path / "a.wav", 1)
    path = tmp_path / "m.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"path": "a.wav", "sentence": "words"}).encode()))
    rows = read_corpus(str(path), tmp_path)
    assert [(row.where, row.values) for row in rows] == [(f"{path}:1", {"audio_filepath": str(audio), "text": "words"})]
    path.write_bytes(gzip.compress(b"true\n", mtime=0))
    with pytest.raises(DataError, match=r"m\.jsonl\.gz:1: not a JSON object"):
        read_corpus(str(path), tmp_path)


def test_a_compressed_list(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", 1)
    path = tmp_path / "m.json.gz"
    path.write_bytes(gzip.compress(json.dumps([{"path": "a.wav", "sentence": str(n)} for n in range(3)]).encode()))
    assert [(row.where, row.values["text"]) for row in read_corpus(str(path), tmp_path)] == [
        (f"{path}: item {n + 1}", str(n)) for n in range(3)
    ]
    path.write_bytes(gzip.compress(b'[{"path": "a.wav"}, 2]'))
    with pytest.raises(DataError, match=r"m\.json\.gz: item 2: not a JSON object"):
        read_corpus(str(path), tmp_path)
    with pytest.raises(ValueError, match="an item of more than 1000 characters"):
        list(list_items(io.StringIO('["' + "a" * (1 << 18)), 1000))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * (MAX_LINE + MB), 1))
    with pytest.raises(DataError, match=r"bomb\.jsonl\.gz:1: a line of more than 64 MB, so not a text file"):
        list(json_objects(path))


def test_many_lines_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(5):
            file.write(b'{"text": "a"}\n' * 2000)
    assert peak_mb(json_objects(path)) < 0.5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"one\n\xff\xfe\n", r"x:2: not UTF-8 text"),
        (b"one\n\0\n", r"x:2: a binary file"),
        (gzip.compress(b"one\ntwo\n", mtime=0)[:-9], r"x: damaged or truncated after line \d"),
        (gzip.compress(b"one\n", mtime=0) + b"junk", r"x: damaged or truncated after line 1"),
    ],
)
def test_files_that_are_not_text(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match=message):
        list(text_lines(tmp_path / "x"))


def test_a_folder_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="cannot be read"):
            list(text_lines(path))


def test_a_kaldi_directory_is_read_in_flat_memory(tmp_path: Path) -> None:
    names = [f"utt-{number:06d}" for number in range(4_000)]
    (tmp_path / "wav.scp").write_text("".join(f"{name} /x/{name}.wav\n" for name in reversed(names)))
    (tmp_path / "text").write_text("".join(f"{name} some words\n" for name in names))
    (tmp_path / "utt2spk").write_text("".join(f"{name} {name[:7]}\n" for name in names))
    del names
    assert peak_mb(kaldi.read(tmp_path, tmp_path)) < 0.5


def test_tables_keep_the_first_value_and_the_line_of_another_one() -> None:
    tables = KeyTables()
    tables.load("t", [("b", 1, "x"), ("a", 2, "y"), ("b", 3, "x"), ("b", 4, "z"), ("b", 5, "w")])
    rows = list(tables.query("SELECT key, line, value, other FROM t ORDER BY line"))
    assert rows == [("b", 1, "x", 4), ("a", 2, "y", None)]
    assert tables.value("t", "b") == "x" and tables.value("t", "c") is None
    tables.close()


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "x.tar", {"0.txt": b"words", "1.txt": b"more", "1.wav": write_audio(tmp_path / "a.wav", 1)}
    )
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("0.wav")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "a.wav")
        archive.addfile(link)
    rows = list(read_corpus(str(path), tmp_path))
    assert [row.fault and row.fault.kind for row in rows] == ["missing audio", None]
