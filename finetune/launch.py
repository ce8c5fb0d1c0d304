"""Starts one training process for each device of this machine, and passes signals on to them."""

import os
import subprocess
import sys
import time

from finetune.config import Recipe
from finetune.errors import CheckpointError, Interrupted
from finetune.runs import RunDir, write_json
from finetune.training.interrupt import interruptible

CHILD = "FINETUNE_LAUNCHED"  # set for processes whose parent holds the lock of the run directory


def processes_for(recipe: Recipe) -> int:
    """`machine.processes`, or one for each visible GPU, or one; two on one GPU would be slower than one."""
    import torch

    gpus, wanted = torch.cuda.device_count(), recipe.machine.processes
    return min(wanted or gpus, gpus) if gpus else wanted or 1


def train_on_all(recipe: Recipe, run: RunDir, processes: int) -> None:
    """Trains in `processes` processes (torch.distributed; NCCL on GPUs, gloo on CPUs) and waits for them.

    Raises:
        Interrupted: a signal stopped them; their checkpoint holds the last step.
        CheckpointError: they failed; what they said stands above.
    """
    import torch

    path = run.root / "launched.json"  # JSON is YAML: a recipe with every value in it
    write_json(path, recipe.model_dump(mode="json", exclude_none=True))
    environment = {**os.environ, CHILD: "1"}
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               "-m", "finetune", "train", str(path)]
    # In a session of its own: Ctrl-C would reach every process twice, and the second signal ends it at once.
    with interruptible() as stop, subprocess.Popen(command, env=environment, start_new_session=True) as child:
        told = False
        try:
            while child.poll() is None:
                time.sleep(0.2)
                if stop.signum and not told:
                    child.terminate()  # which it passes on to every process
                    told = True
        except BaseException:  # a second signal; killed, the launcher would leave the processes behind
            child.terminate()
            raise
        if stop.signum:
            raise Interrupted(None, stop.signum)
        if child.returncode:
            raise CheckpointError(f"training in {processes} processes failed (exit code {child.returncode}); the first "
                                  "error above says why")
