"""Stage 2 of the build: the language model trains on text, then with the projector on cached encoder states."""

import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from finetune.inference.decode import decode
from finetune.inference.draft import Draft
from finetune.model.conformer import encode, project
from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.prompt import encode_text, render
from finetune.training.loss import IGNORE, token_loss
from nano.encoder import load_state, make_batches, one_cycle, optimizers, save_state, to_features

INSTRUCTION = "can you transcribe the speech into a written format?"


@torch.no_grad()
def cache_states(model: SpeechModel, waves: list[np.ndarray]) -> list[Tensor]:
    """Encoder states of every utterance, (T, D) float16. They do not depend on the batch."""
    model.eval()
    states: dict[int, Tensor] = {}
    for batch in make_batches(waves, random.Random(0)):
        features, frames = to_features([waves[i] for i in batch])
        hidden, _ = encode(model.encoder, features, frames)
        for row, index in enumerate(batch):
            states[index] = hidden[row, : frames[row]].half()
    return [states[i] for i in range(len(waves))]


def sequences(model: SpeechModel, texts: list[str], audio_tokens: list[int]) -> tuple[Tensor, Tensor]:
    """Right-padded prompts with targets (B, L), and their labels (B, L)."""
    prompt = render(model.tokenizer, INSTRUCTION)
    ids, labels = [], []
    for text, count in zip(texts, audio_tokens, strict=True):
        before = prompt.around(model.audio_token_id, count)
        target = [*encode_text(model.tokenizer, text), model.tokenizer.eos_token_id]
        ids.append(torch.tensor(before + target))
        labels.append(torch.tensor([IGNORE] * len(before) + target))
    pad = nn.utils.rnn.pad_sequence
    return pad(ids, True, model.tokenizer.pad_token_id), pad(labels, True, IGNORE)


def text_loss(model: SpeechModel, texts: list[str], audio: EncodedAudio | None = None) -> Tensor:
    """Mean loss over the target tokens of a batch, with or without its audio."""
    counts = [0] * len(texts) if audio is None else audio.num_tokens.tolist()
    ids, labels = sequences(model, texts, counts)
    hidden = model.language_model(inputs_embeds=model.embed(ids, audio), use_cache=False).last_hidden_state
    return token_loss(hidden, labels, model.logits, smoothing=0.0) / (labels != IGNORE).sum()


def _step(modules: list[nn.Module], optims: list[torch.optim.Optimizer], loss: Tensor, rate: float) -> None:
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for m in modules for p in m.parameters() if p.grad is not None], 1.0)
    for optim in optims:
        for group in optim.param_groups:
            group["lr"] = rate
        if torch.isfinite(norm):
            optim.step()
        optim.zero_grad(set_to_none=True)


def pretrain(model: SpeechModel, texts: list[str], epochs: int, rate: float = 3e-3, size: int = 128) -> None:
    """Trains the language model on the sentences as text, after the prompt without audio."""
    modules = [model.language_model, model.lm_head]
    optims = optimizers(nn.ModuleDict({"llm": model.language_model, "lm_head": model.lm_head}), rate)
    steps, step = epochs * (len(texts) // size + 1), 0
    for epoch in range(epochs):
        order = sorted(texts, key=lambda text: len(text) + 5 * random.Random(text + str(epoch)).random())
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        random.Random(epoch).shuffle(batches)
        total = 0.0
        for batch in batches:
            loss = text_loss(model, batch)
            _step(modules, optims, loss, rate * one_cycle(step, steps))
            step, total = step + 1, total + loss.item()
        print(f"text epoch {epoch} loss {total / len(batches):.3f}", flush=True)


def align(
    model: SpeechModel,
    states: list[Tensor],
    texts: list[str],
    state: Path,
    epochs: int,
    rate: float,
    seconds: float = 110.0,
) -> None:
    """Trains projector and language model on cached encoder states. Resumes from `state`, written every epoch."""
    trained = nn.ModuleDict({"projector": model.projector, "llm": model.language_model, "lm_head": model.lm_head})
    optims = optimizers(trained, rate)
    lengths = [np.empty(len(item) * 320, dtype=np.int8) for item in states]  # only the lengths matter
    steps = epochs * len(make_batches(lengths, random.Random(0), seconds))
    counters = load_state(state, "trained", trained, optims)
    step = counters.get("step", 0)
    for epoch in range(counters.get("epoch", 0), epochs):
        started, total = time.monotonic(), 0.0
        for number, batch in enumerate(make_batches(lengths, random.Random(epoch), seconds), start=1):
            frames = torch.tensor([len(states[i]) for i in batch])
            hidden = nn.utils.rnn.pad_sequence([states[i].float() for i in batch], True)
            embeds = project(model.projector, hidden, frames)
            audio = EncodedAudio(hidden, frames, embeds, model.num_audio_tokens(frames))
            loss = text_loss(model, [texts[i] for i in batch], audio)
            _step(list(trained.values()), optims, loss, rate * one_cycle(step, steps))
            step, total = step + 1, total + loss.item()
            if number % 50 == 0:
                print(
                    f"align epoch {epoch} {number} loss {total / 50:.3f} "
                    f"{(time.monotonic() - started) / number:.2f} s/step",
                    flush=True,
                )
                total = 0.0
        save_state(state, "trained", trained, optims, step=step, epoch=epoch + 1)


@torch.no_grad()
def transcribe(model: SpeechModel, waves: list[np.ndarray]) -> list[str]:
    """Greedy hypotheses of the language model."""
    model.eval()
    prompt, hypotheses = render(model.tokenizer, INSTRUCTION), {}
    for batch in make_batches(waves, random.Random(0)):
        features, frames = to_features([waves[i] for i in batch])
        audio = model.encode(features, frames)
        ids = [prompt.around(model.audio_token_id, count) for count in audio.num_tokens.tolist()]
        rows = decode(model, audio, ids, [Draft(model.tokenizer) for _ in batch], 60)
        for index, row in zip(batch, rows, strict=True):
            hypotheses[index] = " ".join(model.tokenizer.decode(row.tokens).split())
    return [hypotheses[i] for i in range(len(waves))]
