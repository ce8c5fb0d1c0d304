"""wandb, tensorboard and trackio: runs that continue, failures, results. With stand-ins, and with the real packages."""

import json
import logging
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tracker_fakes import Seen
from wandb_server import KEY, WandbServer

from finetune.core.config import MachineSection
from finetune.tracking.trackers import START, Sound, Table, TrackedResults, call_each, close_trackers, open_trackers

TRACKERS = ["wandb", "tensorboard", "trackio"]
TONE = (3000 * np.sin(np.arange(1600) / 5)).astype(np.int16)
RESULTS = TrackedResults(
    {"results/test/adapted/wer": 0.25},
    {
        "clips": Table(("list", "reference"), [("worst", "a | b\nc"), ("fixed", "d")]),
        "terms": Table(("term", "recall"), [("naïve", 0.123456), ("x", None)]),
    },
    [Sound("fixed: id", "d", TONE, 16_000)],
)


def test_every_tracker_of_the_recipe_is_supported() -> None:
    names = MachineSection.model_json_schema()["properties"]["trackers"]["items"]["enum"]
    assert sorted(names) == sorted(START) == sorted(TRACKERS)


def segment(folder: Path, names: list[str], step: int | None, first: int, last: int) -> None:
    """Steps of a training, which starts (step None) or continues after a step."""
    trackers = open_trackers(names, folder, "run", {"seed": 1}, step)
    assert list(trackers) == names
    for number in range(first, last + 1):
        call_each(trackers, lambda tracker: tracker.log({"step/loss": 1 / number}, number))  # noqa: B023
    close_trackers(trackers)


def test_a_resumed_run_continues_and_a_new_training_does_not(tmp_path: Path, fakes: Seen) -> None:
    for step in (None, 3, None):
        segment(tmp_path, TRACKERS, step, 4 if step else 1, 4 if step else 1)
    ids = [call["id"] for call in fakes["wandb"] if isinstance(call, dict) and "id" in call]
    names = [call["name"] for call in fakes["trackio"] if isinstance(call, dict)]
    for first, again, anew in (ids, names):
        assert first == again != anew
    assert fakes["wandb"][1:3] == [{"step/loss": 1.0, "optimizer_step": 1}, "closed"]
    assert fakes["wandb"][0]["config"] == {"seed": 1}
    assert fakes["tensorboard"][:6] == [
        ("tensorboard", 0),
        ("step/loss", 1.0, 1),
        "closed",
        ("tensorboard", 4),
        ("step/loss", 0.25, 4),
        "closed",
    ]
    starts = [call for call in fakes["trackio"] if isinstance(call, dict)]
    assert [call["resume"] for call in starts] == ["never", "allow", "never"]
    assert all(call["private"] for call in starts), "a new space is public by default"


