"""`scripts/bench_full`: the commands of its parts, the tables, and what happens if a part fails."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.full_table import Tables, command, markdown, measure
from bench.measured_process import Cost
from bench.processes import Processes, largest_difference, losses
from finetune.core.files import read_json, write_json

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_full"


def variant(speed: float) -> dict[str, float]:
    return {"clips_per_second": speed, "audio_seconds_per_second": 5 * speed, "memory": 2e9, "share_of_limit": 0.25}


def decoder(name: str, **values: Any) -> dict[str, Any]:
    row = {"batch": 8, "way": name, "corrupted": None, "ms": 12.5, "over_generate": 2.5, "over_floor": None}
    return {**row, "as_greedy": None, "clips": 64, **values}


TRAINING = {"header": ["full: random weights"] * 4, "variants": {"baseline": variant(10), "ours": variant(30)}}
DECODING = {
    "header": ["clips of noise", "the GPU"],
    "lines": [decoder("generate"), decoder("lossless", corrupted=0.05, as_greedy=63, over_floor=1.2)],
}


def test_the_full_measurement_is_of_the_real_dimensions(tmp_path: Path) -> None:
    """Against the notebook's recipe and transformers' generate; only the small one limits clips and rounds."""
    for part, script, needed in (
        ("training", "bench_train.py", {"baseline", "ours"}),
        ("decoding", "bench_decode.py", {"generate", "lossless", "floor"}),
    ):
        line = command(part, "full", False, tmp_path / "out.json")
        assert Path(line[1]).name == script and Path(line[1]).is_file()
        options = dict(zip(line[2::2], line[3::2], strict=True))
        assert options["--size"] == "full" and needed <= set(options["--only"].split(","))
        assert not {"--clips", "--limit", "--steps", "--rounds"} & options.keys()
        assert {"--clips", "--limit"} & set(command(part, "nano", True, tmp_path / "out.json"))


def test_a_failed_part_does_not_stop_the_others(tmp_path: Path) -> None:
    def run(line: Sequence[str], log: Path) -> Cost:
        log.write_text("CUDA out of memory")
        if "bench_decode.py" in line[1]:
            write_json(Path(line[line.index("--json") + 1]), DECODING)
            return Cost(0, 1, 1, 1, 1)
        return Cost(1, 1, 1, 1, 1)

    tables = measure(Tables({}), "full", False, tmp_path, run)
    assert tables.decoding == DECODING and tables.training == {}
    assert list(tables.failed) == ["training"] and "out of memory" in tables.failed["training"]
    assert "Failed: training" in markdown(tables)


@pytest.mark.parametrize("missing", ["baseline", "ours"])
def test_a_side_that_ran_out_of_memory_is_a_failure(tmp_path: Path, missing: str) -> None:
    """`bench_train.py` measures its other variants, and exits with 0."""

    def run(line: Sequence[str], log: Path) -> Cost:
        log.write_text("failed: OutOfMemoryError")
        variants = {name: row for name, row in TRAINING["variants"].items() if name != missing}
        content = {**TRAINING, "variants": variants} if "bench_train.py" in line[1] else DECODING
        write_json(Path(line[line.index("--json") + 1]), content)
        return Cost(0, 1, 1, 1, 1)

    tables = measure(Tables({}), "full", False, tmp_path, run)
    assert "OutOfMemoryError" in tables.failed["training"]
    assert markdown(tables)


def test_the_tables() -> None:
    both = [Processes(1, 20.0, 10.0, [2.0, 1.0]), Processes(2, 15.0, 18.0, [2.0, 1.001])]
    text = markdown(Tables({"device": "one GPU"}, TRAINING, DECODING, both))
    assert "device: one GPU" in text
    assert "| ours | 30.00 | 150.0 | 2.00 | 25.0 | 3.00 |" in text
    assert "| 8 | lossless | 5 % | 12.5 | 2.50 | 1.20 | 63 of 64 |" in text
    assert "| 8 | generate | - | 12.5 | 2.50 | - | - |" in text
    assert "| 2 | 18.00 | 1.80 | 15 |" in text and "of 2 steps: 1.0e-03" in text


def test_trainings_with_other_numbers_of_steps_differ() -> None:
    one, two = Processes(1, 1, 1, [2.0, 4.0]), Processes(2, 1, 1, [2.0])
    assert largest_difference([one, two]) == float("inf")
    assert largest_difference([one, one]) == 0
    assert largest_difference([one, Processes(2, 1, 1, [2.0, 5.0])]) == 0.25


def test_losses_are_those_of_steps(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "step", "loss": 3.0}\n{"kind": "valid", "wer": 1.0}\n{"kind": "step", "loss": 2.0}\n'
    )
    assert losses(tmp_path) == [3.0, 2.0]


@pytest.mark.slow
def test_the_whole_benchmark_in_small(tmp_path: Path) -> None:
    line = [sys.executable, str(SCRIPT), "--tiny", "--results", str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    content = read_json(tmp_path / "bench_full.json")
    assert content["training"]["ours_over_baseline"]["clips_per_second"] > 0 and not content["failed"]
    assert {row["way"] for row in content["decoding"]["lines"]} == {"generate", "greedy", "lossless", "floor"}
    assert [row["processes"] for row in content["processes"]] == [1, 2]
    assert (tmp_path / "bench_full.md").read_text() in done.stdout
