"""Sets up Accelerate: one process per device, each with the complete model."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list, gather_object

from finetune.core.errors import CheckpointError, DataError
from finetune.core.run_dir import RunDir
from finetune.data.audio_files import check_audio_files
from finetune.model.granite import default_device

SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")  # modes of `accelerate launch` that split a model


def check_launcher(environment: Mapping[str, str]) -> None:
    """Raises CheckpointError if `accelerate launch` is set to split the model."""
    if sharded := [name for name in SHARDED if environment.get(f"ACCELERATE_USE_{name}", "").lower() == "true"]:
        raise CheckpointError(
            f"accelerate launch is set to {sharded[0]}, but each process needs the complete model: launch with "
            "--multi_gpu; if memory is short, set train.batch: auto, machine.gradient_checkpointing: true or "
            "model.quantize: 4bit"
        )


def make_accelerator() -> Accelerator:
    """Creates the Accelerator of this process. Raises the error of `check_launcher`."""
    check_launcher(os.environ)
    # Buffers never change, so they need no broadcast, and gradients are stored in memory only once.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # The precision comes from the recipe, not from the launcher. Accelerate does not choose the device either: on a
    # Mac it would choose the GPU, on which this toolkit is not tested.
    return Accelerator(mixed_precision="no", cpu=default_device() == "cpu", kwargs_handlers=[ddp])


def all_ranks(accelerator: Accelerator, value: bool) -> bool:
    """Whether `value` is true on every rank."""
    total = accelerator.reduce(torch.tensor(int(value), device=accelerator.device), "sum")
    return int(total) == accelerator.num_processes


def value_of_main_rank(value: bool) -> bool:
    """The value of rank 0, on every rank."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def check_on_main_rank(accelerator: Accelerator, run: RunDir) -> dict[str, dict[str, str]]:
    """Checks the audio files of a run on one rank, and returns the clips that cannot be read on every rank.

    Raises:
        DataError: the audio of a clip changed since `finetune prepare`; on every rank.
    """
    outcome: list[dict[str, dict[str, str]] | DataError] = [{}]
    if accelerator.is_main_process:
        try:
            outcome = [check_audio_files(run)]
        except DataError as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], DataError):
        raise outcome[0]
    return outcome[0]


def require_same_checkpoint(
    identity: str, folder: Path, gather: Callable[[list[str]], list[str]] = gather_object
) -> None:
    """Checks that all ranks resume from the same checkpoint.

    Args:
        identity: of the checkpoint that this rank found, from `checkpoint.identity`.
        folder: of the checkpoint.
        gather: joins the lists of all ranks.

    Raises:
        CheckpointError: another rank found another one, as on a network file system that shows old files.
    """
    if len({*gather([identity])}) > 1:
        raise CheckpointError(
            f"{folder}: the training processes found different checkpoints, because the file system does not show the "
            "same files to all of them; wait a minute, then rerun to resume"
        )


@contextmanager
def ignore_stride_warning() -> Iterator[None]:
    """Hides DDP's "Grad strides do not match bucket view strides", which is about speed and not about correctness."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
        yield
