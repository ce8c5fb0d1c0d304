"""Stage 1 of the build: the conformer encoder with its character CTC head, from scratch."""

import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finetune.data.features import log_mel, num_frames, pad_features
from finetune.model.conformer import encode

BATCH_SECONDS = 64.0
MIDDLE_WEIGHT = 0.3
PEAK_RATE = 3e-3


def make_batches(waves: list[np.ndarray], rng: random.Random, seconds: float = BATCH_SECONDS) -> list[list[int]]:
    """Batches of utterances of similar length, in random order."""
    order = sorted(range(len(waves)), key=lambda i: len(waves[i]) * rng.uniform(0.9, 1.1))
    batches, batch, longest = [], [], 0
    for index in order:
        longest = max(longest, len(waves[index]))
        if batch and longest * (len(batch) + 1) > seconds * 16000:
            batches.append(batch)
            batch, longest = [], len(waves[index])
        batch.append(index)
    batches.append(batch)
    rng.shuffle(batches)
    return batches


def to_features(waves: list[np.ndarray], masks: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Padded features of int16 waveforms; with `masks`, a light SpecAugment (arXiv 1904.08779)."""
    features = [log_mel(torch.from_numpy(wave.astype(np.float32) / 32768.0)) for wave in waves]
    for item in features if masks is not None else []:
        mean = float(item.mean())
        mels = item.view(-1, 2, 80)
        for _ in range(2):
            width = int(masks.integers(0, 14))
            start = int(masks.integers(0, 80 - width))
            mels[:, :, start : start + width] = mean
            span = int(masks.integers(0, min(12, max(2, len(item) // 8))))
            begin = int(masks.integers(0, len(item) - span))
            item[begin : begin + span] = mean
    return pad_features(features)


def ctc_loss(logits: Tensor, frames: Tensor, texts: list[str]) -> Tensor:
    """Character CTC loss per target character of the batch. Label 0 is blank, the others are code points."""
    targets = torch.tensor([ord(char) for text in texts for char in text])
    lengths = torch.tensor([len(text) for text in texts])
    logp = logits.float().log_softmax(-1).transpose(0, 1)
    loss = F.ctc_loss(logp, targets, frames, lengths, reduction="sum", zero_infinity=True)
    return loss / lengths.sum()


def greedy(logits: Tensor) -> str:
    """The greedy CTC path of one utterance (T, V) as text."""
    path = torch.unique_consecutive(logits.argmax(-1)).tolist()
    return "".join(chr(label) for label in path if label)


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices of the blocks (for Muon), and all other parameters (for AdamW)."""
    matrices, others = [], []
    for name, parameter in module.named_parameters():
        inner = parameter.ndim == 2 and not any(key in name for key in ("emb", "out_mid", "lm_head", "encoder.out."))
        (matrices if inner and not name.startswith("out.") else others).append(parameter)
    return matrices, others


def optimizers(module: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices, with rates scaled to those of AdamW; AdamW for other parameters."""
    matrices, others = split_parameters(module)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def one_cycle(step: int, steps: int) -> float:
    """Factor of the peak rate: 5 % warm-up, then linear decay to 1 %."""
    warm = max(1, int(0.05 * steps))
    return min(1.0, (step + 1) / warm) * max(0.01, min(1.0, (steps - step) / (steps * 0.9)))


def remove_dropout(module: nn.Module) -> None:
    """Sets every dropout probability to 0, in place."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


def load_state(path: Path, name: str, module: nn.Module, optims: list[torch.optim.Optimizer]) -> dict[str, int]:
    """Restores module and optimizers from `path`; returns the counters that `save_state` stored, {} without a file."""
    if not path.exists():
        return {}
    saved = torch.load(path, weights_only=True)
    module.load_state_dict(saved.pop(name))
    for optim, stored in zip(optims, saved.pop("optims"), strict=True):
        optim.load_state_dict(stored)
    return saved


def save_state(path: Path, name: str, module: nn.Module, optims: list[torch.optim.Optimizer], **counters: int) -> None:
    """Writes module, optimizers and counters atomically."""
    part = path.with_suffix(".part")
    torch.save({name: module.state_dict(), "optims": [optim.state_dict() for optim in optims], **counters}, part)
    part.replace(path)


def update(module: nn.Module, optims: list[torch.optim.Optimizer], rate: float) -> None:
    """One optimizer step at learning rate `rate`, with gradients clipped to a norm of 5; skipped for a bad norm."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), 5.0)
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = rate
        if math.isfinite(float(norm)):
            optim.step()
    module.zero_grad(set_to_none=True)


@torch.no_grad()
def evaluate(encoder: nn.Module, waves: list[np.ndarray], texts: list[str]) -> tuple[float, float, list[str]]:
    """CER and WER of the greedy CTC hypotheses, and the hypotheses."""
    import jiwer

    encoder.eval()
    by_index: dict[int, str] = {}
    for batch in make_batches(waves, random.Random(0)):
        features, frames = to_features([waves[i] for i in batch])
        logits = encoder.out(encode(encoder, features, frames)[0])
        for row, index in enumerate(batch):
            by_index[index] = " ".join(greedy(logits[row, : frames[row]]).split())
    hypotheses = [by_index[i] for i in range(len(texts))]
    return jiwer.cer(texts, hypotheses), jiwer.wer(texts, hypotheses), hypotheses


def train(
    encoder: nn.Module,
    waves: list[np.ndarray],
    texts: list[str],
    dev: tuple[list[np.ndarray], list[str]],
    state: Path,
    epochs: float,
) -> None:
    """Trains in place for `epochs`, the last of which can be partial. Resumes from `state`, written every epoch."""
    remove_dropout(encoder)
    long_enough = [i for i, wave in enumerate(waves) if num_frames(len(wave)) >= len(texts[i]) + 4]
    waves, texts = [waves[i] for i in long_enough], [texts[i] for i in long_enough]
    optims = optimizers(encoder, PEAK_RATE)
    steps = int(epochs * len(make_batches(waves, random.Random(0))))
    counters = load_state(state, "encoder", encoder, optims)
    step = counters.get("step", 0)
    for epoch in range(counters.get("epoch", 0), math.ceil(epochs)):
        started = time.monotonic()
        step = _train_epoch(encoder, optims, waves, texts, epoch, step, steps)
        cer, wer, hypotheses = evaluate(encoder, *dev)
        print(f"encoder epoch {epoch} dev CER {cer:.4f} WER {wer:.4f} {time.monotonic() - started:.0f} s")
        print("\n".join(f"  {a} | {b}" for a, b in list(zip(dev[1], hypotheses, strict=True))[:4]), flush=True)
        save_state(state, "encoder", encoder, optims, step=step, epoch=epoch + 1)


def _train_epoch(
    encoder: nn.Module,
    optims: list[torch.optim.Optimizer],
    waves: list[np.ndarray],
    texts: list[str],
    epoch: int,
    step: int,
    steps: int,
) -> int:
    """Trains one epoch, or until `steps`; returns the number of completed steps."""
    encoder.train()
    started, total = time.monotonic(), 0.0
    rng = np.random.default_rng((3, epoch))
    batches = make_batches(waves, random.Random(epoch))[: steps - step]
    for number, batch in enumerate(batches, start=1):
        features, frames = to_features([waves[i] for i in batch], rng)
        states, middle = encode(encoder, features, frames)
        references = [texts[i] for i in batch]
        loss = ctc_loss(encoder.out(states), frames, references)
        loss = (1 - MIDDLE_WEIGHT) * loss + MIDDLE_WEIGHT * ctc_loss(middle, frames, references)
        loss.backward()
        update(encoder, optims, PEAK_RATE * one_cycle(step, steps))
        step, total = step + 1, total + loss.item()
        if number % 50 == 0:
            print(
                f"encoder epoch {epoch} {number}/{len(batches)} loss {total / 50:.3f} "
                f"{(time.monotonic() - started) / number:.2f} s/step",
                flush=True,
            )
            total = 0.0
    return step
