"""Memory and training processes of this machine."""

import torch

from finetune.core.config import Recipe
from finetune.core.memory_limit import memory_limit
from finetune.core.wording import count
from finetune.training.launch import processes_for


def memory_of(device: str) -> int | None:
    """Bytes of the smallest card, or those that this process may use of the machine; None for a device not here."""
    cards = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    if device == "cuda":
        return min(cards, default=None)
    return memory_limit()


def processes_text(recipe: Recipe, gpus: int) -> str:
    """The number of training processes, and why it differs from the recipe's."""
    requested, used = recipe.machine.processes, processes_for(recipe, gpus)
    place = count(gpus, "GPU") if gpus else "the CPU"
    return f"{used} on {place}" + (f"; machine.processes is {requested}" if requested not in (0, used) else "")
