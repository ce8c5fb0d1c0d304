"""Two processes that exchange a tensor, as training on several GPUs or processes does."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from finetune.doctor.finding import Finding, failed, passed, warned

SECONDS = 90.0
STARTED, ANSWER = "started", "[3.0, 3.0, 3.0, 3.0]"  # what a process prints
PROGRAM = """
import os, sys, torch, torch.distributed as dist
sys.stdout.write("started\\n")
sys.stdout.flush()
backend, rank = sys.argv[1], int(os.environ["RANK"])
device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
dist.init_process_group(backend)
value = torch.full((4,), float(rank + 1), device=device)
dist.all_reduce(value)
sys.stdout.write(str(value.tolist()))
sys.stdout.flush()
os._exit(0)  # the group can hang when it ends
"""
BUSY = "end other programs or wait for them, then rerun; beside them, a training is slow too"


def waiting_seconds(process: int) -> float:
    """How long a process has waited for a processor; 0 if the system does not say."""
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def check_loopback(
    gpus: int,
    program: Sequence[str] = (sys.executable, "-c", PROGRAM),
    limit: float = SECONDS,
    waiting: Callable[[int], float] = waiting_seconds,
) -> Finding:
    """Two processes sum a tensor, with NCCL on two GPUs, else with gloo.

    Args:
        gpus: number of GPUs.
        program: the command of a process; its argument is the backend.
        limit: seconds.
        waiting: how many seconds a process has waited for a processor, by its id.
    """
    backend = "nccl" if gpus > 1 else "gloo"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    common.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    children = [
        subprocess.Popen(
            [*program, backend],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    name = f"processes ({backend})"
    cure = "check the firewall of 127.0.0.1" + ("; set NCCL_DEBUG=INFO and rerun" if gpus > 1 else "")
    started = 0  # processes that have loaded torch
    try:
        for child in children:
            out, errors = child.communicate(timeout=limit)
            started += 1
            if problem := _problem(child.returncode, out, errors):
                return failed(name, problem, cure)
    except subprocess.TimeoutExpired:
        busy = max(waiting(child.pid) for child in children[started:]) > limit / 2
        for child in children[started:]:
            ended = child.poll() is not None
            child.kill()
            out, errors = child.communicate()
            if ended and (problem := _problem(child.returncode, out, errors)):
                return failed(name, problem, cure)
            started += out.startswith(STARTED)
        if busy or started < len(children):
            return warned(name, f"no answer in {limit:.0f} s, because the machine was too busy to answer", BUSY)
        return failed(name, f"no answer in {limit:.0f} s", cure)
    finally:
        for child in children:
            child.kill()
            child.wait()
    return passed(name, "two processes exchange tensors")


def _problem(code: int, out: str, errors: str) -> str:
    """Why the output of a process is not that of a success; "" if it is."""
    if code == 0 and out.strip().removeprefix(STARTED).strip() == ANSWER:
        return ""
    return (errors.strip().splitlines() or [f"exit code {code}, output {out.strip()!r}"])[-1]
