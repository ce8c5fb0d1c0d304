"""Adapts a base model to the prepared manifests, read from top to bottom; the best adapter is kept.

One process a device (Accelerate). The plan of an epoch is the same on every rank, and a step's loss
is the sum over its target tokens, on all ranks and micro-batches, divided by their number.
"""

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from finetune.config import Recipe
from finetune.data.augment import WaveAugment, mask_features, sample_rng
from finetune.data.features import log_mel, pad_features
from finetune.data.loader import Clips, plan_epoch, share, waves_of
from finetune.data.manifest import Utterance, manifest_hash, read_manifest
from finetune.decoding.recognize import DecodeOptions, recognize
from finetune.errors import CheckpointError
from finetune.metrics.wer import score
from finetune.model.ctc import to_labels
from finetune.model.granite import GraniteSpeech, load_model
from finetune.model.lora import add_lora, count_trained, open_parts, part_of, save_adapter, set_mode, trained_parameters
from finetune.model.prompt import encode_text, render
from finetune.runs import RunDir
from finetune.training import checkpoint
from finetune.training.loss import IGNORE, ctc_loss, token_loss
from finetune.training.tracking import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """WER as fractions, on the valid manifest; `seconds` of this process only."""

    best_epoch: int
    best_valid_wer: float
    base_valid_wer: float
    steps: int
    trained_parameters: int
    total_parameters: int
    seconds: float


