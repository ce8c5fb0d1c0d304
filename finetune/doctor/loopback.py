"""Two processes that exchange a tensor, as training on several GPUs or processes does."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

from finetune.doctor.finding import Finding, failed, passed

SECONDS = 90.0
PROGRAM = """
import os, sys, torch, torch.distributed as dist
backend, rank = sys.argv[1], int(os.environ["RANK"])
device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
dist.init_process_group(backend)
value = torch.full((4,), float(rank + 1), device=device)
dist.all_reduce(value)
sys.stdout.write(str(value.tolist()))
sys.stdout.flush()
os._exit(0)  # the group can hang when it ends
"""


def check_loopback(
    gpus: int, program: Sequence[str] = (sys.executable, "-c", PROGRAM), limit: float = SECONDS
) -> Finding:
    """Two processes sum a tensor, with NCCL on two GPUs, else with gloo.

    Args:
        gpus: number of GPUs.
        program: the command of a process; its argument is the backend.
        limit: seconds.
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
    try:
        for child in children:
            out, errors = child.communicate(timeout=limit)
            if child.returncode or out.strip() != "[3.0, 3.0, 3.0, 3.0]":
                lines = errors.strip().splitlines() or [f"exit code {child.returncode}, output {out.strip()!r}"]
                return failed(name, lines[-1], cure)
    except subprocess.TimeoutExpired:
        return failed(name, f"no answer in {limit:.0f} s", cure)
    finally:
        for child in children:
            child.kill()
            child.wait()
    return passed(name, "two processes exchange tensors")
