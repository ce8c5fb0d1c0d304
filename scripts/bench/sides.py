"""The two sides of the benchmark: IBM's notebook (transformers' Trainer), and the optimizer step of this toolkit."""

import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from bench.count import Amount, Tally, count_weights, forget_peak, matmul_limit, now, pass_flops, peak_memory
from bench.material import ACCUMULATION, BATCH, LORA, Material, Setup, build_model, gather, opened, recipe_of
from finetune.data.features import FEATURE_DIM, log_mel, num_frames
from finetune.model.granite import SpeechModel
from finetune.model.trainable import open_parts, set_mode, target_pattern, trained_parameters
from finetune.training.collate import Batch, batch_from_cache, batch_from_waves
from finetune.training.dataset import SpeechDataset
from finetune.training.encoder_cache import StateCache, cached_states
from finetune.training.loss import IGNORE, token_loss
from finetune.training.optimizer import build_optimizer
from finetune.training.parts import checkpoint_activations
from finetune.training.plan import plan_epoch
from finetune.training.signals import Stop
from finetune.training.step import OptimizerStep

# The variants, in this order. Those below `ours` change one thing in it. The language model alone has its batches in
# memory before the clock starts and does nothing with audio: it is the upper limit of what a cache can reach.
VARIANTS = {
    "baseline": "the notebook's recipe (Trainer)",
    "ours": "ours",
    "all_logits": "  logits at every position",
    "no_buckets": "  16 clips at random, no buckets",
    "hf_encoder": "  transformers' encoder forward",
    "cache": "  with the encoder's output cached",
    "checkpointing": "  with gradient checkpointing",
    "compile": "  with the LLM's layers compiled",
    "llm": "the language model alone",
    "cache_embeds": "  with the projector's output cached",
}
LLM = ("llm", "cache_embeds")  # these two train LoRA alone


@dataclass(frozen=True)
class Measured:
    """One variant: seconds of each pass over the clips after the first, and what a pass holds."""

    variant: str
    seconds: list[float]
    memory: int  # bytes, see `peak_memory`
    frame_padding: float
    position_padding: float
    flops: float  # needed in a pass
    limit: float  # of the machine, the better of just before and just after: operations a second
    clips: int
    audio_seconds: float
    optimizer_steps: int  # in the last pass
    trained: int  # parameters