def train(recipe: Recipe, run: RunDir) -> TrainResult:
    """Trains, resuming from the run's checkpoint where there is one, and leaves the best adapter in `run.best`.

    Raises:
        CheckpointError: the checkpoint was made from other data or other parts.
        ModelError: the base cannot be loaded, or a LoRA module does not exist.
    """
    started = time.monotonic()
    settings = recipe.train
    accelerator = Accelerator(mixed_precision="bf16" if torch.cuda.is_available() else "no")
    torch.manual_seed(recipe.seed)
    model = load_model(recipe.model.base, recipe.model.dtype, accelerator.device, recipe.model.revision)
    total = sum(p.numel() for p in model.parameters())
    adapted = None
    if settings.lora_rank:
        adapted = add_lora(model, settings.lora_rank, settings.lora_alpha, settings.lora_dropout, settings.lora_modules)
    open_parts(model, settings.projector, settings.encoder_blocks)
    if settings.gradient_checkpointing:
        model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
        model.language_model.enable_input_require_grads()
    parameters = trained_parameters(model)
    data = _Examples(model, recipe, read_manifest(run.manifest("train")))
    valid = read_manifest(run.manifest("valid"))

    group = accelerator.num_processes * settings.accumulation
    plans = [plan_epoch(data.durations, settings.batch_seconds, group, recipe.seed, epoch)
             for epoch in range(settings.epochs)]
    steps = sum(map(len, plans))
    optimizer = torch.optim.AdamW(_groups(recipe, parameters), weight_decay=settings.weight_decay)
    warmup = max(1, round(settings.warmup * steps))
    rates = [group["lr"] for group in optimizer.param_groups]
    data_hash = manifest_hash(run.manifest("train"))
    state = {"epoch": 0, "step": 0, "best_epoch": 0, "best_valid_wer": float("inf"), "base_valid_wer": 0.0,
             "data": data_hash, "accumulation": group}
    saved = checkpoint.find(run.checkpoint)
    if saved is not None:
        state = checkpoint.restore(saved, parameters, optimizer)
        if state["data"] != data_hash:
            raise CheckpointError(f"{saved}: made from another train manifest; delete {run.root} to start again")
        if state["accumulation"] != group:
            raise CheckpointError(f"{saved}: made with {state['accumulation']} batches in a step (devices times "
                                  f"train.accumulation), now there are {group}; use as many devices as before")
        log.info("resumed after epoch %d of %d", state["epoch"], settings.epochs)
    wrapped, optimizer = accelerator.prepare(model, optimizer)

    tracker = None
    if accelerator.is_main_process:
        tracker = Tracker(run.metrics, recipe.name, settings.wandb, recipe.model_dump())
        for part, (tensors, count) in count_trained(model).items():
            log.info("trains %-14s %4d tensors %11s parameters", part, tensors, f"{count:,}")
    if saved is None:
        state["base_valid_wer"] = _valid_wer(model, valid, recipe, accelerator)
        if accelerator.is_main_process:
            log.info("valid WER of the base model %.1f %%", 100 * state["base_valid_wer"])

    for epoch in range(state["epoch"], settings.epochs):
        torch.manual_seed(recipe.seed + epoch)  # LoRA's dropout, alike in a run that was stopped and resumed
        set_mode(model, training=True)
        ranges = WaveAugment(recipe.augment.speed, recipe.augment.gain_db, recipe.augment.noise_db)
        clips = Clips(data.utterances, ranges, recipe.seed, epoch)
        mine = [share(step, accelerator.process_index, accelerator.num_processes, settings.accumulation)
                for step in plans[epoch]]
        # A rank with nothing to do in a step's last micro-batches repeats the first with weight 0.
        batches = [micro or plans[epoch][number][0] for number, step in enumerate(mine) for micro in step]
        waves = waves_of(clips, batches, settings.workers)
        clock, seen, losses = time.monotonic(), 0, 0.0
        for number, step in enumerate(plans[epoch]):
            tokens = sum(data.num_tokens(i) for micro in step for i in micro)
            characters = max(1, sum(len(data.labels[i]) for micro in step for i in micro))
            done = state["step"]
            scale = (done + 1) / warmup if done < warmup else (steps - done) / (steps - warmup)
            for slot, rate in zip(optimizer.param_groups, rates, strict=True):
                slot["lr"] = rate * scale
            step_loss = 0.0
            for position, micro in enumerate(mine[number]):
                chosen = micro or step[0]
                features, frames = data.features(chosen, next(waves), epoch)
                ids, labels = data.sequences(chosen, model.num_audio_tokens(frames).tolist())
                last = position == len(mine[number]) - 1
                with accelerator.no_sync(wrapped) if not last else nullcontext(), accelerator.autocast():
                    hidden, audio = wrapped(features, frames, ids)
                    loss = token_loss(hidden, labels, model.logits) / tokens
                    step_loss += loss.item() if micro else 0.0
                    if settings.ctc_weight:
                        targets = [data.labels[i] for i in chosen]
                        ctc = ctc_loss(model.ctc_logits(audio.states), frames, targets)
                        loss = loss + settings.ctc_weight * ctc / characters
                    # DDP averages over ranks; the sum over all of them is wanted.
                    accelerator.backward(loss * accelerator.num_processes * bool(micro))
            norm = accelerator.clip_grad_norm_(list(parameters.values()), settings.max_grad_norm)
            if not torch.isfinite(norm):
                raise CheckpointError(f"gradient is {float(norm)} at step {state['step'] + 1} "
                                      f"(utterances {[data.utterances[i].id for i in step[0][:5]]}); lower the rate")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state["step"] += 1
            step_loss = float(accelerator.reduce(torch.tensor(step_loss, device=accelerator.device), "sum"))
            losses += step_loss
            seen += sum(map(len, step))
            if tracker:
                tracker.record(kind="step", step=state["step"], loss=step_loss, grad_norm=float(norm),
                               rate=scale * rates[0])
        state["epoch"] = epoch + 1
        text = (f"epoch {epoch + 1}/{settings.epochs}  loss {losses / len(plans[epoch]):.3f}  "
                f"{seen / (time.monotonic() - clock):.1f} clips/s")
        stop = False
        if (epoch + 1) % settings.evaluate_every == 0 or epoch + 1 == settings.epochs:
            wer = _valid_wer(model, valid, recipe, accelerator)
            text += f"  valid WER {100 * wer:.1f} %"
            if wer < state["best_valid_wer"]:
                state["best_valid_wer"], state["best_epoch"] = wer, epoch + 1
                if accelerator.is_main_process:
                    staged = run.best.with_name("best.part")
                    save_adapter(model, adapted, staged)
                    checkpoint.replace_folder(staged, run.best)
                text += "  (best)"
            waited = epoch + 1 - state["best_epoch"]
            stop = 0 < settings.patience * settings.evaluate_every <= waited
            if tracker:
                tracker.record(kind="valid", epoch=epoch + 1, step=state["step"], wer=wer)
        if accelerator.is_main_process:
            log.info(text)
            checkpoint.save(run.checkpoint, parameters, optimizer, state)
        accelerator.wait_for_everyone()
        if stop:
            log.info("no better valid WER for %d epochs: stopped early", epoch + 1 - state["best_epoch"])
            break
    if tracker:
        tracker.close()
    return TrainResult(state["best_epoch"], state["best_valid_wer"], state["base_valid_wer"], state["step"],
                       sum(p.numel() for p in parameters.values()), total, round(time.monotonic() - started, 1))


