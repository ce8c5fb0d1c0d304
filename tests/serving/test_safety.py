"""Limits, keys, slow and lost clients, the end of a server: with a model that waits when the test wants it to."""

import io
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from conftest import VOCABULARY
from serving_server import Running, running

from finetune.core.errors import DataError
from finetune.core.model_limits import ModelLimits
from finetune.data.audio_readers import DecoderFile
from finetune.inference.window_batches import Result, Window
from finetune.serving.models import Models, ServedModel
from finetune.serving.uploads import Upload

SHORT = min((VOCABULARY / "audio" / "canary").glob("*.opus"), key=lambda path: path.stat().st_size)


class HeldModel(ServedModel):
    """Transcribes while `free` is set; raises `error` for windows of more than `limit` seconds."""

    free: threading.Event
    started: threading.Event
    error: Exception | None = None
    limit = 0.0
    windows = 0

    def transcribe(self, windows: Sequence[Window], batch_seconds: float) -> list[Result]:
        self.started.set()
        assert self.free.wait(30)
        if self.error and any(window.utterance.duration > self.limit for window in windows):
            raise self.error
        self.windows += len(windows)
        return super().transcribe(windows, batch_seconds)


@pytest.fixture
def held(served: ServedModel) -> HeldModel:
    model = HeldModel(served.name, served.network, served.options, served.limits)
    model.free, model.started = threading.Event(), threading.Event()
    return model


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def files(path: Path = SHORT) -> dict[str, bytes]:
    return {"file": path.read_bytes()}


def until(condition: Callable[[], bool]) -> None:
    """Waits for a state that another thread reaches."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("not reached")


def start(pool: ThreadPoolExecutor, server: Any, **arguments: Any) -> "Future[httpx.Response]":
    """A request in another thread."""
    return pool.submit(lambda: server.post(files=files(), **arguments))


def test_a_full_server_refuses_and_says_when_to_come_back(held: HeldModel, pool: ThreadPoolExecutor) -> None:
    with running(Models([held]), max_requests=2) as server:
        accepted = [start(pool, server) for _ in range(2)]
        until(lambda: server.app.state.gate.inside == 2)
        with pytest.raises(openai.RateLimitError) as error:
            server.client().audio.transcriptions.create(model="nano", file=SHORT)
        assert 1 <= int(error.value.response.headers["Retry-After"]) <= 60
        assert httpx.get(server.url + "/ready").status_code == 200, "a full server is no dead server"
        held.free.set()
        assert [response.result().status_code for response in accepted] == [200, 200]
        assert server.post(files=files()).status_code == 200
        until(lambda: server.app.state.gate.inside == 0)


def test_100_requests_at_once_are_answered_or_refused(held: HeldModel, talk: Path) -> None:
    client = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None))

    def send(number: int) -> httpx.Response:
        content = files(talk if number % 10 == 0 else SHORT)
        return client.post(f"{server.url}/v1/audio/transcriptions", files=content)

    with client, running(Models([held]), max_requests=12) as server, ThreadPoolExecutor(100) as many:
        sent = [many.submit(send, number) for number in range(100)]
        assert len([*islice(as_completed(sent, 60), 88)]) == 88, "refused at once, while 12 wait"
        held.free.set()
        answers = [request.result() for request in sent]
        assert sorted(answer.status_code for answer in answers) == [200] * 12 + [429] * 88
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status_code == 429)
        until(lambda: server.app.state.gate.inside == 0)


def test_a_request_ends_at_its_deadline(held: HeldModel) -> None:
    started = time.monotonic()
    with running(Models([held]), deadline=25.0) as server:
        response = server.post(files=files(), data={"deadline": "0.3"})
        assert response.status_code == 504 and response.headers["x-should-retry"] == "false"
        assert response.json()["error"]["code"] == "deadline"
        stream = server.post(files=files(), data={"deadline": "0.3", "stream": "true"})
        assert time.monotonic() < started + 20, "the deadline of the request is earlier than that of the server"
        assert stream.status_code == 200 and '"code": "deadline"' in stream.text, "a stream ends with its error"
        held.free.set()
    assert held.windows <= 1, "what still waited was dropped"


def test_a_client_that_goes_away_ends_its_work(held: HeldModel, pool: ThreadPoolExecutor, talk: Path) -> None:
    with running(Models([held])) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + "/v1/audio/transcriptions", files=files(talk), timeout=1.5)
        with (
            pytest.raises(httpx.ReadTimeout),
            httpx.stream(
                "POST", server.url + "/v1/audio/transcriptions", files=files(talk), data={"stream": "true"}, timeout=1.5
            ) as response,
        ):
            response.read()
        until(lambda: server.app.state.gate.inside == 0)
        held.free.set()
        assert server.post(files=files()).status_code == 200
        assert 'status="499"' in httpx.get(server.url + "/metrics").text


def test_an_upload_that_is_too_large_is_refused(held: HeldModel) -> None:
    held.free.set()
    with running(Models([held]), max_upload=20_000) as server:
        assert server.post(files=files()).status_code == 200
        error = server.post(files={"file": bytes(30_000)})
        assert error.status_code == 413 and "--max-upload" in error.json()["error"]["message"]

        def chunks() -> Iterator[bytes]:
            yield PART
            for _ in range(40):
                yield bytes(1000)

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        assert server.post(content=chunks(), headers=headers).status_code == 413, "without a stated length"


def test_audio_that_is_too_long_is_refused(held: HeldModel, tmp_path: Path) -> None:
    held.free.set()
    soundfile.write(tmp_path / "long.flac", np.zeros(16_000 * 60), 16_000)
    with running(Models([held]), max_audio=50.0) as server:
        error = server.post(files=files(tmp_path / "long.flac"))
        assert error.status_code == 413 and error.json()["error"]["code"] == "audio_too_long"
        assert server.post(files=files()).status_code == 200


def test_a_memory_error_ends_only_its_request(held: HeldModel, pool: ThreadPoolExecutor, talk: Path) -> None:
    held.error, held.limit = MemoryError(), 0.0
    with running(Models([held])) as server:
        held.free.set()
        error = server.post(files=files())
        assert error.status_code == 500 and error.json()["error"]["code"] == "out_of_memory"
        held.error = None
        assert server.post(files=files()).status_code == 200
        assert httpx.get(server.url + "/health").status_code == 200


def test_an_unexpected_error_is_no_text_for_the_client(held: HeldModel, caplog: pytest.LogCaptureFixture) -> None:
    held.error = RuntimeError("secret path")
    held.free.set()
    with running(Models([held])) as server:
        error = server.post(files=files())
    assert error.status_code == 500 and "secret" not in error.text and "secret" in caplog.text


def connect(server: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 10)


def answer(sock: socket.socket) -> bytes:
    """All that the server sends until it closes."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
