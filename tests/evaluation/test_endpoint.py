"""A transcription endpoint, asked over a socket: what is sent, what is tried again, and that the key stays secret."""

import json
import logging
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import soundfile

from finetune.cli.main import main
from finetune.core.errors import ModelError
from finetune.data.manifest import Utterance
from finetune.evaluation import endpoint

SECRET = "sk-very-secret-0123456789"
Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers with what `reply` says for the number of the request; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.reply: Callable[[int], Answer] = lambda number: (200, {}, json.dumps({"text": f"clip {number}"}).encode())
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, dict(self.headers), body))
                code, headers, data = outer.reply(len(outer.asked) - 1)
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that has gone
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", found.append)
    return found


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Iterator[Server]:
    running = Server()
    monkeypatch.setenv(endpoint.URL, running.url)
    monkeypatch.setenv(endpoint.KEY, SECRET)
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


def test_a_clip_is_sent_as_the_interface_wants_it(server: Server, clips: list[Utterance]) -> None:
    assert endpoint.transcribe("org/model", clips[:1]) == [endpoint.Reply("clip 0", pytest.approx(0, abs=5))]
    path, headers, body = server.asked[0]
    assert path == "/v1/audio/transcriptions" and headers["Authorization"] == f"Bearer {SECRET}"
    for name, value in (("model", "org/model"), ("response_format", "json"), ("temperature", "0"), ("language", "en")):
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body
    sound = body[body.index(b"RIFF") :]
    assert int.from_bytes(sound[24:28], "little") == 16_000 and 16_000 <= len(sound) < 17_000  # half a second


def test_without_a_key_none_is_sent(server: Server, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(endpoint.KEY)
    endpoint.transcribe("m", clips)
    assert all("Authorization" not in headers for _, headers, _ in server.asked)


@pytest.mark.parametrize(
    "code, headers, expected",
    [
        (429, {"Retry-After": "7"}, [7.0, 7.0]),
        (503, {}, [1.0, 2.0]),
        (429, {"Retry-After": "9000"}, [60.0, 60.0]),
        (500, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, [1.0, 2.0]),
    ],
)
def test_what_passes_is_tried_again(
    server: Server,
    clips: list[Utterance],
    pauses: list[float],
    code: int,
    headers: dict[str, str],
    expected: list[float],
) -> None:
    server.reply = lambda number: (code, headers, b"busy") if number < 2 else (200, {}, b'{"text": "heard"}')
    assert endpoint.transcribe("m", clips[:1])[0].text == "heard"
    assert pauses == expected


def test_a_clip_that_fails_is_no_silence_and_stops_no_other(server: Server, clips: list[Utterance]) -> None:
    server.reply = lambda number: (
        (200, {}, b'{"text": ""}')
        if len(server.asked[number][2]) < 40_000
        else (413, {}, f"too large for {SECRET}".encode())
    )
    small, large = endpoint.transcribe("m", clips)
    assert small.text == "" and large.text is None
    assert large.fault == "HTTP 413: too large for ***" and len(server.asked) == 2  # not asked again


def test_five_failures_are_enough(server: Server, clips: list[Utterance], pauses: list[float]) -> None:
    server.reply = lambda _: (500, {}, b"<h1>oh\n no</h1>" + b"x" * 5000)
    reply = endpoint.transcribe("m", clips[:1])[0]
    assert reply.text is None and reply.fault.startswith("HTTP 500: <h1>oh no</h1>x") and len(reply.fault) < 250
    assert len(server.asked) == endpoint.ATTEMPTS and pauses == [1.0, 2.0, 4.0, 8.0]


def test_a_slow_answer_is_a_fault(server: Server, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(endpoint, "ATTEMPTS", 2)
    gate = Event()
    server.reply = lambda _: (200, {}, b"late" if gate.wait(2) else b"")
    assert endpoint.transcribe("m", clips[:1])[0].fault == "ReadTimeout, 2 times"
    gate.set()


@pytest.mark.parametrize("data", [b"", b"not json", b"[]", b'{"text": null}', b'{"error": "x"}'])
def test_an_answer_without_text_is_a_fault(server: Server, clips: list[Utterance], data: bytes) -> None:
    server.reply = lambda _: (200, {}, data)
    reply = endpoint.transcribe("m", clips[:1])[0]
    assert reply.text is None and "an answer without `text`" in reply.fault


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refusal_stops_at_once(server: Server, clips: list[Utterance], code: int) -> None:
    server.reply = lambda _: (code, {}, f'{{"error": "Incorrect API key provided: {SECRET}"}}'.encode())
    with pytest.raises(ModelError, match=rf"openai:m at 127\.0\.0\.1: HTTP {code}.*provided: \*\*\*"):
        endpoint.transcribe("m", clips * 20)
    assert len(server.asked) == 1


def test_an_endpoint_that_is_not_there(
    clips: list[Utterance], monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setenv(endpoint.KEY, SECRET)
    monkeypatch.setenv(endpoint.URL, "http://user:hunter2@127.0.0.1:9/v1")
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        endpoint.transcribe("m", clips)
    assert SECRET not in str(caught.value) and "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url, key, message",
    [
        ("", "", "OPENAI_API_KEY is not set"),
        ("ftp://host/v1", SECRET, "must begin with http"),
        ("host", SECRET, "must begin with http"),
        ("http://", SECRET, "must begin with http"),
        ("http://h:port/", SECRET, "not an address"),
        ("http://h", SECRET + "\x1b\n", "characters that no key has"),
        ("http://h", "schlüssel", "characters that no key has"),
    ],
)
def test_settings_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, clips: list[Utterance], url: str, key: str, message: str
) -> None:
    monkeypatch.setenv(endpoint.URL, url)
    monkeypatch.setenv(endpoint.KEY, key)
    with pytest.raises(ModelError, match=message) as caught:
        endpoint.transcribe("m", clips)
    assert SECRET not in str(caught.value) and "schl" not in str(caught.value)


def test_the_key_stands_in_no_output_and_no_file(
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
    server.reply = lambda number: (200, {}, b'{"text": "clip 0"}') if number else (400, {}, SECRET.encode())
    arguments = [
        "compare",
        str(tmp_path / "t.jsonl"),
        "openai:m",
        "--manifest",
        str(tmp_path / "t.jsonl"),
        "--json",
        str(tmp_path / "o.json"),
    ]
    with caplog.at_level(logging.DEBUG):
        assert main(arguments) == 0
    written = (tmp_path / "o.json").read_text()
    assert "HTTP 400: ***" in written and json.loads(written)["clips"] == 1
    for text in (written, *capsys.readouterr(), caplog.text):
        assert SECRET not in text
