"""Runs one case in a child process with limits of time, memory and file size, and returns its outcome."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from bad.case import Case, Outcome, content_of

ROOT = Path(__file__).resolve().parents[2]
TIME_LIMIT = 60.0  # seconds
MEMORY = 4 << 30  # bytes of address space beyond those of the parent process
NOBODY = 65_534
SKIPPED = 77  # exit code of a case that cannot run here


def import_libraries() -> None:
    """Imports what the commands import, so that a forked case starts at once."""
    import importlib

    for name in (
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "jinja2",
        "finetune.cli.main",
        "finetune.pipeline",
        "finetune.api",
        "finetune.data.prepare",
        "finetune.training.trainer",
        "finetune.evaluation.evaluate",
        "finetune.evaluation.score",
        "finetune.evaluation.compare",
        "finetune.evaluation.calibrate",
        "finetune.exporting.export",
        "finetune.inference.transcribe",
        "finetune.report.write_report",
        "finetune.model.model_summary",
    ):
        importlib.import_module(name)


@dataclass
class Running:
    """A case whose process has started."""

    case: Case
    pid: int
    pipe: int
    started: float
    before: dict[Path, str]
    output: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        """Takes what the process has printed."""
        try:
            while part := os.read(self.pipe, 1 << 20):
                self.output += part[: 1 << 20]
        except BlockingIOError:
            pass


def start(case: Case) -> Running:
    """Starts a case: a fork of this process, or a new interpreter."""
    before = {path: content_of(path) for path in case.keeps}
    if os.getuid() == 0 and case.unprivileged:
        _give_to_nobody(case.folder)
    started = time.time()
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(case, writer)
    os.close(writer)
    os.set_blocking(reader, False)
    return Running(case, pid, reader, started, before)


def finished(running: Running) -> Outcome | None:
    """The outcome if the case has ended or reached its time limit, else None."""
    running.read()
    pid, status = os.waitpid(running.pid, os.WNOHANG)
    seconds = time.time() - running.started
    if pid == 0 and seconds < TIME_LIMIT:
        return None
    code: int | None = None
    if pid == 0:
        os.killpg(running.pid, signal.SIGKILL)
        os.waitpid(running.pid, 0)
    else:
        code = os.waitstatus_to_exitcode(status)
        code = 128 - code if code < 0 else code
    running.read()
    os.close(running.pipe)
    return Outcome(code, bytes(running.output), seconds)


def _give_to_nobody(folder: Path) -> None:
    os.chmod(folder, 0o777)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def _child(case: Case, output: int) -> None:
    """Becomes the case; never returns."""
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with the parent process
        for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(descriptor, target)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(case.folder)
        for name, value in case.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if case.max_file is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.max_file, case.max_file))
        if case.disk is not None:
            _mount_disk(case.folder / "runs", case.disk)
        if case.unprivileged:
            _drop_privileges()
        code = _new_interpreter(case) if case.process else _in_this_process(case)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _mount_disk(folder: Path, size: int) -> None:
    """Moves the content of a folder to a file system of `size` bytes, which only this process sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private = 0x20000, 0x44000
    folder.mkdir(exist_ok=True)
    held = folder.with_name("held")
    options = f"size={size}".encode()
    if libc.unshare(new_namespace) or libc.mount(None, b"/", None, private, None):
        os._exit(SKIPPED)
    folder.rename(held)
    folder.mkdir()
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options):
        os._exit(SKIPPED)
    shutil.copytree(held, folder, dirs_exist_ok=True)


def _drop_privileges() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    if not os.access(sys.executable, os.X_OK) or not os.access(__file__, os.R_OK):
        os._exit(SKIPPED)


def _in_this_process(case: Case) -> int:
    from finetune.cli.main import main

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    try:
        return main(list(case.argv))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def _new_interpreter(case: Case) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "finetune", *case.argv]
    if case.shell:
        command = ["bash", "-c", f'"$@" {case.shell}', "bash", *command]
    return subprocess.run(command, env=environment, check=False).returncode
