"""Transcript files for other tools: formats of sclite, and hostile text."""

import json
from pathlib import Path

import pytest

from finetune.metrics.sclite import Segment, ctm, stm, trn, write_lines, write_rows

SEGMENTS = [
    Segment("u 1", "Anna-B", 2.0, "Hello, world!"),
    Segment("u(2)", "", 1.5, ""),
    Segment("u_1", "Anna_B", 3.0, "it's; a {test} / <b>"),
]


def test_trn() -> None:
    assert trn(SEGMENTS, "basic@2") == ["hello world (Anna_B-u_1)", " (unknown-u_2_)", "it's a test b (Anna_B-u_1_2)"]


def test_stm_and_ctm_have_the_same_files() -> None:
    assert stm(SEGMENTS, "none") == [
        "Anna_B-u_1 1 Anna-B 0.000 2.000 Hello, world!",
        "unknown-u_2_ 1 unknown 0.000 1.500",
        "Anna_B-u_1_2 1 Anna_B 0.000 3.000 it's a test / <b>",
    ]
    comment, *words = ctm(SEGMENTS, "basic@2")
    assert comment.startswith(";; ")
    assert words[:2] == ["Anna_B-u_1 1 0.000 1.000 hello", "Anna_B-u_1 1 1.000 1.000 world"]
    assert all(float(word.split()[2]) + float(word.split()[3]) <= 3.001 for word in words) and len(words) == 6


def test_signs_of_numbers_are_written() -> None:
    segments = [Segment("u", "s", 1.0, "<5 or 1/2 <b> 5%")]
    assert trn(segments, "basic@2") == ["<5 or 1/2 b 5% (s-u)"]
    assert stm(segments, "basic@2") == ["s-u 1 s 0.000 1.000 <o> <5 or 1/2 b 5%"]


def test_a_failure_keeps_the_earlier_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"a": 1}])
    with pytest.raises(TypeError):
        write_rows(tmp_path / "rows.jsonl", [{"a": 2}, {"a": object()}])
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert (tmp_path / "rows.jsonl").read_text() == '{"a": 1}\n'


def test_any_text_is_written(tmp_path: Path) -> None:
    rows = [{"text": "<script>alert(1)</script> \u202e\u0000 日本"}, {"text": "broken \udce4"}]
    write_rows(tmp_path / "a" / "rows.jsonl", rows)
    lines = (tmp_path / "a" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows and "日本" in lines[0]
    write_lines(tmp_path / "x.trn", trn([Segment("\udce4", "", 1.0, "a \udce4 b\nc")], "none"))
    assert (tmp_path / "x.trn").read_text(encoding="utf-8") == "a ? b c (unknown-?)\n"