def measure(setup: Setup, variant: str) -> Measured:
    """Builds the model and trains one pass to warm up and `setup.steps` more. Each variant needs a fresh process."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)  # PEFT uses a name that transformers has deprecated
    model = build_model(setup.size, setup.device)
    material = gather(setup, model)
    recipe = recipe_of(setup, material.utterances, variant == "checkpointing")
    data, tally, marks = SpeechDataset(model, recipe, material.utterances), Tally(), list[float]()
    limit = matmul_limit(setup.device)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if variant == "hf_encoder":
            stack.enter_context(patch("finetune.model.granite.encode", as_transformers))
        if variant == "baseline":
            run = notebook(setup, data, material, tally, marks, folder)
        else:
            run = toolkit(setup, data, material, tally, marks, folder, variant)
        initial_memory = forget_peak(setup.device)
        steps = run()
        memory = peak_memory(setup.device) - initial_memory
    limit = max(limit, matmul_limit(setup.device))
    frames = sum(num_frames(len(wave)) for wave in material.waves)
    audio = sum(model.num_audio_tokens(torch.tensor([num_frames(len(wave)) for wave in material.waves])).tolist())
    all_clips = list(range(setup.clips))
    amount = Amount(frames, audio, int(data.positions.sum()), data.tokens(all_clips))
    frame_padding, position_padding = tally.padding_fractions()
    weights = count_weights(model.hf)
    if variant in LLM:
        weights = replace(weights, encoder=0, keys=0, projector=0)
    return Measured(
        variant,
        [end - start for start, end in pairwise(marks[1:])],
        memory,
        frame_padding,
        position_padding,
        pass_flops(weights, amount, encoder_runs=variant != "cache"),
        limit,
        setup.clips,
        sum(item.duration for item in material.utterances),
        steps,
        sum(value.numel() for value in trained_parameters(model).values()),
    )


# -- the notebook's recipe --


def open_as_notebook(model: SpeechModel, rank: int) -> nn.Module:
    """Adds LoRA with PEFT, then freezes all parameters except those with `projector` or `lora` in the name.

    granite-4.0-1b-speech has no LoRA of its own, so the notebook trains its projector alone: rank 0 here.
    """
    adapted: nn.Module = model.hf
    if rank:
        pattern = target_pattern(LORA.modules, len(model.language_model.layers))
        adapted = get_peft_model(model.hf, LoraConfig(r=rank, lora_alpha=LORA.alpha, target_modules=pattern))
    for name, value in model.hf.named_parameters():
        value.requires_grad_("projector" in name or "lora" in name)
    return adapted


def collate(data: SpeechDataset, waves: list[np.ndarray], chosen: Sequence[int]) -> dict[str, Tensor]:
    """A batch as IBM's processor and the notebook's collator shape it; features are by our front end.

    Waveforms are padded to the longest before their features are made; prompts are padded at the left and targets at
    the right, so padding stands in the middle of short rows too; labels are IGNORE on prompts and on padding.
    """
    model, pad = data.model, torch.nn.utils.rnn.pad_sequence
    longest = max(len(waves[index]) for index in chosen)
    features = [
        log_mel(F.pad(torch.from_numpy(waves[index]).to(model.device), (0, longest - len(waves[index]))))
        for index in chosen
    ]
    counts = model.num_audio_tokens(torch.tensor([num_frames(len(waves[index])) for index in chosen]))
    prompts = [
        torch.tensor(data.prompt(index).around(model.audio_token_id, count))
        for index, count in zip(chosen, counts.tolist(), strict=True)
    ]
    targets = [torch.tensor(data.target(index)) for index in chosen]
    padded_prompts = pad(prompts, True, -1, padding_side="left")
    padded_targets = pad(targets, True, -1)
    ids = torch.cat([padded_prompts, padded_targets], dim=1)
    labels = torch.cat(
        [torch.full_like(padded_prompts, IGNORE), padded_targets.masked_fill(padded_targets < 0, IGNORE)], dim=1
    )
    made = {
        "input_ids": ids.masked_fill(ids < 0, model.tokenizer.pad_token_id),
        "attention_mask": (ids >= 0).long(),
        "labels": labels,
        "input_features": torch.stack(features),
        "input_features_mask": torch.arange(int(counts.max()))[None, :] < counts[:, None],
    }
    return {name: value.to(model.device) for name, value in made.items()}


class Clock(TrainerCallback):  # type: ignore[misc]
    """Records the time at the start of training and at the end of each epoch, which is a pass over the clips."""

    def __init__(self, marks: list[float], device: str) -> None:
        self.marks, self.device = marks, device

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.marks.append(now(self.device))

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.marks.append(now(self.device))


def training_arguments(folder: Path, device: str, **others: Any) -> TrainingArguments:
    """The notebook's settings, and the Trainer's defaults for the rest; `others` replace them."""
    settings = {
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": ACCUMULATION,
        "learning_rate": 3e-5,
        "bf16": device == "cuda",
        "use_cpu": device == "cpu",
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,  # batches are made on the device
    }
    return TrainingArguments(str(folder), **{**settings, **others})


def notebook(
    setup: Setup, data: SpeechDataset, material: Material, tally: Tally, marks: list[float], folder: Path
) -> Callable[[], int]:
    """Sets up the notebook's training; calling the result runs it and returns the optimizer steps of a pass.

    Its settings: batches of 16 in random order, 2 of them accumulated, learning rate 3e-5, bfloat16 autocast on a GPU,
    and the Trainer's defaults for the rest (fused AdamW; everything in train mode, frozen parts too).
    """
    adapted = open_as_notebook(data.model, setup.rank)

    def collator(chosen: list[int]) -> dict[str, Tensor]:
        batch = collate(data, material.waves, chosen)
        needed = sum(num_frames(len(material.waves[index])) for index in chosen)
        tally.add(
            (needed, int(data.positions[list(chosen)].sum())),
            (batch["input_features"].numel() // FEATURE_DIM, batch["input_ids"].numel()),
        )
        return batch

    trainer = Trainer(
        adapted,
        training_arguments(folder, setup.device, num_train_epochs=1 + setup.steps),
        data_collator=collator,
        train_dataset=list(range(setup.clips)),
        callbacks=[Clock(marks, setup.device)],
    )
    trainer.remove_callback(PrinterCallback)
    return lambda: trainer.train().global_step // (1 + setup.steps)


# -- ours --


def every_position(hidden: Tensor, labels: Tensor, logits: Callable[[Tensor], Tensor], smoothing: float) -> Tensor:
    """`token_loss` as a model's own forward computes it: logits at every position, padding included."""
    return F.cross_entropy(
        logits(hidden[:, :-1]).flatten(0, 1),
        labels[:, 1:].flatten(),
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=smoothing,
    )


