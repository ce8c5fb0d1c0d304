"""Byte ranges of remote files: retries, servers without ranges, and errors in one sentence."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from bench.loopback import Loopback, serve
from finetune.core.errors import DataError
from finetune.data.remote import RemoteState, read_range, remote_state

CONTENT = bytes(range(256)) * 40
FAST = (0.0, 0.0, 0.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Loopback]:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with serve(tmp_path) as state:
        yield state


def test_a_range_is_one_request_on_a_connection_that_stays_open(server: Loopback) -> None:
    url = f"{server.url}/a.bin"
    assert read_range(url, 3, 9) == CONTENT[3:9]
    assert read_range(url, 10_000, 99_999) == CONTENT[10_000:]  # fewer at the end
    assert read_range(url, 99_999, 100_000) == b""
    assert server.requests[0] == ("/a.bin", "bytes=3-8") and len(server.requests) == 3
    assert server.connections == 1
    assert remote_state(url) == RemoteState(len(CONTENT), "1")


def test_a_server_that_ignores_ranges_gives_the_same_bytes(server: Loopback) -> None:
    server.ranges = False
    assert read_range(f"{server.url}/a.bin", 300, 1000) == CONTENT[300:1000]
    assert remote_state(f"{server.url}/a.bin").size == len(CONTENT)


def test_a_range_far_inside_a_file_needs_a_server_with_ranges(server: Loopback) -> None:
    server.ranges = False
    with pytest.raises(DataError, match="does not support ranges"):
        read_range(f"{server.url}/a.bin", 1 << 30, (1 << 30) + 1)


def test_failed_reads_are_tried_again(server: Loopback) -> None:
    server.fail_every = 3
    url = f"{server.url}/a.bin"
    assert [read_range(url, at, at + 5, delays=FAST) for at in range(20)] == [CONTENT[at : at + 5] for at in range(20)]
    assert len(server.requests) > 26
    server.fail_every, server.requests[:] = 1, []
    with pytest.raises(DataError, match=r"^clip 7: cannot be read after 4 attempts \(.*\); check the network"):
        read_range(url, 0, 5, "clip 7", FAST)
    assert len(server.requests) == 4


def test_a_missing_file_is_asked_for_once(server: Loopback) -> None:
    with pytest.raises(DataError, match=r"/none.bin: no such file"):
        read_range(f"{server.url}/none.bin", 0, 5, delays=FAST)
    assert len(server.requests) == 1


def test_an_unreachable_host_is_tried_twice() -> None:
    with serve(Path()) as state:
        url = f"{state.url}/a.bin"
    with pytest.raises(DataError, match=r"after 2 attempts \(ConnectionRefusedError: .*refused\)"):
        read_range(url, 0, 5)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/a.wav", "s3:// needs a package: pip install s3fs"),
        ("gs://bucket/a.wav", "gs:// needs a package: pip install gcsfs"),
        ("nonsense://a.wav", "nonsense:// is not a protocol that fsspec knows"),
        ("memory://test_remote/none.wav", "no such file"),
        ("memory://test_remote", "no such file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(url: str, message: str) -> None:
    fsspec.filesystem("memory").pipe("/test_remote/a.bin", CONTENT)
    for read in (lambda: read_range(url, 0, 5), lambda: remote_state(url)):
        with pytest.raises(DataError) as error:
            read()
        assert str(error.value) == f"{url}: {message}"


def test_a_process_has_its_own_connection_after_fork(server: Loopback) -> None:
    url = f"{server.url}/a.bin"
    read_range(url, 0, 5)
    child = os.fork()
    if not child:
        os._exit(read_range(url, 5, 10) != CONTENT[5:10])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_range(url, 10, 15) == CONTENT[10:15]
    assert server.connections == 2


def test_credentials_are_those_of_netrc_and_of_the_url(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_range(f"{server.url}/a.bin".replace("http://", "http://me:word@"), 0, 5)
    assert server.credentials == {"Basic " + base64.b64encode(b"me:word").decode()}
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    read_range(f"{server.url}/a.bin", 0, 5)
    assert "Basic " + base64.b64encode(b"other:secret").decode() in server.credentials