HEAD = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"


def test_slow_clients_are_given_up(held: HeldModel) -> None:
    with running(Models([held]), upload_pause=0.3, upload_rate=10_000) as server:
        with connect(server) as silent, connect(server) as half, connect(server) as stuck, connect(server) as slow:
            half.sendall(HEAD)
            stuck.sendall(HEAD + b"Content-Length: 1000\r\n\r\n--x\r\n")
            slow.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + PART)
            started = time.monotonic()
            with suppress(OSError):  # until the server closes
                while time.monotonic() < started + 15:
                    slow.sendall(bytes(10))
                    time.sleep(0.05)
            assert time.monotonic() < started + 15, "a client that sends a little, again and again, is served on"
            assert answer(silent) == b"" and answer(half) == b"", "connections without a complete request line"
            assert b" 408 " in answer(stuck) and b" 408 " in answer(slow)
        with connect(server) as rest:  # the answer comes before the body, which does not end
            rest.sendall(HEAD + b"Content-Length: 100000\r\n\r\nnot multipart")
            assert b" 400 " in answer(rest)
        until(lambda: server.app.state.gate.inside == 0)
        held.free.set()
        assert server.post(files=files()).status_code == 200


def test_a_connection_is_kept_longer_than_clients_and_proxies_reuse_it(server: Running) -> None:
    """A request on a connection that the server is closing is lost: nginx reuses one for 60 s, httpx for 5 s."""
    reuse = httpx.Limits().keepalive_expiry
    assert reuse is not None and server.server.config.timeout_keep_alive > max(60, reuse)


def test_a_key_is_needed_if_there_is_one(held: HeldModel) -> None:
    held.free.set()
    with running(Models([held]), api_keys=("first-key", "sécond")) as server:
        for key in ("first-key", "sécond"):
            headers = {"Authorization": f"Bearer {key}".encode()}
            assert httpx.get(server.url + "/v1/models", headers=headers).status_code == 200
        for wrong in ({}, {"Authorization": "Bearer first"}, {"Authorization": "Basic first-key"}, {"x": "first-key"}):
            response = server.post(files=files(), headers=wrong)
            assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            server.client("first-keyx").models.list()
        for path in ("/health", "/ready", "/metrics", "/"):
            assert httpx.get(server.url + path).status_code == 200


