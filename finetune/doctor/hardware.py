"""Checks of the machine: GPU, processor, memory, disk, shared memory and limits."""

import os
import resource
import shutil
import tempfile
from pathlib import Path

import torch

from finetune.core.wording import count
from finetune.doctor.finding import Finding, failed, passed, skipped, warned
from finetune.model.float32 import computes_in_bfloat16

GIB = 1 << 30
FULL_SIZE_MEMORY = 8 * GIB  # granite-4.0-1b-speech in bfloat16, with one clip
FULL_SIZE_DISK = 25 * GIB  # the checkpoint, two training checkpoints and the export
LEAST_DISK = GIB
LEAST_SHARED = 64 << 20  # Docker's default, with which NCCL fails
LEAST_FILES = 1024


def gib(count: float) -> str:
    return f"{count / GIB:.1f} GiB"


def check_gpu(gpus: int, driver: bool, cuda_build: str | None) -> Finding:
    """The GPUs: found, and able to multiply.

    Args:
        gpus: number of GPUs that torch finds.
        driver: whether the machine has an NVIDIA driver.
        cuda_build: CUDA version of the torch build; None for a CPU build.
    """
    if not gpus:
        if driver and not cuda_build:
            return failed(
                "gpu", "this machine has an NVIDIA driver, but torch is a CPU build", "install a CUDA build of torch"
            )
        if driver:
            return failed(
                "gpu",
                f"torch for CUDA {cuda_build} finds no GPU",
                "compare with nvidia-smi; check CUDA_VISIBLE_DEVICES; in a container, pass --gpus all",
            )
        return skipped("gpu", "none; training runs on the CPU")
    names = list[str]()
    for index in range(gpus):
        card = torch.cuda.get_device_properties(index)
        square = torch.ones(64, 64, device=f"cuda:{index}")
        if not torch.equal((square @ square).cpu(), torch.full((64, 64), 64.0)):
            return failed("gpu", f"{card.name} multiplies wrongly", "test the card, or use another one")
        names.append(f"{card.name} ({gib(card.total_memory)})")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return warned("gpu", f"{', '.join(names)}, without bfloat16", "set model.dtype: float32")
    return passed("gpu", f"{', '.join(names)}, CUDA {cuda_build}, bfloat16")


def check_processor() -> Finding:
    """Threads, and the arithmetic that the processor has instructions for."""
    name = torch.cpu.get_capabilities().get("cpu_name") or "unknown"
    text = "computes in bfloat16" if computes_in_bfloat16() else "emulates bfloat16: use model.dtype: float32"
    return passed("processor", f"{name}, {count(os.cpu_count() or 1, 'thread')}; {text}")


def check_memory(limit: int) -> Finding:
    """Memory of the machine or the container, in bytes."""
    if limit < FULL_SIZE_MEMORY:
        return warned(
            "memory",
            f"{gib(limit)}; granite-4.0-1b-speech needs about {gib(FULL_SIZE_MEMORY)}",
            "the embedded model works; for the full size use a larger machine",
        )
    return passed("memory", gib(limit))


def check_disk(folder: Path, free: int | None = None) -> Finding:
    """Space of a folder, and whether it can be written; of the nearest folder above it if a run would create it."""
    place = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            pass
        free = shutil.disk_usage(place).free if free is None else free
    except OSError as error:
        return failed("disk", f"{folder}: cannot be written ({error.strerror})", "change to another folder")
    if free < LEAST_DISK:
        return failed("disk", f"{folder}: {gib(free)} free", "free some space, or set `runs` to another disk")
    if free < FULL_SIZE_DISK:
        return warned(
            "disk",
            f"{folder}: {gib(free)} free; a run of the full size needs about {gib(FULL_SIZE_DISK)}",
            "free some space, or set `runs` to another disk",
        )
    return passed("disk", f"{folder}: {gib(free)} free")


def check_temporary(folder: Path | None = None) -> Finding:
    """The folder of temporary files."""
    try:
        place = folder or Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x" * 4096)
    except OSError as error:
        return failed("temporary files", str(error), "set TMPDIR to a folder with space")
    return passed("temporary files", str(place))


def check_shared_memory(gpus: int, folder: Path = Path("/dev/shm"), total: int | None = None) -> Finding:
    """Shared memory, by which processes on several GPUs exchange data."""
    if not folder.is_dir():
        return skipped("shared memory", f"no {folder}")
    total = shutil.disk_usage(folder).total if total is None else total
    if total <= LEAST_SHARED and gpus > 1:
        return failed("shared memory", f"{total >> 20} MiB", "in a container, pass --ipc=host or --shm-size=8g")
    return passed("shared memory", f"{total >> 20} MiB")


def check_open_files(limit: int | None = None) -> Finding:
    """The number of files that a process may open."""
    count = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    if 0 <= count < LEAST_FILES:
        return warned("open files", f"at most {count}", f"ulimit -n {LEAST_FILES}")
    return passed("open files", "no limit" if count < 0 else f"at most {count}")