def as_transformers(encoder: Any, features: Tensor, num_frames: Tensor) -> tuple[Tensor, Tensor]:
    """`encode` by transformers: blocks of 200 frames always, its own attention, no mask for padding."""
    states: Tensor = encoder(features).last_hidden_state
    return states, states[:0]


def toolkit(
    setup: Setup, data: SpeechDataset, material: Material, tally: Tally, marks: list[float], folder: Path, variant: str
) -> Callable[[], int]:
    """Sets up our training as `Trainer` does; calling the result runs it, as for `notebook`."""
    accelerator = Accelerator(cpu=setup.device == "cpu")
    model, recipe = data.model, data.recipe
    source = "embeds" if variant in LLM else "states" if variant == "cache" else "features"
    states = cached(data, material, source, folder) if source != "features" else None
    open_parts(model, opened(setup.rank, "frozen" if variant in LLM else "full"))
    checkpoint_activations(model, recipe.machine)
    for layer in model.language_model.layers if variant == "compile" else ():
        layer.compile(dynamic=True)  # each layer, as they share what is compiled; the lengths of batches differ
    parameters = trained_parameters(model)
    wrapped, optimizer = accelerator.prepare(model, build_optimizer(recipe, parameters))
    loss = every_position if variant == "all_logits" else token_loss
    optimizer_step = OptimizerStep(recipe, accelerator, model, wrapped, optimizer, parameters, data, loss)

    def batch(chosen: list[int]) -> Batch:
        made = (
            batch_from_waves(data, chosen, [material.waves[index] for index in chosen], 0)
            if states is None
            else batch_from_cache(data, chosen, source, [states[index] for index in chosen])
        )
        lengths = [
            num_frames(len(material.waves[index])) if states is None else int(states.frames[index]) for index in chosen
        ]
        tally.add(
            (sum(lengths), int(data.positions[list(chosen)].sum())),
            (made.audio.shape[0] * made.audio.shape[1], made.ids.numel()),
        )
        return made

    plans = [plan(data, setup.clips, epoch, variant != "no_buckets") for epoch in range(1 + setup.steps)]
    prepared = [[list(map(batch, step)) for step in steps] for steps in plans] if variant == "llm" else None

    def run() -> int:
        num_steps = 0
        marks.append(now(setup.device))
        for epoch, steps in enumerate(plans):
            set_mode(model, training=True)
            for step_index, step in enumerate(steps):
                batches = map(batch, step) if prepared is None else iter(prepared[epoch][step_index])
                optimizer_step.run(step, step, batches, num_steps, Stop(), None)
                num_steps += 1
            marks.append(now(setup.device))
        return len(plans[-1])

    return run


def plan(data: SpeechDataset, clips: int, epoch: int, by_length: bool) -> Sequence[list[list[int]]]:
    """The steps of an epoch: the toolkit's, with clips of similar length in a batch, or clips in random order."""
    if by_length:
        limits, seed = data.recipe.train, data.recipe.seed
        seconds, tokens = limits.batch_seconds, limits.batch_tokens
        return plan_epoch(data.durations, data.positions, seconds, tokens, ACCUMULATION, seed, epoch, range(clips))
    order = random.Random(epoch).sample(range(clips), clips)
    batches = [order[start : start + BATCH] for start in range(0, clips, BATCH)]
    return [batches[start : start + ACCUMULATION] for start in range(0, len(batches), ACCUMULATION)]


def cached(data: SpeechDataset, material: Material, kind: str, folder: Path) -> StateCache:
    """Encoder `states` of each clip (T, D), or `embeds` (A, H), on disk as training keeps them."""

    @torch.inference_mode()
    def encode(chosen: Sequence[int]) -> list[Tensor]:
        batch = batch_from_waves(data, list(chosen), [material.waves[index] for index in chosen], 0)
        audio = data.model.encode(batch.audio, batch.num_frames)
        rows, counts = (audio.embeds, audio.num_tokens) if kind == "embeds" else (audio.states, audio.num_frames)
        return [row[:count] for row, count in zip(rows, counts.tolist(), strict=True)]

    batches = [[index] for index in range(len(material.waves))]
    return cached_states(folder / "cache", "bench", data.model.lm_head.weight.dtype, batches, encode)
