"""Starts one training process for each device of this machine and forwards signals to them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, Interrupted, RecipeError
from finetune.core.run_dir import CHILD, RunDir
from finetune.training.signals import NAMES, interruptible

RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE")  # variables of a launcher
ELASTIC = "TORCHELASTIC_RUN_ID"  # set by torchrun and by `accelerate launch` with several processes
# Seconds for which a process of such a launcher waits for the lock: workers of a killed process end within 5 s.
PATIENCE = 30.0
STOPPED = [
    128 + getattr(signal, name) for name in NAMES if hasattr(signal, name)
]  # exit codes of processes that a signal stopped


def world_size(environment: Mapping[str, str]) -> int:
    """The number of processes that a launcher has started, from its variables; 1 without a launcher.

    Raises:
        RecipeError: the variables are incomplete or impossible, such as those that another program has left.
    """
    advice = f"unset {', '.join(RANKS)}, which `accelerate launch` and torchrun set, to train without a launcher"
    present = {name: environment[name] for name in (*RANKS, "MASTER_PORT") if name in environment}
    for name, value in present.items():
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            raise RecipeError(f"{name} must be a number, got {value[:40]!r}; {advice}")
    numbers = {name: int(value) for name, value in present.items()}
    size = numbers.get("WORLD_SIZE", 0 if numbers.keys() & {*RANKS} else 1)
    needed = (*RANKS, "MASTER_ADDR", "MASTER_PORT") if size > 1 or "LOCAL_RANK" in numbers else ("WORLD_SIZE",)
    if missing := [name for name in needed if name not in environment and numbers.keys() & {*RANKS}]:
        variables = ", ".join(f"{name}={present[name]}" for name in RANKS if name in present)
        raise RecipeError(f"{variables}, but {missing[0]} is not set; {advice}")
    if size < 1 or numbers.get("RANK", 0) >= size or numbers.get("LOCAL_RANK", 0) >= size:
        raise RecipeError(f"RANK and LOCAL_RANK must be below WORLD_SIZE, which must be 1 or more; {advice}")
    return size


def is_elastic(environment: Mapping[str, str]) -> bool:
    """Whether torchrun or `accelerate launch` started this process; they restart processes that die."""
    return ELASTIC in environment


def agree_with_main_rank(value: bool) -> bool:
    """The value of rank 0, on every rank; all ranks must call it."""
    from finetune.training.distributed import make_accelerator, value_of_main_rank

    make_accelerator()  # starts the process group
    return value_of_main_rank(value)


def processes_for(recipe: Recipe, gpus: int | None = None) -> int:
    """Number of training processes: `machine.processes`, at most one for each GPU; 0 means one for each GPU, or one.

    Args:
        recipe: The recipe.
        gpus: Number of GPUs; None counts those of this machine.
    """
    if gpus is None:
        import torch

        gpus = torch.cuda.device_count()
    processes = recipe.machine.processes
    return min(processes or gpus, gpus) if gpus else processes or 1


def train_on_all(run: RunDir, processes: int, python: str = sys.executable) -> None:
    """Trains in `processes` processes (torch.distributed; NCCL on GPUs, gloo on CPUs) and waits for them.

    Each process reads `resolved.json`. torchrun is not used: it prints its own traceback, and 30 seconds after a signal
    it kills processes that can still be in the step before their checkpoint.

    Args:
        run: The run directory.
        processes: Number of processes.
        python: The interpreter.

    Raises:
        Interrupted: a signal stopped them; their checkpoint holds the last step.
        CheckpointError: one process failed, and the others were killed; its own error message is printed before.
    """
    command = [python, "-m", "finetune", "train", str(run.resolved)]
    with interruptible() as stop, ExitStack() as stack:
        # Each process is in its own session: otherwise it receives Ctrl-C twice, and the second signal stops it at
        # once. Each inherits the file descriptor of the lock: if this process is killed, no other run can start while
        # they run.
        children = [
            stack.enter_context(subprocess.Popen(command, env=environment, start_new_session=True, close_fds=False))
            for environment in _environments(processes)
        ]
        signalled, failed = False, 0
        try:
            while True:
                codes = [
                    code for child in children if (code := child.poll()) is not None
                ]  # of the processes that ended
                failed = failed or next((code for code in codes if code not in (0, *STOPPED)), 0)
                if len(codes) == processes:
                    break
                if failed:  # the other processes would wait for it forever
                    _kill(children)
                if stop.signum and not signalled:
                    for child in children:
                        child.terminate()
                    signalled = True
                time.sleep(0.1)
        except BaseException:  # a second signal
            _kill(children)
            raise
    stopped = [code - 128 for code in codes if code in STOPPED]
    if stop.signum or (stopped and not failed):
        raise Interrupted(None, stop.signum or stopped[0])
    if failed:
        reason = (
            f"exit code {failed}; see the first error above"
            if failed > 0
            else f"{signal.Signals(-failed).name}; if no user sent it, the machine probably ran out of memory"
        )
        raise CheckpointError(f"training in {processes} processes failed ({reason})")


def _environments(processes: int) -> list[dict[str, str]]:
    """The environment of each process, with its rank, as torch.distributed reads it."""
    import torch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        CHILD: "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if not torch.cuda.is_available():
        common["ACCELERATE_USE_CPU"] = "true"
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _kill(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.kill()
