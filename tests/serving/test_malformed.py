"""Malformed requests: each gets a right status or a closed connection, and the server goes on."""

import io
import json
import os
import random
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import VOCABULARY
from serving_server import running

from finetune.serving.models import Models, ServedModel

CLIP = min((VOCABULARY / "audio" / "canary").glob("*.opus"), key=lambda path: path.stat().st_size).read_bytes()
PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
STATUSES = {200, 400, 404, 405, 408, 413, 415, 422}  # 200: damaged audio or odd fields that can still be used
NAMES = ["model", "language", "response_format", "temperature", "stream", "prompt", "keywords[]", "hotwords"]
NAMES += ["deadline", "languages[]", "include[]"]
NAMES += ["timestamp_granularities[]", "chunking_strategy", "target_language", "\x00", "a" * 300]
VALUES = ["", "0", "-1", "1e999", "nan", "true", "null", "[]", "{}", "en", "../../etc/passwd", "\x1b[2J", "<|audio|>"]
VALUES += [
    "\ud7ff",
    "a" * 5000,
    "a,b,c",
    "\u202e\u0000",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "%s%n",
    "🦜" * 50,
]
FILE_NAMES = ("a.wav", "../../../etc/passwd", "a\x1b[31m.wav", "C:\\x.wav", "x" * 2000, "", "é.wav", "a\r\nX-Evil: 1")
KINDS = ("noise", "body", "field", "audio", "half", "boundary", "huge", "many", "head", "chunks", "path", "part")


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    extra = "" if filename is None else f'; filename="{filename}"'
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + value + b"\r\n"


