"""The records of a run: metrics.jsonl, and wandb, tensorboard and trackio."""

import json
import math
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.training.callbacks import StepRecord, ValidationRecord
from finetune.training.tracking import START, Tracker, rewind


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


def test_nan_and_infinity_become_null(tmp_path: Path, fakes: dict[str, list[Any]]) -> None:
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


# -- mirrors


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Stand-ins for wandb, trackio and tensorboard, which record their calls."""
    seen: dict[str, list[Any]] = {"wandb": [], "trackio": [], "tensorboard": []}
    run = SimpleNamespace(
        log=seen["wandb"].append, define_metric=lambda *_, **__: None, finish=lambda: seen["wandb"].append("closed")
    )

    def init(**call: Any) -> SimpleNamespace:
        seen["wandb"].append(call)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **call: call))
    monkeypatch.setitem(
        sys.modules,
        "trackio",
        SimpleNamespace(
            init=lambda **call: seen["trackio"].append(call),
            log=lambda values, step: seen["trackio"].append((values, step)),
            finish=lambda: seen["trackio"].append("closed"),
        ),
    )

    def writer(folder: str, purge_step: int) -> SimpleNamespace:
        seen["tensorboard"].append((Path(folder).name, purge_step))
        return SimpleNamespace(
            add_scalar=lambda *call: seen["tensorboard"].append(call),
            close=lambda: seen["tensorboard"].append("closed"),
        )

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=writer))
    return seen


MIRRORS = ["wandb", "tensorboard", "trackio"]


def test_every_tracker_of_the_recipe_is_supported() -> None:
    from finetune.core.config import MachineSection

    names = MachineSection.model_json_schema()["properties"]["trackers"]["items"]["enum"]
    assert sorted(names) == sorted(START) == sorted(MIRRORS)


def test_a_resumed_run_continues_the_same_curves(tmp_path: Path, fakes: dict[str, list[Any]]) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (None, 3, None):
        tracker = Tracker(path, "run", MIRRORS, {"seed": 1}, step)
        tracker.record("step", 1 if step is None else 4, loss=0.5, text="x")
        tracker.close()
    first, again, anew = [call["id"] for call in fakes["wandb"] if isinstance(call, dict) and "id" in call]
    assert first == again != anew
    assert fakes["wandb"][1:3] == [{"step/loss": 0.5, "optimizer_step": 1}, "closed"]
    assert fakes["wandb"][0]["config"] == {"seed": 1}
    assert fakes["tensorboard"][:6] == [
        ("tensorboard", 0),
        ("step/loss", 0.5, 1),
        "closed",
        ("tensorboard", 4),
        ("step/loss", 0.5, 4),
        "closed",
    ]
    assert fakes["trackio"][1:3] == [({"step/loss": 0.5}, 1), "closed"]
    assert [call["resume"] for call in fakes["trackio"] if isinstance(call, dict)] == ["never", "allow", "never"]


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("the server is down")


@pytest.mark.parametrize("when", ["import", "start", "log", "close"])
def test_mirrors_that_fail_are_dropped_with_one_warning_each(
    when: str,
    tmp_path: Path,
    fakes: dict[str, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    modules = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "torch.utils.tensorboard"}
    names = {"start": ["init", "SummaryWriter"], "log": ["log", "add_scalar"], "close": ["finish", "close"]}
    for module in modules.values():
        if when == "import":
            monkeypatch.setitem(sys.modules, module, None)
    if when != "import":
        fake: Any = sys.modules["torch.utils.tensorboard"]  # only this test uses the fakes
        writer = fake.SummaryWriter("x", 0)
        fake.SummaryWriter = lambda *_, **__: writer
        for target in (sys.modules["wandb"], sys.modules["wandb"].init(), sys.modules["trackio"], fake, writer):
            for name in names[when]:
                if hasattr(target, name):
                    setattr(target, name, broken)
    path = tmp_path / "metrics.jsonl"
    tracker = Tracker(path, "run", MIRRORS, {}, None)
    for number in range(3):
        tracker.record("step", number, loss=0.5)
    tracker.close()
    assert [row["step"] for row in rows(path)] == [0, 1, 2]
    for name in MIRRORS:
        assert sum(record.getMessage().startswith(name) for record in caplog.records) == 1
    assert len(caplog.records) == 3
    assert (
        "pip install 'finetune-granite-speech[tensorboard]'" if when == "import" else "the server is down"
    ) in caplog.text


def test_one_mirror_that_fails_does_not_stop_the_others(tmp_path: Path, fakes: dict[str, list[Any]]) -> None:
    sys.modules["wandb"].init().log = broken
    tracker = Tracker(tmp_path / "metrics.jsonl", "run", MIRRORS, {}, None)
    tracker.record("step", 1, loss=0.5)
    tracker.record("step", 2, loss=0.25)
    assert list(tracker.mirrors) == ["tensorboard", "trackio"]
    assert fakes["trackio"][-1] == ({"step/loss": 0.25}, 2)


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = Tracker(tmp_path / "metrics.jsonl", "run", ["wandb"], {"seed": 1, "parts": {"rank": 4}}, None)
    assert list(tracker.mirrors) == ["wandb"]
    tracker.record("step", 1, loss=0.5)
    tracker.close()
    wandb.teardown()  # as at the end of a process: wandb's service can still write after the run ends
    (written,) = tmp_path.glob(f"wandb/offline-run-*/run-{(tmp_path / 'wandb-id').read_text()}.wandb")
    assert b"step/loss" in written.read_bytes() and b"optimizer_step" in written.read_bytes()
