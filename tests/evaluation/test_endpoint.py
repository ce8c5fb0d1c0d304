"""A transcription endpoint on a local socket: the request, retries, errors, and that the key stays secret."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import soundfile

from finetune.cli.main import main
from finetune.core.errors import ModelError
from finetune.core.openai_client import KEY, URL, Retries
from finetune.data.manifest import Utterance
from finetune.evaluation import endpoint

SECRET = "sk-very-secret-0123456789"
Response = tuple[int, dict[str, str], bytes]  # status, headers, body


class Server:
    """Responds with `respond(number of the request)` and records the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.respond: Callable[[int], Response] = lambda number: (
            200,
            {},
            json.dumps({"text": f"clip {number}"}).encode(),
        )
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers), body))
                code, headers, data = outer.respond(len(outer.requests) - 1)
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that closed the connection
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    monkeypatch.setenv(URL, running.url)
    monkeypatch.setenv(KEY, SECRET)
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def clips(tmp_path: Path) -> list[Utterance]:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    return [
        Utterance("u0", str(path), 0.5, "clip 0", offset=1.0, language="en-US"),
        Utterance("u1", str(path), 2.0, "clip 1"),
    ]


def test_the_request_follows_the_openai_api(server: Server, clips: list[Utterance]) -> None:
    assert endpoint.transcribe("org/model", clips[:1]) == [endpoint.Reply("clip 0", pytest.approx(0, abs=5))]
    path, headers, body = server.requests[0]
    assert path == "/v1/audio/transcriptions" and headers["Authorization"] == f"Bearer {SECRET}"
    for name, value in (("model", "org/model"), ("response_format", "json"), ("temperature", "0"), ("language", "en")):
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body
    wav = body[body.index(b"RIFF") :]
    assert int.from_bytes(wav[24:28], "little") == 16_000 and 16_000 <= len(wav) < 17_000  # half a second


def test_without_a_key_there_is_no_authorization_header(
    server: Server, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY)
    endpoint.transcribe("m", clips)
    assert all("Authorization" not in headers for _, headers, _ in server.requests)


@pytest.mark.parametrize(
    "code, headers, expected",
    [
        (429, {"Retry-After": "7"}, [7.0, 7.0]),
        (503, {}, [1.0, 2.0]),
        (429, {"Retry-After": "9000"}, [60.0, 60.0]),
        (500, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, [1.0, 2.0]),
    ],
)
def test_temporary_errors_are_retried(
    server: Server, clips: list[Utterance], code: int, headers: dict[str, str], expected: list[float]
) -> None:
    server.respond = lambda number: (code, headers, b"busy") if number < 2 else (200, {}, b'{"text": "done"}')
    pauses: list[float] = []
    assert endpoint.transcribe("m", clips[:1], Retries(sleep=pauses.append))[0].text == "done"
    assert pauses == expected


def test_a_failed_clip_has_no_text_and_does_not_stop_the_others(server: Server, clips: list[Utterance]) -> None:
    server.respond = lambda number: (
        (200, {}, b'{"text": ""}')
        if len(server.requests[number][2]) < 40_000
        else (413, {}, f"too large for {SECRET}".encode())
    )
    small, large = endpoint.transcribe("m", clips)
    assert small.text == "" and large.text is None
    assert large.error == "HTTP 413: too large for ***" and len(server.requests) == 2  # not retried


def test_retries_stop_after_five_attempts(server: Server, clips: list[Utterance]) -> None:
    pauses: list[float] = []
    server.respond = lambda _: (500, {}, b"<h1>oh\n no</h1>" + b"x" * 5000)
    reply = endpoint.transcribe("m", clips[:1], Retries(sleep=pauses.append))[0]
    assert reply.text is None and reply.error.startswith("HTTP 500: <h1>oh no</h1>x") and len(reply.error) < 250
    assert len(server.requests) == Retries().attempts == 5 and pauses == [1.0, 2.0, 4.0, 8.0]


def test_a_timeout_is_an_error_of_the_clip(server: Server, clips: list[Utterance]) -> None:
    retries = Retries(attempts=2, timeout=0.2, sleep=lambda _: None)
    gate = Event()
    server.respond = lambda _: (200, {}, b"late" if gate.wait(2) else b"")
    assert endpoint.transcribe("m", clips[:1], retries)[0].error == "ReadTimeout (2 attempts)"
    gate.set()


@pytest.mark.parametrize("data", [b"", b"not json", b"[]", b'{"text": null}', b'{"error": "x"}'])
def test_a_response_without_text_is_an_error_of_the_clip(server: Server, clips: list[Utterance], data: bytes) -> None:
    server.respond = lambda _: (200, {}, data)
    reply = endpoint.transcribe("m", clips[:1])[0]
    assert reply.text is None and "the response has no `text`" in reply.error


