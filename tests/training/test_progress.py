"""What a run shows while it trains: the live line of a terminal, and the plain ones."""

import logging
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from finetune.training.progress import Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def walk(progress: Progress, clock: Clock, seconds: list[float], loss: float) -> None:
    for took in seconds:
        clock.now += took
        progress.step(epoch=1, loss=loss, rate=2e-4, audio_seconds=90.0, padding=0.25)


def test_plain_lines_come_at_most_every_half_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), Progress(1000, 0, 2, False, True, clock) as progress:
        walk(progress, clock, [1.0] * 100, 3.0)
    assert [record.getMessage().split("  ")[1] for record in caplog.records] == [
        "step 1/1000",
        "step 31/1000",
        "step 61/1000",
        "step 91/1000",
    ]
    line = caplog.records[-1].getMessage()
    assert line.startswith(
        "epoch 1/2  step 91/1000  0:15:09 left  loss 3.000  rate 2.0e-04  90.0 s audio/s  25 % padding  "
    )
    assert float(line.split("  ")[-1].removesuffix(" GiB")) >= 0


def test_a_resumed_run_shows_all_steps_and_the_time_of_those_that_are_left(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), Progress(1000, 900, 2, False, True, clock) as progress:
        clock.now += 500
        progress.say("base model: valid WER 50 %")
        walk(progress, clock, [40.0] * 2, 3.0)
    assert "step 902/1000  1:05:20 left" in caplog.text


def test_an_evaluation_does_not_slow_the_audio_down(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), Progress(1000, 0, 2, False, True, clock) as progress:
        walk(progress, clock, [2.0] * 5, 3.0)
        clock.now += 500
        progress.say("epoch 1/2  valid WER 10 %")
        walk(progress, clock, [2.0] * 5, 3.0)
    assert caplog.records[1].getMessage() == "epoch 1/2  valid WER 10 %"
    assert "45.0 s audio/s" in caplog.records[2].getMessage()


def test_a_loss_that_is_no_number_does_not_spoil_the_shown_one(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), Progress(10, 0, 1, False, True, clock) as progress:
        walk(progress, clock, [40.0], math.nan)
        walk(progress, clock, [40.0], 2.0)
        walk(progress, clock, [40.0], math.inf)
        walk(progress, clock, [40.0], 4.0)
    shown = [record.getMessage().split("  ")[3] for record in caplog.records]
    assert shown == ["loss nan", "loss 2.000", "loss 2.000", "loss 2.100"]


@contextmanager
def logged() -> Iterator[None]:
    """The command's own logging, to standard output as it is now."""
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
        with Progress(100, 0, 2, True, True, clock) as progress:
            walk(progress, clock, [0.125] * 20, 3.0)
            progress.say("[epoch] 1/2")
            logging.getLogger("finetune").warning("a warning")
            walk(progress, clock, [0.6], math.nan)
        assert sys.stdout is before
        logging.getLogger("finetune").info("after")
    out = capsys.readouterr().out
    assert "17/100" in out and "20/100" not in out and "21/100" in out and "% padding" in " ".join(out.split())
    for line in ("[epoch] 1/2", "a warning", "after"):  # each on a line of its own, the live one wiped before it
        assert f"\x1b[2K{line}\n" in out
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h") == 1  # the cursor comes back


def test_the_cursor_and_the_log_come_back_after_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    before = sys.stdout
    with logged():
        with pytest.raises(RuntimeError, match="training"), Progress(100, 0, 2, True, True, Clock()):
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
    with caplog.at_level(logging.INFO), Progress(10, 0, 1, True, True, clock) as progress:
        walk(progress, clock, [1.0] * 10, 3.0)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_other_ranks_show_nothing(
    terminal: bool, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), Progress(10, 0, 1, terminal, False, clock) as progress:
        walk(progress, clock, [40.0] * 10, 3.0)
        progress.say("epoch")
    assert not caplog.records and capsys.readouterr().out == ""
