"""The arithmetic of the build: bfloat16 matrix products on processors that have them, else float32."""

import torch

from finetune.model.float32 import computes_in_bfloat16


def autocast() -> torch.autocast:
    """A context for forward passes; weights and losses stay float32. Other processors emulate bfloat16 slowly."""
    return torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16())