@pytest.mark.parametrize("when", ["import", "start", "log", "close"])
def test_trackers_that_fail_are_dropped_with_one_warning_each(
    when: str, tmp_path: Path, fakes: Seen, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    modules = {"wandb": "wandb", "trackio": "trackio", "tensorboard": "torch.utils.tensorboard"}
    for name, module in modules.items():
        if when == "import":
            monkeypatch.setitem(sys.modules, module, None)
        fakes["fail"].append(f"{name}.{when}")
    trackers = open_trackers(TRACKERS, tmp_path, "run", {}, None)
    for step in range(3):
        call_each(trackers, lambda tracker: tracker.log({"loss": 0.5}, step))  # noqa: B023
    close_trackers(trackers)
    for name in TRACKERS:
        assert sum(record.getMessage().startswith(name) for record in caplog.records) == 1
    assert len(caplog.records) == 3
    expected = "pip install 'finetune-granite-speech[tensorboard]'" if when == "import" else "the server is down"
    assert expected in caplog.text


def test_wandb_waits_a_minute_for_a_key_in_a_terminal_and_not_for_ever(tmp_path: Path, fakes: Seen) -> None:
    open_trackers(["wandb"], tmp_path, "run", {}, None)
    assert fakes["setup"] == [{"login_timeout": 60.0}]


def test_one_tracker_that_fails_does_not_stop_the_others(tmp_path: Path, fakes: Seen) -> None:
    trackers = open_trackers(TRACKERS, tmp_path, "run", {}, None)
    fakes["fail"].append("wandb.summary")
    call_each(trackers, lambda tracker: tracker.log_results(RESULTS, 7))
    assert list(trackers) == ["tensorboard", "trackio"]
    assert fakes["trackio"][-1][1] == 7


def test_a_tracker_that_hangs_at_the_end_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes nothing would otherwise hold the run for ever."""
    release, closed = Event(), list[str]()
    stuck: Any = SimpleNamespace(close=release.wait)
    good: Any = SimpleNamespace(close=lambda: closed.append("good"))
    started = time.monotonic()
    close_trackers({"stuck": stuck, "good": good}, seconds=0.05)
    assert time.monotonic() - started < 5 and closed == ["good"]
    assert "stuck did not finish: not all data was sent within 0.05 seconds" in caplog.text
    release.set()


def test_results_reach_each_tracker(tmp_path: Path, fakes: Seen) -> None:
    trackers = open_trackers(TRACKERS, tmp_path, "run", {}, 7)
    call_each(trackers, lambda tracker: tracker.log_results(RESULTS, 7))
    assert list(trackers) == TRACKERS

    assert fakes["wandb"][1] == ("summary", {"results/test/adapted/wer": 0.25})
    tables = fakes["wandb"][2]
    assert tables["optimizer_step"] == 7 and tables["terms"]["data"] == [["naïve", 0.123456], ["x", None]]
    assert tables["clips"]["data"] == [["worst", "a | b\nc"], ["fixed", "d"]]
    (sound,) = tables["clips/audio"]
    assert sound["samples"] is TONE and sound["caption"] == "fixed: id: d" and sound["sample_rate"] == 16_000

    texts = {call[0]: call[1] for call in fakes["tensorboard"] if call[0] in RESULTS.tables}
    assert texts["terms"] == "| term | recall |\n| --- | --- |\n| naïve | 0.1235 |\n| x |  |"
    assert "| worst | a \\| b c |" in texts["clips"]
    (sound,) = [call for call in fakes["tensorboard"] if "fixed: id" in call[0]]
    assert sound[1].shape == (1, 1600) and abs(sound[1]).max() < 0.1 and sound[2:] == (7, 16_000)

    values, step = fakes["trackio"][1]
    assert step == 7 and values["terms"][0] == {"term": "naïve", "recall": 0.123456}
    assert values["clips/01"]["caption"] == "fixed: id: d" and values["results/test/adapted/wer"] == 0.25


# -- the real packages


def test_tensorboard(tmp_path: Path) -> None:
    """Steps that a resumed run repeats are not shown twice; results are there with audio."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    segment(tmp_path, ["tensorboard"], None, 1, 4)
    segment(tmp_path, ["tensorboard"], 2, 3, 5)
    trackers = open_trackers(["tensorboard"], tmp_path, "run", {}, 5)
    call_each(trackers, lambda tracker: tracker.log_results(RESULTS, 5))
    assert trackers
    close_trackers(trackers)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [item.step for item in events.Scalars("step/loss")] == [1, 2, 3, 4, 5]
    assert events.Scalars("results/test/adapted/wer")[0].value == 0.25
    text = events.Tensors("terms/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| naïve | 0.1235 |" in text
    (audio,) = events.Tags()["audio"]
    assert "fixed: id" in audio and events.Audio(audio)[0].encoded_audio_string[:4] == b"RIFF"


@pytest.mark.slow
def test_trackio(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = ['tests', 'tests/tracking']\n"
        "from test_trackers import RESULTS, segment, open_trackers, call_each, close_trackers\n"
        "folder = Path(sys.argv[1])\n"
        "segment(folder, ['trackio'], None, 1, 3); segment(folder, ['trackio'], 3, 4, 5)\n"
        "trackers = open_trackers(['trackio'], folder, 'run', {}, 5)\n"
        "call_each(trackers, lambda tracker: tracker.log_results(RESULTS, 5)); close_trackers(trackers)\n"
    )
    environment = {
        **dict(PYTHONPATH=":".join(sys.path)),
        "TRACKIO_DIR": str(tmp_path / "data"),
        "PATH": "/usr/bin:/bin",
    }
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=root, env=environment)
    (database,) = (tmp_path / "data").rglob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select run_name, step, metrics from metrics order by id").fetchall()
    name = f"run-{(tmp_path / 'trackio-id').read_text()}"
    curve = [(row[1], json.loads(row[2])) for row in rows if b"step/loss" in row[2]]
    assert {row[0] for row in rows} == {name} and [step for step, _ in curve] == [1, 2, 3, 4, 5]
    results = next(json.loads(row[2]) for row in rows if b"results/test/adapted/wer" in row[2])
    assert "na" in str(results["terms"]) and list((tmp_path / "data").rglob("*.wav"))


@pytest.fixture
def wandb_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def test_wandb_offline(wandb_files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    with caplog.at_level(logging.INFO):
        trackers = open_trackers(["wandb"], wandb_files, "run", {"seed": 1, "parts": {"rank": 4}}, None)
        call_each(trackers, lambda tracker: tracker.log({"step/loss": 0.5}, 1))
        call_each(trackers, lambda tracker: tracker.log_results(RESULTS, 1))
        assert list(trackers) == ["wandb"]
        close_trackers(trackers)
    wandb.teardown()  # as at the end of a process: wandb's service can still write after the run ends
    (written,) = wandb_files.glob(f"wandb/offline-run-*/run-{(wandb_files / 'wandb-id').read_text()}.wandb")
    content = written.read_bytes()
    for name in (b"step/loss", b"optimizer_step", b"results/test/adapted/wer", b"clips"):
        assert name in content
    (terms,) = written.parent.glob("files/media/table/terms*.json")
    assert json.loads(terms.read_text())["data"][0] == ["naïve", 0.123456]
    assert len(list(written.parent.glob("files/media/audio/**/*.wav"))) == 1
    assert f"wandb sync {wandb_files}/wandb/offline-run-*" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_resumed_run_is_one_run_on_the_server(mode: str, wandb_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped training, its continuation and the results: sent at once, or later by `wandb sync`."""
    import wandb

    server = WandbServer()
    for name, value in (("WANDB_MODE", mode), ("WANDB_BASE_URL", server.url), ("WANDB_API_KEY", KEY)):
        monkeypatch.setenv(name, value)
    segment(wandb_files, ["wandb"], None, 1, 3)
    segment(wandb_files, ["wandb"], 3, 4, 5)
    trackers = open_trackers(["wandb"], wandb_files, "run", {}, 5)
    call_each(trackers, lambda tracker: tracker.log_results(RESULTS, 5))
    assert trackers
    close_trackers(trackers)
    wandb.teardown()
    if mode == "offline":
        assert not server.runs
        monkeypatch.delenv("WANDB_MODE")
        runs = sorted(map(str, wandb_files.glob("wandb/offline-run-*")))
        assert len(runs) == 3
        program = [sys.executable, "-m", "wandb", "sync", *runs]
        subprocess.run(program, check=True, timeout=100, stdout=subprocess.DEVNULL, cwd=wandb_files)
    (run,) = server.runs.values()
    assert run.name == (wandb_files / "wandb-id").read_text()
    assert [row["optimizer_step"] for row in run.history if "step/loss" in row] == [1, 2, 3, 4, 5]
    assert run.summary["results/test/adapted/wer"] == 0.25 and run.summary["clips"]["_type"] == "table-file"
    assert any(name.endswith(".wav") for name in run.files) and any("table/terms" in name for name in run.files)
    server.close()


@pytest.mark.slow
def test_a_server_that_is_down_does_not_stop_the_run(
    wandb_files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    server = WandbServer()
    server.close()
    for name, value in (("WANDB_MODE", "online"), ("WANDB_BASE_URL", server.url), ("WANDB_API_KEY", KEY)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    trackers = open_trackers(["wandb"], wandb_files, "run", {}, None)
    call_each(trackers, lambda tracker: tracker.log({"step/loss": 0.5}, 1))
    close_trackers(trackers)
    wandb.teardown()
    assert not trackers and "wandb is off for this run" in caplog.text
