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
    """Clips of like length together, in random order."""
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
    """Padded features of int16 clips; with `masks`, a light SpecAugment (arXiv 1904.08779)."""
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
    """Character CTC, blank 0, index = code point; summed over clips, per character."""
    targets = torch.tensor([ord(char) for text in texts for char in text])
    lengths = torch.tensor([len(text) for text in texts])
    logp = logits.float().log_softmax(-1).transpose(0, 1)
    loss = F.ctc_loss(logp, targets, frames, lengths, reduction="sum", zero_infinity=True)
    return loss / lengths.sum()


def greedy(logits: Tensor) -> str:
    """Best path of one clip (T, V) as text."""
    path = torch.unique_consecutive(logits.argmax(-1)).tolist()
    return "".join(chr(label) for label in path if label)


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices of the blocks for Muon; everything else for AdamW."""
    matrices, others = [], []
    for name, parameter in module.named_parameters():
        inner = parameter.ndim == 2 and not any(key in name for key in ("emb", "out_mid", "lm_head", "encoder.out."))
        (matrices if inner and not name.startswith("out.") else others).append(parameter)
    return matrices, others


def optimizers(module: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (rates scaled to AdamW's) for matrices, AdamW for the rest."""
    matrices, others = split_parameters(module)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def one_cycle(step: int, steps: int) -> float:
    """Factor of the peak rate: 5 % warm-up, then linear to nearly nothing."""
    warm = max(1, int(0.05 * steps))
    return min(1.0, (step + 1) / warm) * max(0.01, min(1.0, (steps - step) / (steps * 0.9)))


@torch.no_grad()
def evaluate(encoder: nn.Module, waves: list[np.ndarray], texts: list[str]) -> tuple[float, float, list[str]]:
    """CER and WER of the greedy CTC text."""
    import jiwer

    encoder.eval()
    heard: dict[int, str] = {}
    for batch in make_batches(waves, random.Random(0)):
        features, frames = to_features([waves[i] for i in batch])
        logits = encoder.out(encode(encoder, features, frames)[0])
        for row, index in enumerate(batch):
            heard[index] = " ".join(greedy(logits[row, : frames[row]]).split())
    said = [heard[i] for i in range(len(texts))]
    return jiwer.cer(texts, said), jiwer.wer(texts, said), said


def train(
    encoder: nn.Module,
    waves: list[np.ndarray],
    texts: list[str],
    dev: tuple[list[np.ndarray], list[str]],
    state: Path,
    epochs: float,
) -> None:
    """Trains in place for `epochs` (the last may be a part); `state` keeps the last finished one for a second call."""
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fits = [i for i, wave in enumerate(waves) if num_frames(len(wave)) >= len(texts[i]) + 4]
    waves, texts = [waves[i] for i in fits], [texts[i] for i in fits]
    optims = optimizers(encoder, PEAK_RATE)
    steps = int(epochs * len(make_batches(waves, random.Random(0))))
    step, first = 0, 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        encoder.load_state_dict(saved["encoder"])
        for optim, stored in zip(optims, saved["optims"], strict=True):
            optim.load_state_dict(stored)
        step, first = saved["step"], saved["epoch"]
    for epoch in range(first, math.ceil(epochs)):
        encoder.train()
        started, total = time.monotonic(), 0.0
        rng = np.random.default_rng((3, epoch))
        batches = make_batches(waves, random.Random(epoch))[: steps - step]
        for number, batch in enumerate(batches, start=1):
            for optim in optims:
                for group in optim.param_groups:
                    group["lr"] = PEAK_RATE * one_cycle(step, steps)
            features, frames = to_features([waves[i] for i in batch], rng)
            states, middle = encode(encoder, features, frames)
            said = [texts[i] for i in batch]
            loss = ctc_loss(encoder.out(states), frames, said)
            loss = (1 - MIDDLE_WEIGHT) * loss + MIDDLE_WEIGHT * ctc_loss(middle, frames, said)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
            if math.isfinite(float(norm)):
                for optim in optims:
                    optim.step()
            encoder.zero_grad(set_to_none=True)
            step, total = step + 1, total + loss.item()
            if number % 50 == 0:
                print(
                    f"encoder epoch {epoch} {number}/{len(batches)} loss {total / 50:.3f} "
                    f"{(time.monotonic() - started) / number:.2f} s/step",
                    flush=True,
                )
                total = 0.0
        cer, wer, said = evaluate(encoder, *dev)
        print(f"encoder epoch {epoch} dev CER {cer:.4f} WER {wer:.4f} {time.monotonic() - started:.0f} s")
        print("\n".join(f"  {a} | {b}" for a, b in list(zip(dev[1], said, strict=True))[:4]), flush=True)
        torch.save(
            {
                "encoder": encoder.state_dict(),
                "optims": [o.state_dict() for o in optims],
                "step": step,
                "epoch": epoch + 1,
            },
            state,
        )
