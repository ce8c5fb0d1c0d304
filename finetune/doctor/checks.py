"""All checks of `finetune doctor`, in their order."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from finetune.core.memory_limit import memory_limit
from finetune.doctor import hardware, network, packages, sound
from finetune.doctor.finding import Finding, failed
from finetune.doctor.loopback import check_loopback
from finetune.doctor.training_step import check_training_step

Check = Callable[[], Finding]


def all_checks(runs: Path, model: Path) -> list[Check]:
    """The checks of this machine.

    Args:
        runs: folder whose disk is checked.
        model: the embedded model.
    """
    gpus, driver = torch.cuda.device_count(), shutil.which("nvidia-smi") is not None
    return [
        packages.check_python,
        packages.check_packages,
        packages.check_unneeded,
        partial(packages.check_quantization, gpus),
        hardware.check_processor,
        partial(hardware.check_gpu, gpus, driver, torch.version.cuda),
        partial(hardware.check_memory, memory_limit()),
        partial(hardware.check_disk, runs),
        hardware.check_temporary,
        partial(hardware.check_shared_memory, gpus),
        hardware.check_open_files,
        partial(check_loopback, gpus),
        _check_decoding,
        sound.check_resampling,
        sound.check_front_end,
        network.check_hub,
        network.check_hub_cache,
        network.check_tracker,
        partial(check_training_step, model),
    ]


def run_checks(checks: Sequence[Check]) -> Iterator[Finding]:
    """The findings, each as soon as it is known. A check that raises has failed."""
    for check in checks:
        try:
            yield check()
        except Exception as error:  # a broken installation can fail in any way
            name = getattr(getattr(check, "func", check), "__name__", "check")
            reason = f"{type(error).__name__}: {error}"
            yield failed(
                name.lstrip("_").removeprefix("check_").replace("_", " "), reason, "report this, with the lines above"
            )


def _check_decoding() -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        return sound.check_decoding(Path(folder))
