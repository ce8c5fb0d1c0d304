"""Stage 3 of the build: encoder, projector and language model train together, on all speech."""

import random
import time
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from finetune.data.features import num_frames
from finetune.model.conformer import encode, project
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.training.augment import WaveAugment, augment_wave
from nano.decoder import text_loss
from nano.encoder import (
    MIDDLE_WEIGHT,
    ctc_loss,
    load_state,
    make_batches,
    one_cycle,
    optimizers,
    remove_dropout,
    save_state,
    to_features,
    update,
)

SPEED = WaveAugment(
    speed=0.12, gain_db=0.0, noise_db=0.0
)  # shifts the pitch too: more voices than the synthesizers have


def polish(
    model: SpeechModel,
    waves: list[np.ndarray],
    texts: list[str],
    state: Path,
    steps: int,
    rate: float,
    ctc_weight: float,
    seconds: float = 72.0,
) -> None:
    """Trains all parts in place for `steps`. Resumes from `state`, written every 250 steps."""
    model.train()
    remove_dropout(model)
    long_enough = [i for i, wave in enumerate(waves) if 0.87 * num_frames(len(wave)) >= len(texts[i]) + 4]
    waves, texts = [waves[i] for i in long_enough], [texts[i] for i in long_enough]
    parts = nn.ModuleDict(
        {"encoder": model.encoder, "projector": model.projector, "llm": model.language_model, "lm_head": model.lm_head}
    )
    optims = optimizers(parts, rate)
    step = load_state(state, "parts", parts, optims).get("step", 0)
    batches = make_batches(waves, random.Random(steps), seconds)
    started, first, totals = time.monotonic(), step, np.zeros(3)
    while step < steps:
        batch = batches[step % len(batches)]
        rng = np.random.default_rng((steps, step))
        losses = _losses(model, [waves[i] for i in batch], [texts[i] for i in batch], rng)
        (losses[0] + ctc_weight * ((1 - MIDDLE_WEIGHT) * losses[1] + MIDDLE_WEIGHT * losses[2])).backward()
        update(parts, optims, rate * one_cycle(step, steps))
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
            save_state(state, "parts", parts, optims, step=step)


def _losses(
    model: SpeechModel, waves: list[np.ndarray], texts: list[str], rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of one batch at random speed: language model, final CTC, middle CTC."""
    augmented, references = [], []
    for wave, text in zip(waves, texts, strict=True):
        samples = augment_wave(wave.astype(np.float32), SPEED, rng)
        if num_frames(len(samples)) >= len(text) + 4:
            augmented.append(samples)
            references.append(text)
    features, frames = to_features(augmented, rng)
    states, middle = encode(model.encoder, features, frames)
    audio = EncodedAudio(states, frames, project(model.projector, states, frames), model.num_audio_tokens(frames))
    return (
        text_loss(model, references, audio),
        ctc_loss(model.encoder.out(states), frames, references),
        ctc_loss(middle, frames, references),
    )
