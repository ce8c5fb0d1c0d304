"""The parts of `scripts/bad_inputs.py`: the good material, the cases of each kind of input, the process of one case."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # as the command does before it imports transformers
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork of a process with threads can hang
for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
    os.environ.pop(variable, None)
