"""Runs functions in processes or threads.

The processes are new interpreters that get pickled calls through pipes: no fork of a process with threads, and no
second import of the user's script, as `multiprocessing` needs it. They end when this process ends, however it ends.
"""

import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from finetune.core.errors import FinetuneError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2  # items for each worker that a caller submits before it uses the oldest result
_LENGTH = struct.Struct("<Q")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # one for each worker is enough


class WorkerDied(FinetuneError):
    """A worker process ended while it worked, such as by a crash in a library of C or for lack of memory."""


def available_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """The cores that this process can use.

    Args:
        quota_file: the limit of the container, as in cgroup v2: microseconds of CPU time, and in which time.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return cores


class WorkerPool:
    """Workers for `submit`; closed at the end of a `with` block.

    Args:
        workers: their number.
        processes: whether they are processes. They start at the first call.
    """

    def __init__(self, workers: int, processes: bool) -> None:
        self.workers, self._processes = workers, processes
        self._threads = ThreadPoolExecutor(workers)
        self._local = threading.local()
        self._children: list[_Child] = []
        self._closed = False

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the workers at once: Ctrl-C does not wait for their current items."""
        self._closed = True
        for child in self._children:
            child.kill()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:  # one may have started meanwhile
            child.kill()

    def submit(self, function: Callable[[Item], Result], item: Item) -> "Future[Result]":
        """Starts `function(item)` as soon as a worker is free.

        Args:
            function: defined at the top of a module, if the workers are processes.
            item: its argument.

        Returns:
            Its result or error; WorkerDied if a process ended without one, twice for this item.
        """
        return self._threads.submit(self._call, function, item)

    def _call(self, function: Callable[[Item], Result], item: Item) -> Result:
        if not self._processes:
            return function(item)
        call = pickle.dumps((function, item))
        try:
            return self._child().call(call)
        except WorkerDied:
            if self._closed:
                raise
        return self._child(new=True).call(call)

    def _child(self, new: bool = False) -> "_Child":
        """The process of this thread."""
        child: _Child | None = getattr(self._local, "child", None)
        if child is None or new:
            child = self._local.child = _Child()
            self._children.append(child)
        return child


class _Child:
    """A worker process, on the side of its parent."""

    def __init__(self) -> None:
        calls, to_child = os.pipe()
        from_child, results = os.pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment |= {name: environment.get(name, "1") for name in _THREADS}
        code = "from finetune.core.worker_pool import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::FutureWarning", "-c", code, str(calls), str(results)],  # as in cli.main
            pass_fds=(calls, results),
            stdin=subprocess.DEVNULL,
            env=environment,
        )
        os.close(calls)
        os.close(results)
        self._calls = open(to_child, "wb", buffering=0)  # noqa: SIM115 - closed by `kill`
        self._results = open(from_child, "rb")  # noqa: SIM115

    def call(self, content: bytes) -> Any:
        try:
            _write(self._calls, content)
            answer = _read(self._results)
        except (OSError, ValueError):  # ValueError: closed by `kill`
            answer = None
        if answer is None:
            raise WorkerDied(f"a worker process ended: {_reason(self._process.wait())}")
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._calls, self._results):
            pipe.close()


def serve() -> None:
    """The main function of a worker process: answers calls until its parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides
    # Without a buffer, nothing is left to write when the pipe is closed after the parent's end.
    with open(int(sys.argv[1]), "rb") as calls, open(int(sys.argv[2]), "wb", buffering=0) as results:
        while (content := _read(calls)) is not None:
            try:
                function, item = pickle.loads(content)
                answer = pickle.dumps((function(item), None))
            except Exception as error:
                answer = pickle.dumps((None, _sendable(error)))
            try:
                _write(results, answer)
            except OSError:  # the parent is gone
                return


def _sendable(error: Exception) -> Exception:
    """The error, or one with its text if it cannot be sent."""
    text = traceback.format_exc()
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    if not isinstance(error, FinetuneError):
        error.add_note(text)
    return error if type(copy) is type(error) else RuntimeError(text)


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, usually because memory was full" if name == "SIGKILL" else name


def _write(pipe: FileIO, content: bytes) -> None:
    rest = memoryview(_LENGTH.pack(len(content)) + content)
    while rest:
        rest = rest[pipe.write(rest) :]


def _read(pipe: BinaryIO) -> bytes | None:
    """The next message; None at the end of the pipe."""
    header = pipe.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    content = pipe.read(_LENGTH.unpack(header)[0])
    return content if len(content) == _LENGTH.unpack(header)[0] else None