@pytest.mark.parametrize("code", [401, 403, 404])
def test_fatal_errors_stop_at_the_first_request(server: Server, clips: list[Utterance], code: int) -> None:
    server.respond = lambda _: (code, {}, f'{{"error": "Incorrect API key provided: {SECRET}"}}'.encode())
    with pytest.raises(ModelError, match=rf"openai:m at 127\.0\.0\.1: HTTP {code}.*provided: \*\*\*"):
        endpoint.transcribe("m", clips * 20)
    assert len(server.requests) == 1


def test_an_unreachable_endpoint_is_an_error(clips: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setenv(URL, "http://user:hunter2@127.0.0.1:9/v1")
    with pytest.raises(ModelError, match="cannot be reached") as raised:
        endpoint.transcribe("m", clips, Retries(sleep=pauses.append))
    assert SECRET not in str(raised.value) and "hunter2" not in str(raised.value)
    assert pauses == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    "url, key, message",
    [
        ("", "", "OPENAI_API_KEY is not set"),
        ("ftp://host/v1", SECRET, "must begin with http"),
        ("host", SECRET, "must begin with http"),
        ("http://", SECRET, "must begin with http"),
        ("http://h:port/", SECRET, "not a valid URL"),
        ("http://h", SECRET + "\x1b\n", "characters that are not valid in a key"),
        ("http://h", "schlüssel", "characters that are not valid in a key"),
    ],
)
def test_invalid_url_or_key(
    monkeypatch: pytest.MonkeyPatch, clips: list[Utterance], url: str, key: str, message: str
) -> None:
    monkeypatch.setenv(URL, url)
    monkeypatch.setenv(KEY, key)
    with pytest.raises(ModelError, match=message) as raised:
        endpoint.transcribe("m", clips)
    assert SECRET not in str(raised.value) and "schl" not in str(raised.value)


def test_the_key_is_not_in_outputs_or_files(
    server: Server,
    clips: list[Utterance],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [
        {
            "id": clip.id,
            "audio_filepath": clip.audio_filepath,
            "duration": clip.duration,
            "offset": clip.offset,
            "text": clip.text,
            "pred_text": "x",
        }
        for clip in clips
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server.respond = lambda number: (200, {}, b'{"text": "clip 0"}') if number else (400, {}, SECRET.encode())
    args = [
        "compare",
        str(tmp_path / "t.jsonl"),
        "openai:m",
        "--manifest",
        str(tmp_path / "t.jsonl"),
        "--json",
        str(tmp_path / "o.json"),
    ]
    with caplog.at_level(logging.DEBUG):
        assert main(args) == 0
    written = (tmp_path / "o.json").read_text()
    assert "HTTP 400: ***" in written and json.loads(written)["clips"] == 1
    for text in (written, *capsys.readouterr(), caplog.text):
        assert SECRET not in text


def test_an_endpoint_that_stops_working_costs_three_clips(server: Server, clips: list[Utterance]) -> None:
    """The second clip has five attempts, the next two have one; the rest is not sent, and the first text is kept."""
    many = [Utterance(f"u{n}", clips[1].audio_filepath, 2.0, "clip") for n in range(40)]
    server.respond = lambda number: (200, {}, b'{"text": "done"}') if number == 0 else (503, {}, b"gone")
    pauses: list[float] = []
    replies = endpoint.transcribe("m", many, Retries(sleep=pauses.append))
    assert replies[0].text == "done" and all(reply.text is None for reply in replies[1:])
    sent = [reply for reply in replies[1:] if not reply.error.startswith("not sent")]
    assert len(sent) <= endpoint.MAX_FAILURES + endpoint.PARALLEL_REQUESTS
    assert re.fullmatch(r"not sent: \d clips in a row failed, with HTTP 503: gone", replies[-1].error)
    assert len(server.requests) <= 1 + 5 * len(sent)


def test_single_failures_do_not_stop_the_endpoint(server: Server, clips: list[Utterance]) -> None:
    """Replies can be out of order within the four parallel requests; five successes lie between two failures."""
    many = [Utterance(f"u{n}", clips[1].audio_filepath, 2.0, "clip") for n in range(24)]
    server.respond = lambda number: (413, {}, b"large") if number % 6 == 5 else (200, {}, b'{"text": "done"}')
    replies = endpoint.transcribe("m", many)
    assert len(server.requests) == 24 and sum(reply.text == "done" for reply in replies) == 20
