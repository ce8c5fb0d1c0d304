"""The state of a corpus changes with its files, and with nothing else."""

import hashlib
import os
from pathlib import Path

import pytest

import finetune.data.corpus_state as corpus_state_module
from finetune.data.corpus_state import corpus_state


def test_a_file_counts_with_its_content(tmp_path: Path) -> None:
    table = tmp_path / "a.jsonl"
    table.write_text("{}")
    assert corpus_state(str(table), tmp_path) == hashlib.sha256(b"{}").hexdigest()
    os.utime(table, ns=(1, 1))
    assert corpus_state(str(table), tmp_path) == hashlib.sha256(b"{}").hexdigest()
    assert corpus_state("hf:name:train", tmp_path) == corpus_state(str(tmp_path / "none"), tmp_path) == ""


@pytest.mark.parametrize("pattern", ["", "/**/*.wav"])
def test_folders_and_patterns_count_with_names_sizes_and_times(tmp_path: Path, pattern: str) -> None:
    runs, source = tmp_path / "data" / "runs", f"{tmp_path / 'data'}{pattern}"
    for name in ("runs/x/log", "b/c.wav", "a.wav"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(name.encode())
    states = [corpus_state(source, runs)]
    (runs / "x" / "other").touch()
    (tmp_path / "data" / ".hidden").touch()
    assert corpus_state(source, runs) == states[0] != ""
    for change in (
        lambda: (tmp_path / "data" / "b" / "c.wav").write_bytes(b"longer than before"),
        lambda: os.utime(tmp_path / "data" / "a.wav", ns=(1, 1)),
        lambda: (tmp_path / "data" / "a.wav").rename(tmp_path / "data" / "d.wav"),
        lambda: (tmp_path / "data" / "b" / "e.wav").touch(),
        lambda: (tmp_path / "data" / "d.wav").unlink(),
    ):
        change()
        states.append(corpus_state(source, runs))
    assert len({*states}) == len(states)


def test_a_broken_link_and_a_pattern_without_files_are_no_errors(tmp_path: Path) -> None:
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert corpus_state(str(tmp_path), tmp_path / "runs")
    assert corpus_state(str(tmp_path / "*.flac"), tmp_path) == ""


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "large.tar", "wb") as file:
        file.truncate(corpus_state_module.MAX_HASHED + 1)
    first = corpus_state(str(tmp_path / "large.tar"), tmp_path)
    os.utime(tmp_path / "large.tar", ns=(1, 1))
    assert "" != first != corpus_state(str(tmp_path / "large.tar"), tmp_path)
