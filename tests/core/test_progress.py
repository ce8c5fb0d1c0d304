"""Progress of long tasks: time estimates, plain lines in a log, one live line on a terminal."""

import logging

import pytest

from finetune.core.progress import TimeLeft, advance, task


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def work(clock: Clock, durations: list[float], amount: float = 10.0) -> None:
    for duration in durations:
        clock.now += duration
        advance(amount)


def test_the_first_estimate_excludes_the_first_amount() -> None:
    """The first step takes 30 s, with the start of the workers, each other step 1 s: 98 s are left, not 1519."""
    clock = Clock()
    left = TimeLeft(clock)
    clock.now = 30
    assert left.text(1, 100) == "time left unknown"
    clock.now = 31
    assert left.text(2, 100) == "0:01:38 left"
    clock.now = 129
    assert left.text(100, 100) == "0:00:00 left" == left.text(101, 100)


def test_a_log_gets_a_line_every_30_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), task("test, base model", 1000.0, False, clock):
        work(clock, [40.0, *[2.0] * 40])
    assert [record.getMessage() for record in caplog.records] == [
        "test, base model  1 %  time left unknown",
        "test, base model  16 %  0:02:48 left",
        "test, base model  31 %  0:02:18 left",
    ]


def test_a_short_task_prints_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO), task("short", 30.0, False, clock):
        work(clock, [9.0] * 3)
    advance(1.0)  # outside a task
    assert not caplog.records


def test_a_task_inside_another_one_uses_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    clock = Clock()
    with task("outer", 100.0, True, clock):
        work(clock, [1.0])
        with task("inner", 20.0, True, clock):
            work(clock, [1.0, 1.0])
        work(clock, [1.0])
    out = capsys.readouterr().out
    assert "outer  10 %" in out and "inner  100 %  0:00:00 left" in out and "outer  20 %  0:00:24 left" in out
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h") == 1, "one live line, and the cursor is visible again"


def test_a_task_ends_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with pytest.raises(RuntimeError), task("broken", 10.0, False, clock):
        raise RuntimeError
    with caplog.at_level(logging.INFO):
        clock.now += 100
        advance(10.0)
    assert not caplog.records


def test_a_line_that_is_printed_beside_the_bar_is_not_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A transcript that is longer than the terminal is wide."""
    monkeypatch.setenv("COLUMNS", "40")
    text = " ".join(["word"] * 40)
    with task("decoding", 10.0, terminal=True):
        print(text)
    assert text in capsys.readouterr().out
