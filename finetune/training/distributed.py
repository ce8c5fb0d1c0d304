"""Sets up Accelerate: one process per device, each with the complete model."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from finetune.core.errors import CheckpointError
from finetune.model.granite import default_device

SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")  # modes of `accelerate launch` that split a model


def make_accelerator() -> Accelerator:
    """Creates the Accelerator of this process.

    Raises:
        CheckpointError: `accelerate launch` is set to split the model.
    """
    if sharded := [name for name in SHARDED if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"]:
        raise CheckpointError(
            f"accelerate launch is set to {sharded[0]}, but each process needs the complete model: launch with "
            "--multi_gpu; if memory is short, set train.batch: auto, machine.gradient_checkpointing: true or "
            "model.quantize: 4bit"
        )
    # Buffers never change, so they need no broadcast, and gradients are stored in memory only once.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # The precision comes from the recipe, not from the launcher. Accelerate does not choose the device either: on a
    # Mac it would choose the GPU, on which this toolkit is not tested.
    return Accelerator(mixed_precision="no", cpu=default_device() == "cpu", kwargs_handlers=[ddp])


def all_ranks(accelerator: Accelerator, value: bool) -> bool:
    """Whether `value` is true on every rank."""
    total = accelerator.reduce(torch.tensor(int(value), device=accelerator.device), "sum")
    return int(total) == accelerator.num_processes


@contextmanager
def ignore_stride_warning() -> Iterator[None]:
    """Hides DDP's "Grad strides do not match bucket view strides", which is about speed and not about correctness."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        yield
