"""Measures of the benchmark: operations of a pass, peak speed of the machine, peak memory, padding."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

OWN_TIME = "BENCH_OWN_TIME"  # an environment variable, because each variant runs in its own process


@dataclass(frozen=True)
class Weights:
    """Numbers of weights by frequency of use; biases, norms and embedding tables are not counted."""

    encoder: int  # on each encoder frame
    keys: int  # the projector's keys and values, on each encoder frame
    projector: int  # its other weights, on each audio token
    llm: int  # on each position of the language model
    lora: int  # on each position of the language model
    head: int  # on each target token


@dataclass(frozen=True)
class Amount:
    """The content of the clips, without padding."""

    frames: int
    audio_tokens: int
    positions: int
    targets: int


@dataclass
class Tally:
    """Encoder frames and positions of the language model: without and with padding."""

    needed: list[int] = field(default_factory=lambda: [0, 0])
    padded: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, needed: tuple[int, int], padded: tuple[int, int]) -> None:
        self.needed = [total + more for total, more in zip(self.needed, needed, strict=True)]
        self.padded = [total + more for total, more in zip(self.padded, padded, strict=True)]

    def padding_fractions(self) -> list[float]:
        """The fraction of padding in frames, and in positions."""
        return [1 - needed / max(1, padded) for needed, padded in zip(self.needed, self.padded, strict=True)]


def count_weights(hf: nn.Module) -> Weights:
    """Weights of a Granite Speech model of transformers, with or without LoRA."""
    counts = dict.fromkeys(("encoder", "keys", "projector", "llm", "lora", "head"), 0)
    for name, value in hf.named_parameters():
        if value.ndim < 2 or name.endswith(("embed_tokens.weight", "projector.query")) or "rel_pos_emb" in name:
            continue
        if "lora_" in name:
            part = "lora"
        elif "model.encoder." in name:
            part = "encoder"
        elif "model.projector." in name:
            part = (
                "keys"
                if "crossattention.attention.key" in name or "crossattention.attention.value" in name
                else "projector"
            )
        else:
            part = "head" if name.startswith("lm_head.") else "llm"
        counts[part] += value.numel()
    return Weights(**counts)


def pass_flops(weights: Weights, amount: Amount, encoder_runs: bool) -> float:
    """Floating-point operations that any implementation needs to train on the clips.

    A weight costs 2 operations (multiply, add) at each place where it is used:

        forward   2 (encoder + keys) frames + 2 projector audio + 2 (llm + lora) positions + 2 head targets
        backward  to the inputs, if a trained weight is below:
                  2 projector audio + 2 (llm + lora) positions + 2 head targets
                  to the weights, if they train: 2 keys frames + 2 projector audio + 2 lora positions

    The encoder is frozen and no weight below it trains, so it has no backward pass. Not counted on either side:
    attention scores and their product with the values, which have no weights; and unnecessary work: padding, logits
    without a loss, and the second forward pass of gradient checkpointing.

    Args:
        encoder_runs: False if the encoder's output comes from a cache.
    """
    frames = amount.frames
    forward = (weights.encoder * encoder_runs + weights.keys) * frames + weights.projector * amount.audio_tokens
    forward += (weights.llm + weights.lora) * amount.positions + weights.head * amount.targets
    inputs = weights.projector * amount.audio_tokens + (weights.llm + weights.lora) * amount.positions
    inputs += weights.head * amount.targets
    trained = weights.keys * frames + weights.projector * amount.audio_tokens + weights.lora * amount.positions
    return 2.0 * (forward + inputs + trained)


def now(device: str) -> float:
    """Seconds, after the device has finished its work; processor time of this process if `OWN_TIME` is set."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.process_time() if OWN_TIME in os.environ else time.perf_counter()


def matmul_limit(device: str) -> float:
    """Operations per second of one large matrix product in the dtype of training: bfloat16 on CUDA, else float32."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    fastest = 0.0
    for _ in range(4):
        start = now(device)
        for _ in range(5):
            left @ right
        fastest = max(fastest, 5 * 2 * size**3 / (now(device) - start))
    return fastest


def _status(entry: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {entry}")


def forget_peak(device: str) -> int:
    """Resets the peak; returns the bytes to subtract from it: on a CPU (Linux) the current memory of the process."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return 0
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_memory(device: str) -> int:
    """Bytes at the peak: everything allocated on CUDA, with the weights; on a CPU the resident set of the process."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")
