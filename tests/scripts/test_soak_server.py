"""`scripts/soak_server.py`: memory, lost requests, the rate that follows the server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest
from command import noise
from transcription_server import Answer, Request, TranscriptionServer

from soak_server import Soak, growth, main, resident


@pytest.fixture
def server() -> Iterator[TranscriptionServer]:
    server = TranscriptionServer()
    yield server
    server.close()


def soak(server: TranscriptionServer, folder: Path, *more: str, pid: int | None = None) -> int:
    clip = noise(folder / "clip.wav", 0.2)
    short = ("--minutes", "0.008", "--rate", "40", "--slice", "0.2", "--every", "0.05", "--limit", "0.5")
    return main([server.url, str(clip), "--pid", str(pid or os.getpid()), *short, *more])


def fails_later(answer: Answer) -> Callable[[Request], Answer]:
    """The third request is refused, which ends the warm-up, and the eleventh gets this answer."""
    numbers = count(1)
    answers = {3: Answer(429, {"error": {"message": "full"}}), 11: answer}
    return lambda _: answers.get(next(numbers), Answer())


def test_a_server_that_answers_passes(
    server: TranscriptionServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.respond = fails_later(Answer())
    assert soak(server, tmp_path) == 0
    out = capsys.readouterr().out
    assert "0 refused" in out and "MB at first" in out and len(server.requests) > 12


@pytest.mark.parametrize("status", [500, 503])
def test_a_lost_request_fails(
    server: TranscriptionServer, tmp_path: Path, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.respond = fails_later(Answer(status, {"error": {"message": "broken"}}))
    assert soak(server, tmp_path) == 1
    assert f"failed: 1 x HTTP {status}: broken" in capsys.readouterr().out


def test_a_refused_request_is_counted_apart(
    server: TranscriptionServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.respond = fails_later(Answer(429, {"error": {"message": "full"}}))
    assert soak(server, tmp_path) == 0
    assert "1 refused" in capsys.readouterr().out


def test_different_texts_fail(server: TranscriptionServer, tmp_path: Path) -> None:
    server.respond = fails_later(Answer(body={"text": "another"}))
    assert soak(server, tmp_path) == 1


def test_growth_is_that_from_the_first_to_the_last_tenth() -> None:
    assert growth([]) == 0 and growth([100] * 40) == 0
    assert growth([100] * 10 + [500] * 80 + [104] * 10) == pytest.approx(0.04), "the peak between does not count"
    grown = Soak(requests=1, completed=1, readings=[100] * 90 + [106] * 10)
    assert grown.failures(0.07) == [] and "memory grew by 6.0%" in grown.failures(0.05)[0]


def test_the_rate_follows_the_server(server: TranscriptionServer, tmp_path: Path) -> None:
    """A server that refuses what comes within 20 ms of the request before it."""
    times = [0.0]

    def respond(_: Request) -> Answer:
        times.append(time.monotonic())
        return Answer(429, {"error": {"message": "full"}}) if times[-1] < times[-2] + 0.02 else Answer()

    server.respond = respond
    output = tmp_path / "soak.json"
    assert soak(server, tmp_path, "--json", str(output)) == 0
    written = json.loads(output.read_text(encoding="utf-8"))
    rates = written["rates"]
    assert written["refused"] and len(rates) > 1 and written["failures"] == []
    assert rates[-1] < rates[0], "each slice has refusals"
    for earlier, later in pairwise(rates):
        assert later / earlier == pytest.approx(0.8) or later / earlier == pytest.approx(1.05)


def test_a_process_that_has_ended_is_an_error(
    server: TranscriptionServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert soak(server, tmp_path, pid=ended.pid) == 1 and "has ended" in capsys.readouterr().err
    assert resident(os.getpid()) > 10_000_000
