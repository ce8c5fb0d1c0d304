"""The records of a training: metrics.jsonl, and the numbers that trackers receive."""

import json
import math
import resource
from pathlib import Path
from typing import Any

import pytest
from tracker_fakes import Seen

from finetune.training.callbacks import SkippedClip, StepRecord, ValidationRecord
from finetune.training.tracking import Tracker, rewind


def rows(path: Path) -> list[dict[str, Any]]:
    """The records without their times; every line must be JSON without NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    read = [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert all(row.pop("time") > 0 for row in read)
    return read


def train(path: Path, first: int, last: int, step: int | None) -> None:
    """Steps `first` to `last` of a run with three steps per epoch, which scores the base model when it starts."""
    tracker = Tracker(path, "run", [], {}, step)
    if step is None:
        tracker.record("valid", 0, epoch=0, wer=1.0)
    for number in range(first, last + 1):
        tracker.record("step", number, loss=1 / number, text="grüß dich\u2028")
        if number % 3 == 0:
            tracker.record("valid", number, epoch=number // 3, wer=1 / number)
    tracker.close()


# -- metrics.jsonl


def test_a_killed_and_resumed_run_records_what_an_unbroken_one_does(tmp_path: Path) -> None:
    """The checkpoint is of step 3; the kill comes after any byte from there on."""
    unbroken, path = tmp_path / "whole.jsonl", tmp_path / "metrics.jsonl"
    train(unbroken, 1, 3, None)
    start = unbroken.stat().st_size
    train(unbroken, 4, 6, 3)
    assert [(row["kind"], row["step"]) for row in rows(unbroken)] == [
        ("valid", 0),
        ("step", 1),
        ("step", 2),
        ("step", 3),
        ("valid", 3),
        ("step", 4),
        ("step", 5),
        ("step", 6),
        ("valid", 6),
    ]
    content = unbroken.read_bytes()
    for cut in range(start, len(content) + 1):
        path.write_bytes(content[:cut])
        train(path, 4, 6, 3)
        assert rows(path) == rows(unbroken), cut


def test_a_new_run_drops_the_records_of_an_earlier_attempt(tmp_path: Path) -> None:
    path, unbroken = tmp_path / "metrics.jsonl", tmp_path / "whole.jsonl"
    train(path, 1, 5, None)
    train(path, 1, 6, None)
    train(unbroken, 1, 6, None)
    assert rows(path) == rows(unbroken)


def test_rewind_keeps_records_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = Tracker(path, "run", [], {}, None)
    for number in (1, 2):
        tracker.record("step", number)
        tracker.record("skipped", number, clips=["a", "b"])
    rewind(path, 1)
    assert [(row["kind"], row["step"]) for row in rows(path)] == [("step", 1), ("skipped", 1), ("skipped", 2)]


def test_damaged_lines_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    train(path, 1, 1, None)
    before = rows(path)
    with path.open("ab") as handle:
        handle.write(b'\0\0\0\n7\n{"time": 1}\n\xff\n')
    rewind(path, 1)
    assert rows(path) == before
    assert "dropped 4 damaged lines" in caplog.text


def test_a_rewind_that_fails_leaves_the_file_and_does_not_stop_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    train(path, 1, 3, None)
    before = path.read_bytes()

    path.with_name("metrics.jsonl.part").mkdir()  # the new content cannot be written there
    Tracker(path, "run", [], {}, 1)
    assert path.read_bytes() == before
    assert "metrics.jsonl still has the records of an earlier run: " in caplog.text
    assert "Is a directory" in caplog.text


def test_nan_and_infinity_become_null(tmp_path: Path, fakes: Seen) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = Tracker(path, "run", ["wandb"], {}, None)
    tracker.record("step", 1, loss=math.nan, norm=-math.inf, parts={"lora": [math.inf, 0.5]}, rate=1e-4)
    assert rows(path) == [
        {"kind": "step", "step": 1, "loss": None, "norm": None, "parts": {"lora": [None, 0.5]}, "rate": 1e-4}
    ]
    assert fakes["wandb"][-1] == {"step/rate": 1e-4, "optimizer_step": 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(Path("/dev/full"), "run", [], {}, None)
    for number in range(5):
        tracker.record("step", number)
    assert caplog.text.count("training continues") == 1
    tracker.close()
    assert "/dev/full: 5 records are missing" in caplog.text


def test_a_partial_record_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The disk takes only some bytes of a line, and later there is space again."""
    path = tmp_path / "metrics.jsonl"
    tracker = Tracker(path, "run", [], {}, None)
    tracker.record("step", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        tracker.record("step", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tracker.record("step", 3)
    assert [row["step"] for row in rows(path)] == [1, 3]
    assert caplog.text.count("training continues") == 1


def test_the_callback_records_what_training_reports(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = Tracker(path, "run", [], {}, None)
    tracker.on_step(StepRecord(1, 1, 0.5, 2.0, 1e-4, 30.0, 0.1))
    tracker.on_validation(ValidationRecord(1, 1, 0.9, 0.25, None))
    tracker.on_message("epoch 1/1")
    assert rows(path) == [
        {"kind": "step", "step": 1, "loss": 0.5, "grad_norm": 2.0, "rate": 1e-4},
        {"kind": "valid", "step": 1, "epoch": 1, "alpha": 0.9, "wer": 0.25, "canary_wer": None},
    ]


def test_interpolated_weights_have_a_curve_of_their_own(tmp_path: Path, fakes: Seen) -> None:
    tracker = Tracker(tmp_path / "metrics.jsonl", "run", ["wandb"], {}, None)
    tracker.on_validation(ValidationRecord(2, 1, 1.0, 0.5, None))
    tracker.on_validation(ValidationRecord(2, 1, 0.75, 0.25, None))
    assert [call for call in fakes["wandb"] if "optimizer_step" in call] == [
        {"valid/epoch": 1, "valid/alpha": 1.0, "valid/wer": 0.5, "optimizer_step": 2},
        {"interpolated/epoch": 1, "interpolated/alpha": 0.75, "interpolated/wer": 0.25, "optimizer_step": 2},
    ]


def test_the_id_and_reason_of_a_skipped_clip_stay_here(tmp_path: Path, fakes: Seen) -> None:
    tracker = Tracker(tmp_path / "metrics.jsonl", "run", ["wandb", "tensorboard", "trackio"], {}, None)
    opened = {name: len(calls) for name, calls in fakes.items()}
    tracker.on_skipped_clip(SkippedClip(1, "train", "patient-7", "no such file"))
    assert rows(tmp_path / "metrics.jsonl")[0]["id"] == "patient-7"
    assert {name: len(calls) for name, calls in fakes.items()} == opened


def test_a_tracker_that_fails_is_dropped_and_training_records_on(
    tmp_path: Path, fakes: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(tmp_path / "metrics.jsonl", "run", ["wandb", "trackio"], {}, None)
    fakes["fail"].append("wandb.log")
    for step in (1, 2):
        tracker.record("step", step, loss=0.5)
    tracker.close()
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2]
    assert fakes["trackio"][1:] == [({"step/loss": 0.5}, 1), ({"step/loss": 0.5}, 2), "closed"]
    assert caplog.text.count("wandb is off from now on") == 1
