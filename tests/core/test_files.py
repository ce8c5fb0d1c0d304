"""Reading and writing files: JSON Lines, hashes, atomic replacement, the full disk."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from finetune.core.errors import DataError
from finetune.core.files import (
    cache_home,
    is_disk_full,
    output_folder,
    read_json,
    read_jsonl,
    replace_folder,
    sha256_file,
    write_json,
)


def test_a_failed_write_keeps_the_old_json(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": "é"})
    before = sha256_file(path)
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": "é"} and sha256_file(path) == before


def test_sha256_file_hashes_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00\r\n" * 99_999)
    assert sha256_file(path) == sha256_file(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_read_jsonl_skips_blank_lines_and_keeps_line_separators_in_strings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"a": "one\u2028two\x85"}\r\n\r\n  \n{"a": null}'.encode())
    assert read_jsonl(path) == [{"a": "one\u2028two\x85"}, {"a": None}]


def test_read_jsonl_names_the_first_three_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{\n[2]\n3\n{\n"x"\n')
    with pytest.raises(DataError) as caught:
        read_jsonl(path)
    lines = str(caught.value).splitlines()
    assert [line.split(" (")[0] for line in lines[:4]] == [
        f"{path}:2: not JSON",
        f"{path}:3: not a JSON object",
        f"{path}:4: not a JSON object",
        "... and 2 more lines",
    ]
    assert len(lines) == 5 and "one JSON object on each line" in lines[4]


def test_replace_folder_leaves_only_the_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "best"
    for content in ("one", "two"):
        staged = tmp_path / "best.part"
        (staged / "deep").mkdir(parents=True)
        (staged / "deep" / "a").write_text(content)
        replace_folder(staged, target)
        assert (target / "deep" / "a").read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_is_disk_full_reads_the_error_code_or_the_text() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, "x")) and is_disk_full(OSError(errno.EDQUOT, "x"))
    assert is_disk_full(RuntimeError(f"I/O error: {os.strerror(errno.ENOSPC)} (os error 28)"))
    assert is_disk_full(OSError("10000 requested and 250 written"))
    assert not is_disk_full(OSError(errno.EACCES, os.strerror(errno.EACCES))) and not is_disk_full(RuntimeError("x"))


def test_write_json_escapes_a_lone_surrogate(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"id": "\udcff"})
    assert read_json(tmp_path / "a.json") == {"id": "\udcff"}


def test_an_output_folder_is_removed_after_an_error_only_if_it_is_empty(tmp_path: Path) -> None:
    for name, files in (("empty", []), ("used", ["kept"])):
        with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "new" / name) as _:
            for file in files:
                (tmp_path / "new" / name / file).write_text("x")
            raise KeyboardInterrupt
    assert not (tmp_path / "new" / "empty").exists() and (tmp_path / "new" / "used" / "kept").exists()
    with output_folder(tmp_path / "fine"):
        assert list((tmp_path / "fine").iterdir()) == []
    assert (tmp_path / "fine").is_dir()


def test_a_user_without_a_home_has_a_folder_for_caches() -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    assert cache_home({}, no_home).is_absolute()
    assert cache_home({"XDG_CACHE_HOME": "/c"}, no_home) == Path("/c")
    assert cache_home({}, lambda: Path("/home/a")) == Path("/home/a/.cache")
