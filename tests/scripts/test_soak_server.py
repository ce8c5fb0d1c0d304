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

from finetune.data.audio import load_audio
from finetune.data.audio_source import Content
from finetune.serving.bench_plan import load_clips
from soak_requests import soak_requests
from soak_server import Soak, growth, main, resident


@pytest.fixture
def server() -> Iterator[TranscriptionServer]:
    server = TranscriptionServer()
    yield server
    server.close()


def soak(server: TranscriptionServer, folder: Path, *more: str, pid: int | None = None) -> int:
    clip = noise(folder / "clip.wav", 0.2)
    load = ("--minutes", "0.008", "--first", "40", "--slice", "0.2", "--requests", "4", "--longest", "0.5")
    memory = ("--every", "0.05", "--report", "0.1", "--limit", "0.5", "--pid", str(pid or os.getpid()))
    return main([server.url, str(clip), *load, *memory, *more])


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


def test_growth_is_that_from_the_second_to_the_last_tenth() -> None:
    assert growth([]) == growth([100]) == growth([100] * 40) == 0
    assert growth([100, 107]) == 0
    readings = [50] * 10 + [100] * 10 + [500] * 70 + [104] * 10
    assert growth(readings) == pytest.approx(0.04), "neither the warm-up nor the peak between counts"
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


def test_a_given_rate_stays(server: TranscriptionServer, tmp_path: Path) -> None:
    server.respond = fails_later(Answer(500, {"error": {"message": "broken"}}))
    output = tmp_path / "soak.json"
    assert soak(server, tmp_path, "--rate", "30", "--json", str(output)) == 1
    written = json.loads(output.read_text(encoding="utf-8"))
    assert {*written["rates"]} == {30.0} and written["ramp"] == []
    assert written["errors"] == {"HTTP 500": 1} and written["refused"] == 1


def test_a_soak_that_is_cut_leaves_its_file(server: TranscriptionServer, tmp_path: Path) -> None:
    output, seen = tmp_path / "soak.json", []

    def respond(request: Request) -> Answer:
        if output.exists():
            seen.append(json.loads(output.read_text(encoding="utf-8")))
        return Answer()

    server.respond = respond
    assert soak(server, tmp_path, "--rate", "40", "--json", str(output)) == 0
    assert seen and not any(written["complete"] for written in seen), "it is written before the end"
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["complete"] and written["states"][: len(seen[-1]["states"])] == seen[-1]["states"]
    assert seen[-1]["states"][-1]["resident"] > 10_000_000 and seen[-1]["readings"]
    completed = [state["completed"] for state in written["states"]]
    assert completed == sorted(completed) and written["states"][0]["seconds"] >= 0.1


def test_requests_differ_in_all_that_a_request_can_have(tmp_path: Path) -> None:
    clips = load_clips([noise(tmp_path / f"{name}.wav", seconds) for name, seconds in (("a", 0.3), ("b", 5.0))], 9, 0)
    requests = soak_requests(clips, ["base", "adapter"], ["one", "two", "three"], 4.0, 150, seed=1)
    again = soak_requests(clips, ["base", "adapter"], ["one", "two", "three"], 4.0, 150, seed=1)
    assert [(item.name, item.form, item.seconds) for item in requests] == [
        (item.name, item.form, item.seconds) for item in again
    ]
    assert {request.form["model"] for request in requests} == {"base", "adapter"}
    forms = {str(request.form.get("response_format") or request.form.get("stream")) for request in requests}
    assert forms == {"None", "true", "text", "srt", "vtt", "verbose_json"}
    assert {len(request.form.get("keywords[]", ())) for request in requests} == {0, 1, 2, 3}
    assert {request.content[:3] for request in requests} >= {b"RIF", b"fLa", b"Ogg"}
    assert {Path(request.name).suffix for request in requests} == {".wav", ".flac", ".ogg", ".mp3"}
    joined = [request for request in requests if request.name.startswith("a.") and request.seconds > 0.3]
    assert len(joined) > 5 and len({request.seconds for request in joined}) > 2
    assert all(request.seconds <= 4.0 for request in requests if request.name.startswith("a."))
    assert all(request.seconds == 5.0 for request in requests if request.name.startswith("b.")), "stays alone"
    for request in requests[:20]:
        wave = load_audio(Content(request.name, request.content))
        assert len(wave) / 16_000 == pytest.approx(request.seconds, abs=0.1)


def test_a_process_that_has_ended_is_an_error(
    server: TranscriptionServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert soak(server, tmp_path, pid=ended.pid) == 1 and "has ended" in capsys.readouterr().err
    assert resident(os.getpid()) > 10_000_000