def request(path: str, body: bytes, kind: str = "multipart/form-data; boundary=B", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {size}\r\n\r\n".encode("utf-8", "replace") + body


def noise(rng: random.Random, count: int) -> bytes:
    return rng.randbytes(count)


def damaged(rng: random.Random) -> bytes:
    """Audio with changed, missing or added bytes."""
    content = bytearray(CLIP)
    for _ in range(rng.choice((1, 20, 500))):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content[: rng.choice((10, 100, len(content) // 2, len(content)))]) + noise(rng, rng.choice((0, 100)))


def malformed(kind: str, rng: random.Random) -> bytes:
    """A request of one kind, as bytes."""
    path, clip = rng.choice(PATHS), part("file", CLIP, rng.choice(FILE_NAMES[:1]))
    fields = [part(rng.choice(NAMES), rng.choice(VALUES).encode("utf-8", "replace")) for _ in range(rng.randint(1, 3))]
    end = b"--B--\r\n"
    if kind == "noise":
        return noise(rng, rng.randint(1, 2000)) + b"\r\n\r\n"
    if kind == "body":
        return request(
            path, noise(rng, rng.randint(0, 5000)), rng.choice(("multipart/form-data; boundary=B", "text/plain", ""))
        )
    if kind == "field":
        return request(path, b"".join(fields) + clip + end)
    if kind == "audio":
        return request(path, part("file", damaged(rng), rng.choice(FILE_NAMES)) + end)
    if kind == "half":
        body = clip + end
        return request(path, body[: rng.randrange(len(body))], length=len(body))
    if kind == "boundary":
        value = rng.choice(
            ("multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'C' * 300}")
        )
        return request(path, clip + end, value)
    if kind == "huge":
        return request(path, part(rng.choice(NAMES[:4]), b"a" * rng.choice((70_000, 2_000_000))) + clip + end)
    if kind == "many":
        return request(path, part("keywords[]", b"word") * rng.choice((500, 2500)) + clip + end)
    if kind == "head":
        line = rng.choice(
            (
                b"GET / HTTP/9.9",
                b"POST",
                b"POST  HTTP/1.1",
                b"\x16\x03\x01\x02",
                b"PRI * HTTP/2.0",
                b"POST / HTTP/1.1\r\nA: " + b"b" * 90_000,
            )
        )
        return (
            line + b"\r\nContent-Length: " + rng.choice((b"-1", b"1e9", b"0\r\nContent-Length: 5", b"x")) + b"\r\n\r\n"
        )
    if kind == "chunks":
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        return f"{head}Content-Type: multipart/form-data; boundary=B\r\n\r\n".encode() + rng.choice(
            (b"zz\r\nabc\r\n", b"-5\r\nabc", b"ffffffffffffffffffff\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n")
        )
    if kind == "path":
        return request(
            rng.choice(("/v1/audio/%2e%2e/%2e%2e/etc/passwd", "/v1/models/../../x", "//", "/\x7f", "/v1/audio/speech")),
            clip + end,
        )
    return request(
        path,
        rng.choice(
            (
                b"--B\r\n\r\n",
                b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n",
                part("file", CLIP, "a") * 2,
                b"--B--",
            )
        )
        + end,
    )


def send(port: int, content: bytes, ends: bool) -> bytes:
    """What the server answers before it closes; a client that `ends` closes its side after its request."""
    parts = []
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        try:
            sock.sendall(content)
            if ends:
                sock.shutdown(socket.SHUT_WR)
            while block := sock.recv(65536):
                parts.append(block)
        except (ConnectionResetError, BrokenPipeError):
            pass
    return b"".join(parts)


def check_all(served: ServedModel, count: int) -> None:
    rng = random.Random(4)
    with running(Models([served]), upload_pause=0.5, max_upload=1_500_000) as server:
        server.post(files={"file": CLIP})
        open_files = len(os.listdir("/proc/self/fd"))
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            content = malformed(kind, rng)
            answer = send(server.port, content, kind == "half")
            if not answer:
                assert kind in ("noise", "head", "half", "huge"), (kind, content[:300])
                continue
            head, _, body = answer.partition(b"\r\n\r\n")
            status = int(head.split()[1])
            assert status in STATUSES, (kind, status, content[:300], body[:300])
            assert b"x-evil" not in head.lower() and b"root:" not in body and b"\x1b" not in body
            if status != 200 and b"application/json" in head:
                error: dict[str, Any] = json.loads(body)["error"]
                assert error["message"] and {*error} == {"message", "type", "param", "code"}
        assert server.post(files={"file": CLIP}).status_code == 200
        for _ in range(300):
            if server.app.state.gate.inside == 0 and len(os.listdir("/proc/self/fd")) <= open_files + 2:
                break
            time.sleep(0.01)
        assert server.app.state.gate.inside == 0 and len(os.listdir("/proc/self/fd")) <= open_files + 2


def test_malformed_requests(served: ServedModel) -> None:
    check_all(served, 2 * len(KINDS))


@pytest.mark.slow
def test_300_malformed_requests(served: ServedModel) -> None:
    check_all(served, 300)


def post(server: Any, body: bytes, kind: str = "multipart/form-data; boundary=B") -> tuple[int, str]:
    """Status and message."""
    response = server.post(content=body, headers={"Content-Type": kind})
    return response.status_code, "" if response.status_code == 200 else response.json()["error"]["message"]


def test_much_text_is_refused(server: Any) -> None:
    end = part("file", CLIP, "a.opus") + b"--B--\r\n"
    assert post(server, part("keywords[]", b"a" * 3) * 10_000 + end)[0] == 400
    status, message = post(server, part("keywords[]", b"a" * 60_000) * 5 + end)
    assert status == 413 and "text fields" in message, "each of them is small enough"
    assert post(server, part("keywords[]", b"stent") * 100 + end)[0] == 200


def test_messages_say_what_is_wrong_with_a_form(server: Any) -> None:
    clip, end = part("file", CLIP, "a.opus"), b"--B--\r\n"
    assert post(server, part("prompt", "é".encode("latin-1")) + clip + end) == (400, "the text fields must be UTF-8")
    assert post(server, clip + part("keywords", b"stent"))[1].endswith("its last boundary is missing")
    assert post(server, clip + clip + end)[1].startswith("the multipart data cannot be read (Too many files")
    assert post(server, part("file", b"x") + clip + end) == (400, "`file` is given twice, as a file and as text")


def test_a_file_name_can_be_extended_but_not_missing(server: Any) -> None:
    """Older clients write names outside of ASCII only as `filename*`."""
    end = b"--B--\r\n"
    named = part("file", CLIP, "a.opus").replace(b'filename="a.opus"', b"filename*=UTF-8''%C3%A4.opus")
    assert b"filename*" in named and post(server, named + end)[0] == 200
    both = part("file", CLIP, "a.opus").replace(b'"a.opus"', b"\"a.opus\"; filename*=UTF-8''%C3%A4.opus")
    assert post(server, both + end)[0] == 200
    for content in (CLIP, b"\xff", bytes(200_000)):
        status, message = post(server, part("file", content) + end)
        assert status == 422 and message.startswith("`file` is text, not a file: its part of the form has no filename")


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", '"utf-16"', "punycode"])
def test_text_in_another_charset_is_refused(server: Any, charset: str) -> None:
    body = part("\\ud800", b"\\ud800") + part("file", CLIP, "a.opus") + b"--B--\r\n"
    status, message = post(server, body, f"multipart/form-data; charset={charset}; boundary=B")
    assert status == 415 and "UTF-8" in message


def test_a_header_that_states_more_audio_than_there_is(server: Any) -> None:
    wave = io.BytesIO()
    soundfile.write(wave, np.zeros(16_000), 16_000, format="WAV", subtype="PCM_16")
    wav = bytearray(wave.getvalue())
    wav[40:44] = (2 * 7200 * 16_000).to_bytes(4, "little")
    soundfile.write(flac := io.BytesIO(), np.zeros(16_000), 16_000, format="FLAC")
    head = bytearray(flac.getvalue())
    head[21:26] = (int.from_bytes(head[21:26]) >> 36 << 36 | 7200 * 16_000).to_bytes(5)
    for content in (wav, head):
        response = server.post(files={"file": bytes(content)})
        error = response.json()["error"]
        assert response.status_code == 400 and error["code"] == "invalid_audio" and "truncated" in error["message"]


def test_messages_about_audio_are_not_those_of_decoders(server: Any) -> None:
    """The file, what is wrong, what to do: without the words of libsndfile and FFmpeg."""
    soundfile.write(flac := io.BytesIO(), np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000, format="FLAC")
    encoded, again = flac.getvalue(), "copy or download it again"
    convert = f"{again}, or convert it to WAV, FLAC, MP3, Ogg, M4A or WebM"
    damaged_or_unknown = "the file is damaged or truncated, or its encoding is not supported"
    for content, problem, remedy in (
        (b"some notes " * 50, "not audio in a supported format", convert),
        (b"RIFF\x24\0\0\0WAVEfmt ", damaged_or_unknown, convert),
        (CLIP[:100], damaged_or_unknown, convert),
        (b"\0\0\0\x20ftypM4A " + bytes(100), damaged_or_unknown, convert),
        (b"\x1aE\xdf\xa3" + bytes(100), damaged_or_unknown, convert),
        (
            encoded[:9000] + bytes(9000),
            "decoding failed: the file is damaged or truncated",
            "copy or download it again",
        ),
    ):
        response = server.post(files={"file": content})
        assert response.status_code == 400
        assert response.json()["error"]["message"] == f"file: {problem}; {remedy}"


def test_uploads_leave_no_files(served: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with running(Models([served])) as server:
        large = CLIP + bytes(2_000_000)  # larger than what is kept in memory
        server.post(files={"file": large})
        assert not [*tmp_path.iterdir()]
