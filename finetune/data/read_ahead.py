"""Fetches the bytes of the next clips while the current ones are decoded: members of archives and remote files.

Threads read; files of this machine are left to the decoder. Each process makes its own: threads and connections do not
survive a fork.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self

from finetune.data.audio_source import AudioSource, audio_source
from finetune.data.byte_range import is_fetched, is_url, parse_byte_range

THREADS = 16  # reads at a time
MAX_CLIPS = 128  # that are fetched and not used yet
MAX_BYTES = 64 << 20  # of these, where sizes are known
TYPICAL = 256 << 10  # bytes of a remote file before its size is known


class _Fetch:
    """The source of a path: not started, fetched by a thread, or used."""

    def __init__(self, path: str) -> None:
        member = parse_byte_range(path)
        self.path, self.size, self.is_started, self.is_used = path, member.length if member else TYPICAL, False, False
        self.future = Future[AudioSource]()


class ReadAhead:
    """Fetches sources in the order in which they are added.

    Args:
        max_clips, max_bytes: limits of what is fetched and not used yet.
    """

    def __init__(self, max_clips: int = MAX_CLIPS, max_bytes: int = MAX_BYTES) -> None:
        self._max_clips, self._max_bytes = max_clips, max_bytes
        self._next = deque[_Fetch]()  # not started
        self._by_path = dict[str, deque[_Fetch]]()  # not used
        self._num_held = self._num_bytes = 0
        self._started = SimpleQueue[_Fetch | None]()
        self._threads = list[Thread]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, paths: Iterable[str]) -> None:
        """Adds clips that will be used, in this order. A clip that is used twice is added twice."""
        for path in filter(is_fetched, paths):
            fetch = _Fetch(path)
            self._next.append(fetch)
            self._by_path.setdefault(path, deque()).append(fetch)
        self._start()

    def source(self, path: str) -> AudioSource | None:
        """The source of a clip, which is read now if it was not added before; None if it is a file of this machine.

        Raises:
            DataError: it cannot be read.
        """
        if not is_fetched(path):
            return None
        fetches = self._by_path.get(path)
        if not fetches:
            return audio_source(path)
        fetch = fetches.popleft()
        if not fetches:
            del self._by_path[path]
        fetch.is_used = True
        if not fetch.is_started:
            return audio_source(path)
        try:
            return fetch.future.result()
        finally:
            self._num_held -= 1
            self._num_bytes -= fetch.size
            self._start()

    def close(self) -> None:
        """Ends the threads; one that reads ends after that."""
        while not self._started.empty():
            self._started.get()
        for _ in self._threads:
            self._started.put(None)

    def _start(self) -> None:
        while self._next and self._num_held < self._max_clips and self._num_bytes < self._max_bytes:
            fetch = self._next.popleft()
            if fetch.is_used:
                continue
            if len(self._threads) < THREADS:
                self._threads.append(Thread(target=self._work, daemon=True))  # does not delay the end of the process
                self._threads[-1].start()
            fetch.is_started = True
            self._num_held += 1
            self._num_bytes += fetch.size
            self._started.put(fetch)

    def _work(self) -> None:
        while (fetch := self._started.get()) is not None:
            try:
                fetch.future.set_result(audio_source(fetch.path))
            except BaseException as error:
                fetch.future.set_exception(error)


def fetch_all(paths: Sequence[str]) -> list[AudioSource]:
    """The sources of some files; remote ones are read at the same time. Raises DataError for the first that fails."""
    with ReadAhead(max_clips=len(paths), max_bytes=1 << 62) as ahead:
        if sum(map(is_url, paths)) > 1:
            ahead.add(paths)
        return [ahead.source(path) or audio_source(path) for path in paths]
