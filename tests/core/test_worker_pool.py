"""Workers as threads and processes: results, errors, processes that die, and no process is left behind."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from finetune.core.errors import DataError
from finetune.core.worker_pool import WorkerDied, WorkerPool, available_cores


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def fail(message: str) -> None:
    raise DataError(message)


def divide(number: int) -> float:
    return 1 / number


def die_once(path: Path) -> str:
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    return "done"


def deprecate(text: str) -> None:
    for category in (FutureWarning, UserWarning):
        warnings.warn(f"{category.__name__} {text}", category, stacklevel=1)


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("quota", "limit"), [("100000 100000", 1), ("20000 100000", 1), ("max 100000", None), ("", None)]
)
def test_the_limit_of_a_container_counts(tmp_path: Path, quota: str, limit: int | None) -> None:
    cores = available_cores(tmp_path / "none")
    assert cores == len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cores(tmp_path / "cpu.max") == (limit or cores)
    (tmp_path / "cpu.max").write_text("99000000 100000")
    assert available_cores(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize("processes", [False, True])
def test_results_and_errors(processes: bool) -> None:
    with WorkerPool(2, processes) as pool:
        results = [future.result() for future in [pool.submit(square, number) for number in range(20)]]
        assert [result for result, _ in results] == [number * number for number in range(20)]
        assert (os.getpid() in {pid for _, pid in results}) == (not processes)
        with pytest.raises(DataError, match="^the reason$"):
            pool.submit(fail, "the reason").result()
        with pytest.raises(ZeroDivisionError):
            pool.submit(divide, 0).result()
        assert pool.submit(square, 3).result()[0] == 9


def test_libraries_that_warn_about_each_other_are_silent_in_a_process(capfd: pytest.CaptureFixture[str]) -> None:
    """Deprecated names are nothing that a user can act on; other warnings are printed."""
    with WorkerPool(1, True) as pool:
        pool.submit(deprecate, "of a library").result()
    printed = capfd.readouterr().err
    assert "UserWarning of a library" in printed and "FutureWarning of a library" not in printed


def test_a_process_that_dies_is_replaced_once(tmp_path: Path) -> None:
    with WorkerPool(1, True) as pool:
        assert pool.submit(die_once, tmp_path / "died").result() == "done"
        with pytest.raises(WorkerDied, match="a worker process ended: SIGKILL, usually because memory was full"):
            pool.submit(die, 1).result()
        assert pool.submit(square, 3).result()[0] == 9


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """Even if it is killed, and if its script has no guard for the main module."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time, finetune.core.worker_pool as w\n"
        "pool = w.WorkerPool(1, True)\n"
        "print(pool.submit(os.path.realpath, '.').result() and pool._children[0]._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()
