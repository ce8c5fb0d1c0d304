"""Clips are fetched before they are used, in order, with bounded memory; failures belong to their clip."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.loopback import Loopback, serve
from finetune.core.errors import DataError
from finetune.data.read_ahead import MAX_CLIPS, ReadAhead, fetch_all

COUNT = 300


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Loopback]:
    for number in range(COUNT):
        (tmp_path / f"{number}.bin").write_bytes(b"%d" % number)
    with serve(tmp_path) as state:
        yield state


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.005)


def test_sources_are_fetched_before_they_are_used(server: Loopback, tmp_path: Path) -> None:
    local = str(tmp_path / "0.bin")
    paths = [f"{server.url}/{number}.bin" if number % 3 else local for number in range(COUNT)]
    with ReadAhead() as ahead:
        ahead.add(paths)
        wait_until(lambda: len(server.requests) == MAX_CLIPS)
        for number, path in enumerate(paths):
            assert len(server.requests) <= MAX_CLIPS + number
            source = ahead.source(path)
            if number % 3:
                assert source is not None and source.open().read() == b"%d" % number
            else:
                assert source is None
    assert len(server.requests) == 2 * COUNT // 3


def test_waiting_clips_have_a_limit_of_bytes(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(60_000))
    members = [f"{server.url}/a.tar::{number}?bytes={number}000-{number}999" for number in range(50)]
    with ReadAhead(max_bytes=10_000) as ahead:
        ahead.add(members)
        for number, member in enumerate(members):
            time.sleep(0.01 * (number < 3))
            assert len(server.requests) <= number + 10
            source = ahead.source(member)
            assert source is not None and source.size == 1000
    with ReadAhead(max_bytes=1) as ahead:  # one clip is always fetched
        ahead.add(members[:2])
        wait_until(lambda: len(server.requests) == 51)
        assert [source.size for member in members[:2] if (source := ahead.source(member))] == [1000, 1000]


def test_clips_in_another_order_are_read_too(server: Loopback) -> None:
    paths = [f"{server.url}/{number}.bin" for number in range(10)]
    with ReadAhead(max_clips=2) as ahead:
        ahead.add([*paths, paths[3]])
        for number in [9, 3, 0, 8, 1, 2, 3, 7, 4, 5, 6, 3, 9]:
            source = ahead.source(paths[number])
            assert source is not None and source.open().read() == b"%d" % number
    assert not ahead._next and not ahead._by_path and ahead._num_held == ahead._num_bytes == 0


def test_an_error_belongs_to_its_clip_and_the_threads_end(server: Loopback) -> None:
    paths = [f"{server.url}/{number}.bin" for number in range(20)]
    paths[7] = f"{server.url}/none.bin"
    with ReadAhead() as ahead:
        ahead.add(paths)
        for path in paths[:10]:
            if path == paths[7]:
                with pytest.raises(DataError, match=r"none.bin: no such file"):
                    ahead.source(path)
            else:
                assert ahead.source(path) is not None
    assert ahead._threads
    for thread in ahead._threads:
        thread.join(5)
        assert not thread.is_alive()


def test_latency_is_paid_once_for_many_clips(server: Loopback) -> None:
    server.delay = 0.05
    paths = [f"{server.url}/{number}.bin" for number in range(32)]
    started = time.monotonic()
    assert [source.size for source in fetch_all(paths)] == [1] * 10 + [2] * 22
    assert time.monotonic() - started < 32 * 0.05 * 0.75  # 0.1 s on a quiet machine