def test_a_warning_fits_into_a_header(served: ServedModel) -> None:
    model = ServedModel(served.name, served.network, served.options, ModelLimits(instruction="write it down"))
    with running(Models([model])) as server:
        response = server.post(files=files(), data={"prompt": "é\r\nX-Evil: 1 " * 100})
        assert response.status_code == 200 and "x-evil" not in response.headers
        warning = response.headers["X-Finetune-Warning"]
        assert "'write it down' only" in warning and warning.isascii() and len(warning) == 500
        assert "X-Finetune-Warning" not in server.post(files=files(), data={"prompt": "write it down"}).headers


def test_pages_of_other_sites_are_refused(held: HeldModel) -> None:
    held.free.set()
    with running(Models([held]), allow_origin=("https://good.example",)) as server:

        def status(origin: str) -> httpx.Response:
            return server.post(files=files(), headers={"Origin": origin})

        assert status("https://evil.example").status_code == status("null").status_code == 403
        for good in (server.url, "https://good.example"):
            response = status(good)
            assert response.status_code == 200
            assert not [name for name in response.headers if name.startswith("access-control")]
        preflight = httpx.options(server.url + "/v1/audio/transcriptions", headers={"Origin": "https://evil.example"})
        assert preflight.status_code == 405


def test_a_site_whose_name_leads_to_this_machine_is_refused(held: HeldModel) -> None:
    """DNS rebinding: origin and host agree, as they do behind a proxy, which has another port."""
    held.free.set()
    with running(Models([held])) as server:

        def status(origin: str) -> int:
            headers = {"Origin": origin, "Host": origin.rpartition("/")[2]}
            return server.post(files=files(), headers=headers).status_code

        evil = f"http://evil.example:{server.port}"
        assert status(evil) == status("http://[evil") == status("http://evil:x") == 403
        for good in (f"http://localhost:{server.port}", f"http://127.0.0.1:{server.port}", "https://asr.example"):
            assert status(good) == 200
    with running(Models([held]), allow_origin=(evil,)) as server:
        assert server.post(files=files(), headers={"Origin": evil}).status_code == 200


def test_an_upload_that_is_closed_while_it_is_decoded() -> None:
    """Decoders call back into Python, where other errors than DataError are printed with their stack."""
    upload = Upload(io.BytesIO(b"RIFF"))
    file = DecoderFile(upload.open())
    upload.close()
    assert file.read(4) == b""
    with pytest.raises(DataError, match="has ended"):
        file.check()


def test_no_text_is_logged_unless_asked(held: HeldModel, caplog: pytest.LogCaptureFixture) -> None:
    held.free.set()
    caplog.set_level(logging.DEBUG)
    for log_text in (False, True):
        caplog.clear()
        with running(Models([held]), log_text=log_text) as server:
            data = {"keywords[]": "amoxicillin"}
            text = server.post(files={"file": ("patient.wav", SHORT.read_bytes())}, data=data).json()["text"]
        ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("finetune"))
        assert text and (text in ours) == log_text
        assert "200 nano" in ours and "amoxicillin" not in ours and "patient" not in ours


def test_started_requests_finish_after_the_signal(held: HeldModel, pool: ThreadPoolExecutor) -> None:
    with running(Models([held]), drain=20.0) as server:
        started = start(pool, server)
        until(held.started.is_set)
        server.server.should_exit = True
        until(lambda: server.app.state.gate.draining)
        held.free.set()
        assert started.result().status_code == 200
        server.thread.join(20)
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url + "/ready")


def test_requests_that_do_not_finish_in_time_are_told(held: HeldModel, pool: ThreadPoolExecutor) -> None:
    with running(Models([held]), drain=0.3) as server:
        plain, stream = start(pool, server), start(pool, server, data={"stream": "true"})
        until(lambda: server.app.state.gate.inside == 2)
        until(held.started.is_set)
        time.sleep(0.2)
        server.server.should_exit = True
        assert plain.result().status_code == 503 and plain.result().json()["error"]["code"] == "shutting_down"
        assert '"code": "shutting_down"' in stream.result().text
        held.free.set()
