"""The arithmetic of the build: bfloat16 matrix products on processors that have them, else float32."""

import torch

HAS_BFLOAT16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


def autocast() -> torch.autocast:
    """A context for forward passes; weights and losses stay float32. Other processors emulate bfloat16 slowly."""
    return torch.autocast("cpu", torch.bfloat16, enabled=HAS_BFLOAT16)
