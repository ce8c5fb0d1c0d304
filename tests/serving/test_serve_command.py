"""`finetune serve` as a command: arguments, keys, the end by a signal."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import httpx
import numpy as np
import pytest
import soundfile
from command import Command

from finetune.cli.serve import PRIMITIVES, _api_keys, _leave_batch
from finetune.core.errors import DataError, RecipeError
from finetune.core.serve_options import API_KEYS
from finetune.serving.scheduler import Scheduler


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--port", "70000"], 2, "port: must be less than or equal to 65535"),
        (["--max-audio", "0"], 2, "max_audio: must be greater than 0"),
        (["--max-upload", "many"], 2, "'many' is not a size"),
        (["--api-keys", "missing"], 1, "missing: the API keys cannot be read"),
        (["--adapter", "x"], 2, "--adapter x: give NAME=DIR"),
    ],
)
def test_wrong_arguments(finetune: Command, arguments: list[str], code: int, message: str) -> None:
    result = finetune("serve", "no-model", *arguments)
    assert result.code == code and message in result.err


def test_what_would_fail_after_loading_is_found_before(finetune: Command, nano: Path, tmp_path: Path) -> None:
    adapter = ("--adapter", f"a={tmp_path}")  # no adapter, which is found after the base is loaded
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = finetune("serve", nano, *adapter, "--port", port)
        assert result.code == 2 and f"cannot listen on 127.0.0.1:{port}" in result.err
    result = finetune("serve", nano, *adapter, "--port", 0, "--corrections", "/proc/none")
    assert result.code == 1 and "/proc/none: corrections cannot be saved here" in result.err
    result = finetune("serve", nano, "--port", 0, "--adapter", "a=missing")
    assert result.code == 1 and "--adapter a=missing: no such folder" in result.err


def test_code_for_few_shapes_is_kept_unless_the_user_says_so(
    finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value = PRIMITIVES
    monkeypatch.setenv(name, "9")
    assert finetune("serve", "no-model").code == 1 and os.environ[name] == "9"
    monkeypatch.delenv(name)
    assert finetune("serve", "no-model").code == 1 and os.environ[name] == value


def test_keys_of_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("one\n\n two \n", encoding="utf-8")
    monkeypatch.setenv(API_KEYS, "three,, four")
    assert _api_keys(str(tmp_path / "keys")) == ("one", "two")
    assert _api_keys(None) == ("three", "four")
    monkeypatch.delenv(API_KEYS)
    assert _api_keys(None) == ()
    (tmp_path / "keys").write_text("\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="has no API key"):
        _api_keys(str(tmp_path / "keys"))
    with pytest.raises(DataError, match="cannot be read"):
        _api_keys(str(tmp_path))


class Busy:
    """A scheduler whose batch ends while it is joined, or does not."""

    def __init__(self, ends: bool) -> None:
        self.alive, self._ends = True, ends

    def join(self, _: float) -> None:
        self.alive = not self._ends


def test_a_batch_that_is_still_computed_does_not_abort_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    for ends in (True, False):
        _leave_batch(cast(Scheduler, Busy(ends)), 143)
    assert codes == [143]


@pytest.mark.slow
def test_a_signal_in_a_batch(nano: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noise.flac", np.random.default_rng(1).normal(0, 0.1, 16_000 * 120), 16_000)
    command = [sys.executable, "-m", "finetune", "serve", str(nano), "--port", "0", "--drain", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    url = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
    content = {"file": (tmp_path / "noise.flac").read_bytes()}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: httpx.post(f"{url}/v1/audio/transcriptions", files=content, timeout=120))
        while "finetune_waiting_windows 0.0" in httpx.get(f"{url}/metrics").text:
            assert not answer.done()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert answer.result().status_code == 503
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "terminate" not in process.stdout.read()


@pytest.mark.slow
def test_a_signal_lets_requests_finish(nano: Path, talk: Path) -> None:
    command = [sys.executable, "-m", "finetune", "serve", str(nano), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    url = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))

    def ask(_: int) -> int:
        content = {"file": talk.read_bytes()}
        return httpx.post(f"{url}/v1/audio/transcriptions", files=content, timeout=120).status_code

    assert ask(0) == 200
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(ask, number) for number in range(4)]
        while "finetune_requests_inside 4.0" not in httpx.get(f"{url}/metrics").text:
            assert not any(answer.done() for answer in answers)
        process.send_signal(signal.SIGTERM)
        assert [answer.result() for answer in answers] == [200] * 4
    assert process.wait(60) == 128 + signal.SIGTERM
