"""The stage `train` of bench_data: time to the first step, a resume at step 1,000,000, the memory of each process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.memory import tree, watch_memory

ROOT = Path(__file__).parents[2]
RESUMED = 1_000_000
HEAD = (
    f"{'training':10}{'rows':>11}  {'code':8}{'ranks':>6}{'first step s':>14}{'CPU s':>9}{'PSS MB of each process':>26}"
    f"{'beyond 1,000 rows':>20}"
)


@dataclass(frozen=True)
class Start:
    """The start of a training.

    Attributes:
        stage: start (no file of an earlier training is there) or resume.
        seconds: from the start of the processes to the end of the first step.
        cpu_seconds: of all processes, until the 20th step.
        pss_mb: of each process with its data loader worker, the largest proportional set size until then.
    """

    stage: str
    rows: int
    code: str
    ranks: int
    seconds: float
    cpu_seconds: float
    pss_mb: list[float]

    def line(self, base: "Start | None") -> str:
        beyond = "" if base is None else f"{max(self.pss_mb) - max(base.pss_mb):.0f} MB"
        sizes = ", ".join(f"{size:.0f}" for size in self.pss_mb)
        head = f"{self.stage:10}{self.rows:>11,}  {self.code:8}{self.ranks:>6}"
        return head + f"{self.seconds:>14.1f}{self.cpu_seconds:>9.1f}{sizes:>26}{beyond:>20}"


def measure_training(folder: Path, rows: Iterator[dict[str, object]], count: int, code: Path) -> Iterator[Start]:
    """Starts and resumes a training with one process, then starts one with two processes.

    Args:
        folder: a new folder for the run.
        rows: rows of the manifest.
        count: their number.
        code: the checkout to measure.
    """
    name = "after" if code == ROOT else "before"
    write_run(folder, rows, code)
    yield Start("start", count, name, 1, *run_processes(folder, code, 1, ["--go-to", str(RESUMED)] * (count > 10_000)))
    if count > 10_000:
        yield Start("resume", count, name, 1, *run_processes(folder, code, 1, []))
    for pattern in ("manifests/*.tokens.arrow", "manifests/epochs.json", "checkpoint*/*"):
        for path in folder.glob(pattern):
            path.unlink()
    for path in folder.glob("checkpoint*"):
        path.rmdir()
    yield Start("start", count, name, 2, *run_processes(folder, code, 2, []))


def write_run(folder: Path, rows: Iterator[dict[str, object]], code: Path) -> None:
    """A run directory as `finetune prepare` leaves it, without the record of audio files."""
    (folder / "manifests").mkdir(parents=True)
    with open(folder / "manifests/train.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    (folder / "manifests/valid.jsonl").write_text(json.dumps(row) + "\n")
    recipe = {
        "name": "x",
        "model": {"base": str(ROOT / "data/granite-speech-nano")},
        "data": {split: [str(folder / f"manifests/{split}.jsonl")] for split in ("train", "valid")} | {"test": ["x"]},
        "parts": {"lora": {"rank": 4}},
        "train": {"epochs": 4, "batch_seconds": 8.0},  # about two clips, so that an epoch has many steps
        "machine": {"processes": 1, "workers": 1, "checkpoint_every": 1_000_000},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    if (code / "finetune/data/utterance_table.py").exists():  # prepare makes it
        make = "import sys; from pathlib import Path; from finetune.data.utterance_table import open_manifest as o"
        make += "; [o(Path(p)) for p in sys.argv[1:]]"
        paths = [str(path) for path in folder.glob("manifests/*.jsonl")]
        subprocess.run([sys.executable, "-c", make, *paths], check=True, env=environment(code))


def environment(code: Path, **variables: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(code.resolve()), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}


def variables_of(rank: int, ranks: int) -> dict[str, str]:
    """The variables of a launcher."""
    size = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "ACCELERATE_USE_CPU": "true"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 10_000)}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), **size, **address}


def run_processes(folder: Path, code: Path, ranks: int, options: list[str]) -> tuple[float, float, list[float]]:
    """Trains the first steps. Returns the seconds to the first step, the CPU seconds, and the PSS of each process."""
    command = [sys.executable, str(Path(__file__).with_name("first_steps.py")), "recipe.json", ".", *options]
    started, processes = time.monotonic(), []
    with ExitStack() as stack:
        for rank in range(ranks):
            log = stack.enter_context(open(folder / f"log.{rank}", "w", encoding="utf-8"))
            variables = environment(code, **(variables_of(rank, ranks) if ranks > 1 else {}))
            process = subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=log)
            processes.append(process)
    peaks = [[0.0] for _ in processes]
    for process, peak in zip(processes, peaks, strict=True):
        threading.Thread(target=watch_memory, args=(process.pid, peak), daemon=True).start()
    first = 0.0
    for line in processes[0].stdout or ():
        if line.startswith(b"step") and not first:
            first = time.monotonic() - started
    cpu = 0.0
    for process in processes:
        for number in tree(process.pid) * (process is not processes[0]):
            os.kill(number, signal.SIGKILL)
        cpu += sum(os.wait4(process.pid, 0)[2][:2])
    if not first:
        raise SystemExit((folder / "log.0").read_text()[-3000:])
    return first, cpu, [peak[0] / 1e3 for peak in peaks]
