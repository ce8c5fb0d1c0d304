"""Runs a command and measures it with its child processes: wall time, CPU time, resident memory."""

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.memory import tree

INTERVAL = 0.1  # seconds between two readings of the memory


@dataclass(frozen=True)
class Cost:
    """What a command cost.

    Attributes:
        code: its exit code.
        seconds: wall time.
        cpu_seconds: of all its processes.
        resident: bytes; the largest sum of the resident memory of all its processes. Shared pages count in each.
        largest: bytes; the largest resident memory of one of its processes.
    """

    code: int
    seconds: float
    cpu_seconds: float
    resident: int
    largest: int


class MemoryOfTree:
    """Reads the resident memory of a process and its descendants until it ends."""

    def __init__(self, pid: int) -> None:
        self.pid, self.resident, self.largest = pid, 0, 0
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while sizes := [_status(pid) for pid in tree(self.pid)]:
            if not sizes[0][0]:  # it has ended
                return
            self.resident = max(self.resident, sum(now for now, _ in sizes))
            self.largest = max(self.largest, *(peak for _, peak in sizes))
            time.sleep(INTERVAL)


def _status(pid: int) -> tuple[int, int]:
    """Bytes of resident memory, now and at the peak; zeros for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0, 0
    sizes = {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines if "kB" in line)
    }
    return sizes.get("VmRSS", 0), sizes.get("VmHWM", 0)


def run_measured(
    command: Sequence[str], log: Path | None = None, stop_at: str | None = None, env: Mapping[str, str] | None = None
) -> Cost:
    """Runs a command.

    Args:
        command: the program and its arguments.
        log: a file for its output; without one, the output is that of this process.
        stop_at: sends SIGTERM once the output has this text; needs `log`.
        env: variables besides those of this process.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with open(log or os.devnull, "w", encoding="utf-8") as output:
        target = output if log else None
        process = subprocess.Popen(
            command, stdout=target, stderr=subprocess.STDOUT if log else None, env={**os.environ, **(env or {})}
        )
        memory = MemoryOfTree(process.pid)
        if stop_at and log:
            _stop(process, log, stop_at)
        code = process.wait()
    seconds = time.monotonic() - started
    memory.thread.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(code, seconds, cpu, memory.resident, memory.largest)


def _stop(process: "subprocess.Popen[bytes]", log: Path, text: str) -> None:
    """Sends SIGTERM to the process once its output has the text, unless it ends before."""
    while process.poll() is None:
        if text in log.read_text(encoding="utf-8", errors="replace"):
            process.send_signal(signal.SIGTERM)
            return
        time.sleep(INTERVAL)
