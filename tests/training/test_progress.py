"""The progress display: the live line on a terminal, and plain log lines otherwise."""

import logging
import math
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from finetune.training.callbacks import StepRecord
from finetune.training.progress import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def take_steps(progress: Progress, clock: Clock, durations: list[float], loss: float) -> None:
    """Steps of 90 s of audio that take `durations` seconds each."""
    for duration in durations:
        clock.now += duration
        progress.on_step(StepRecord(1, 1, loss, 1.0, 2e-4, audio_seconds=90.0, padding=0.25))


def test_plain_lines_come_at_most_every_30_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), closing(Progress(1000, 0, 2, False, clock)) as progress:
        take_steps(progress, clock, [1.0] * 100, 3.0)
    assert [record.getMessage().split("  ")[1] for record in caplog.records] == [
        "step 1/1000",
        "step 31/1000",
        "step 61/1000",
        "step 91/1000",
    ]
    line = caplog.records[-1].getMessage()
    assert line.startswith(
        "epoch 1/2  step 91/1000  0:15:09 left  loss 3.000  lr 2.0e-04  90.0 s audio/s  25 % padding  "
    )
    assert float(line.split("  ")[-1].removesuffix(" GiB")) >= 0


def test_a_resumed_run_shows_all_steps_and_the_remaining_time(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), closing(Progress(1000, 900, 2, False, clock)) as progress:
        clock.now += 500
        progress.on_message("base model: valid WER 50 %")
        take_steps(progress, clock, [40.0] * 2, 3.0)
    assert "step 902/1000  1:05:20 left" in caplog.text


def test_validation_time_does_not_count_in_the_speed(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), closing(Progress(1000, 0, 2, False, clock)) as progress:
        take_steps(progress, clock, [2.0] * 5, 3.0)
        clock.now += 500
        progress.on_message("epoch 1/2  valid WER 10 %")
        take_steps(progress, clock, [2.0] * 5, 3.0)
    assert caplog.records[1].getMessage() == "epoch 1/2  valid WER 10 %"
    assert "45.0 s audio/s" in caplog.records[2].getMessage()


def test_nan_and_infinite_losses_are_not_averaged(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), closing(Progress(10, 0, 1, False, clock)) as progress:
        take_steps(progress, clock, [40.0], math.nan)
        take_steps(progress, clock, [40.0], 2.0)
        take_steps(progress, clock, [40.0], math.inf)
        take_steps(progress, clock, [40.0], 4.0)
    shown = [record.getMessage().split("  ")[3] for record in caplog.records]
    assert shown == ["loss nan", "loss 2.000", "loss 2.000", "loss 2.100"]


@contextmanager
def logged() -> Iterator[None]:
    """Logging as the command sets it up, to the current standard output."""
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stdout)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_a_terminal_shows_one_live_line_and_log_lines_above_it(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TERM", "xterm")
    clock, before = Clock(), sys.stdout
    with logged():
        with closing(Progress(100, 0, 2, True, clock)) as progress:
            take_steps(progress, clock, [0.125] * 20, 3.0)
            progress.on_message("[epoch] 1/2")
            logging.getLogger("finetune").warning("a warning")
            take_steps(progress, clock, [0.6], math.nan)
        assert sys.stdout is before
        logging.getLogger("finetune").info("after")
    out = capsys.readouterr().out
    assert "17/100" in out and "20/100" not in out and "21/100" in out and "% padding" in " ".join(out.split())
    for line in ("[epoch] 1/2", "a warning", "after"):  # each on its own line, after the live line is erased
        assert f"\x1b[2K{line}\n" in out
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h") == 1  # the cursor is visible again


def test_cursor_and_logging_are_restored_after_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    before = sys.stdout
    with logged():
        with pytest.raises(RuntimeError, match="training"), closing(Progress(100, 0, 2, True, Clock())):
            raise RuntimeError("training failed")
        assert sys.stdout is before
        assert capsys.readouterr().out.count("\x1b[?25h") == 1
        logging.getLogger("finetune").info("after")
    assert capsys.readouterr().out == "after\n"


def test_without_rich_a_terminal_gets_plain_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    clock = Clock()
    with caplog.at_level(logging.INFO), closing(Progress(10, 0, 1, True, clock)) as progress:
        take_steps(progress, clock, [1.0] * 10, 3.0)
    assert len(caplog.records) == 1
