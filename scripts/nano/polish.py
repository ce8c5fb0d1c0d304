"""Stage 3 of the build: encoder, projector and language model together, on everything that was spoken."""

import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from finetune.data.features import num_frames
from finetune.model.conformer import encode, project
from finetune.model.granite import EncodedAudio, GraniteSpeech
from finetune.training.augment import WaveAugment, augment_wave
from nano.decoder import text_loss
from nano.encoder import MIDDLE_WEIGHT, ctc_loss, make_batches, one_cycle, optimizers, to_features

SPEED = WaveAugment(speed=0.12, gain_db=0.0, noise_db=0.0)  # with pitch: voices the synthesizers do not have


def polish(
    model: GraniteSpeech,
    waves: list[np.ndarray],
    texts: list[str],
    state: Path,
    steps: int,
    rate: float,
    ctc_weight: float,
    seconds: float = 72.0,
) -> None:
    """Trains all parts in place for `steps`; resumes from `state`, which is written every 250 steps."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fits = [i for i, wave in enumerate(waves) if 0.87 * num_frames(len(wave)) >= len(texts[i]) + 4]
    waves, texts = [waves[i] for i in fits], [texts[i] for i in fits]
    parts = nn.ModuleDict(
        {"encoder": model.encoder, "projector": model.projector, "llm": model.language_model, "lm_head": model.lm_head}
    )
    optims = optimizers(parts, rate)
    step = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        parts.load_state_dict(saved["parts"])
        for optim, stored in zip(optims, saved["optims"], strict=True):
            optim.load_state_dict(stored)
        step = saved["step"]
    batches = make_batches(waves, random.Random(steps), seconds)
    started, first, totals = time.monotonic(), step, np.zeros(3)
    while step < steps:
        rng = np.random.default_rng((steps, step))
        batch, said = batches[step % len(batches)], []
        heard = []
        for i in batch:
            wave = augment_wave(waves[i].astype(np.float32), SPEED, rng)
            if num_frames(len(wave)) >= len(texts[i]) + 4:
                heard.append(wave)
                said.append(texts[i])
        features, frames = to_features(heard, rng)
        states, middle = encode(model.encoder, features, frames)
        audio = EncodedAudio(states, frames, project(model.projector, states, frames), model.num_audio_tokens(frames))
        losses = (
            text_loss(model, said, audio),
            ctc_loss(model.encoder.out(states), frames, said),
            ctc_loss(middle, frames, said),
        )
        (losses[0] + ctc_weight * ((1 - MIDDLE_WEIGHT) * losses[1] + MIDDLE_WEIGHT * losses[2])).backward()
        norm = nn.utils.clip_grad_norm_(parts.parameters(), 5.0)
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = rate * one_cycle(step, steps)
            if math.isfinite(float(norm)):
                optim.step()
        parts.zero_grad(set_to_none=True)
        step, totals = step + 1, totals + [float(loss.detach()) for loss in losses]
        if step % 50 == 0:
            mean = totals / 50
            print(
                f"polish {step}/{steps} llm {mean[0]:.3f} ctc {mean[1]:.3f} middle {mean[2]:.3f} "
                f"{(time.monotonic() - started) / (step - first):.2f} s/step",
                flush=True,
            )
            totals[:] = 0.0
        if step % 250 == 0 or step == steps:
            part = state.with_suffix(".part")
            torch.save({"parts": parts.state_dict(), "optims": [o.state_dict() for o in optims], "step": step}, part)
            part.replace(state)