class _Examples:
    """The train manifest as tensors: prompts, targets and CTC labels made once, features on demand."""

    def __init__(self, model: GraniteSpeech, recipe: Recipe, utterances: list[Utterance]) -> None:
        self.model, self.recipe, self.utterances = model, recipe, utterances
        self.durations = [item.duration for item in utterances]
        tokenizer = model.tokenizer
        self.prompts = [render(tokenizer, recipe.model.instruction, item.keywords) for item in utterances]
        self.targets = [[*encode_text(tokenizer, item.text), tokenizer.eos_token_id] for item in utterances]
        lost, self.labels = 0, []
        for item in utterances:
            labels, missing = to_labels(item.text)
            self.labels.append(labels)
            lost += missing
        if lost and recipe.train.ctc_weight:
            log.warning("%d characters are outside the CTC alphabet and left out of its targets", lost)

    def num_tokens(self, index: int) -> int:
        return len(self.targets[index])

    def features(self, indices: list[int], waves: list[np.ndarray], epoch: int) -> tuple[Tensor, Tensor]:
        """Features of a micro-batch on the model's device, each clip's own before padding."""
        masks = self.recipe.augment
        made = []
        for index, wave in zip(indices, waves, strict=True):
            item = log_mel(torch.from_numpy(wave).to(self.model.device))
            if masks.mel_mask or masks.time_mask:
                rng = sample_rng(self.recipe.seed, epoch, self.utterances[index].id + "/mask")
                item = mask_features(item, masks.mel_mask, masks.time_mask, rng)
            made.append(item)
        return pad_features(made)

    def sequences(self, indices: list[int], audio_tokens: list[int]) -> tuple[Tensor, Tensor]:
        """Right-padded token ids and labels (B, L) of a micro-batch."""
        pad, device = torch.nn.utils.rnn.pad_sequence, self.model.device
        ids, labels = [], []
        for index, count in zip(indices, audio_tokens, strict=True):
            before = self.prompts[index].around(self.model.audio_token_id, count)
            ids.append(torch.tensor(before + self.targets[index], device=device))
            labels.append(torch.tensor([IGNORE] * len(before) + self.targets[index], device=device))
        return pad(ids, True, 0), pad(labels, True, IGNORE)


def _groups(recipe: Recipe, parameters: dict[str, torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Optimizer groups, one for each part that trains, with its learning rate."""
    settings = recipe.train
    rates = {"projector": settings.projector_learning_rate, "encoder": settings.encoder_learning_rate}
    parts: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        parts.setdefault(part_of(name), []).append(parameter)
    return [{"params": members, "lr": rates.get(part) or settings.learning_rate} for part, members in parts.items()]


def _valid_wer(model: GraniteSpeech, valid: list[Utterance], recipe: Recipe, accelerator: Accelerator) -> float:
    """Corpus WER of generated text on the valid manifest, each rank hearing its share."""
    set_mode(model, training=False)
    options = DecodeOptions(recipe.model.instruction, recipe.decode.decoder == "speculative",
                            recipe.decode.batch_seconds, recipe.decode.max_new_tokens)
    mine = valid[accelerator.process_index :: accelerator.num_processes]
    with accelerator.autocast():
        heard = [(hypothesis.id, hypothesis.text) for hypothesis in recognize(model, mine, options)]
    texts = dict(gather_object(heard))
    return score([item.text for item in valid], [texts[item.id] for item in valid], recipe.evaluate.normalizer).wer
