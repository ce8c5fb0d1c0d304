"""Adapts a base model to the prepared manifests, read from top to bottom; the best adapter is kept.

One process a device (Accelerate). Which clips make up an optimizer step depends on the recipe alone, and a
step's loss is the sum over its target tokens, on all ranks and micro-batches, divided by their number.
"""

import logging
import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from peft import PeftModel
from safetensors import SafetensorError

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, Interrupted, RecipeError
from finetune.core.files import is_full, replace_folder, sha256_file
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, read_manifest
from finetune.model.adapter import save_adapter
from finetune.model.granite import GraniteSpeech, load_model
from finetune.model.trainable import (
    LoraSpec,
    PartSpec,
    TrainableParts,
    fingerprints,
    open_parts,
    set_mode,
    summarize_parts,
    trained_parameters,
)
from finetune.training import checkpoint
from finetune.training.batch_size import memory_watched
from finetune.training.dataset import BatchSource, SpeechDataset
from finetune.training.interpolate import interpolated, starting_points
from finetune.training.progress import Progress
from finetune.training.sampler import padding_share, plan_epoch, shard_for_rank
from finetune.training.selection import Scores, canary_loss, format_scores, measure, rank
from finetune.training.signals import interruptible
from finetune.training.step import StepResult, TrainContext, fitting_seconds, optimizer_of, rate_of, schedule, take_step
from finetune.training.tracking import Tracker

log = logging.getLogger(__name__)
NOTES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-granite-speech" / "batch.json"
SPLITS = ("train", "replay", "valid", "canary")
SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")  # what `accelerate launch` may be asked for


@dataclass(frozen=True)
class TrainResult:
    """WER as fractions; `within_canary_limit` is whether the best adapter keeps `train.max_canary_loss`;
    `best_alpha` is below 1 where `train.interpolate` gave the best."""

    best_epoch: int
    best_alpha: float
    best_valid_wer: float
    base_valid_wer: float
    best_canary_wer: float | None
    base_canary_wer: float | None
    within_canary_limit: bool
    steps: int
    skipped_steps: int
    padding: float
    clips_per_second: float
    trained_parameters: int
    total_parameters: int
    seconds: float


@dataclass
class State:
    """Where training stands; a checkpoint holds it."""

    epoch: int = 0
    steps_in_epoch: int = 0
    step: int = 0
    skipped: int = 0
    loss: float = 0.0  # summed over the epoch's steps so far
    base: dict[str, Any] | None = None  # Scores
    best: dict[str, Any] | None = None
    best_epoch: int = 0
    best_alpha: float = 1.0  # of the way from the base's weights to that epoch's
    finished: bool = False


def train(recipe: Recipe, run: RunDir) -> TrainResult:
    """Trains, resuming from the run's checkpoint where there is one, and leaves the best adapter in `run.best`.

    Raises:
        CheckpointError: the checkpoint is of another recipe, base or data, or is damaged; too many steps had a
            loss or gradient that is no number; the launcher asked for a model in pieces.
        RecipeError: a batch cannot hold the longest clip.
        ModelError: the base cannot be loaded, a part does not exist, or memory runs out.
        Interrupted: a signal stopped it; the checkpoint holds the last step.
    """
    started, settings = time.monotonic(), recipe.train
    if sharded := [name for name in SHARDED if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"]:
        raise CheckpointError(
            f"accelerate launch was asked for {sharded[0]}, but here each process holds the whole "
            "model: launch with --multi_gpu; where memory is short, set train.batch: auto, "
            "machine.gradient_checkpointing: true or model.quantize: 4bit"
        )
    # Buffers never change, and gradients need not lie in memory twice. Precision is the recipe's, not the launcher's.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # Nor is its choice of a device: on a Mac it would take the GPU, on which nothing here has run.
    accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available(), kwargs_handlers=[ddp])
    ranks, main = accelerator.num_processes, accelerator.is_main_process
    torch.manual_seed(recipe.seed)
    model = load_model(
        recipe.model.base, recipe.model.dtype, accelerator.device, recipe.model.revision, recipe.model.quantize
    )
    base = f"{sum(fingerprints(model).values()) % 2**64:016x}"
    total = sum(p.numel() for p in model.parameters())
    adapted = open_parts(model, trainable_parts(recipe))
    if recipe.machine.gradient_checkpointing:
        model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    parameters = trained_parameters(model)
    optimizer = optimizer_of(recipe, parameters)

    manifests = {split: run.manifest(split) for split in SPLITS if getattr(recipe.data, split)}
    clips = {split: read_manifest(path) for split, path in manifests.items()}
    heard: dict[str, list[Utterance]] = {split: clips[split] for split in ("valid", "canary") if split in clips}
    data = SpeechDataset(model, recipe, clips["train"], clips.get("replay", []))
    epochs = [data.heard(epoch) for epoch in range(settings.epochs)]
    longest = max(range(len(data.positions)), key=data.positions.__getitem__)
    if data.positions[longest] > settings.batch_tokens:
        raise RecipeError(
            f"train.batch_tokens: {settings.batch_tokens} cannot hold {data.utterances[longest].id}, "
            f"which takes {data.positions[longest]} positions; raise it, or lower data.max_duration"
        )
    with model.autocast():
        feed = BatchSource(data, recipe, run.cache, base, main)
    engine = TrainContext(recipe, accelerator, model, model, optimizer, parameters, data)
    saved = checkpoint.find(run.checkpoint)
    group, seconds = ranks * settings.accumulation, settings.batch_seconds
    if settings.batch == "auto":
        seconds = (
            checkpoint.read_origin(saved)["batch_seconds"] if saved else fitting_seconds(engine, feed, base, NOTES)
        )
    origin = {
        **recipe.model_dump(mode="json", include={"model", "augment", "parts", "train", "seed"}),
        "base": base,
        "data": {split: sha256_file(path) for split, path in manifests.items()},
        "replay_weight": recipe.data.replay_weight,
        "batches_in_a_step": group,
        "batch_seconds": seconds,
    }
    plans = [
        plan_epoch(data.durations, data.positions, seconds, settings.batch_tokens, group, recipe.seed, epoch, chosen)
        for epoch, chosen in enumerate(epochs)
    ]
    steps, padding = sum(map(len, plans)), padding_share(plans[0], data.durations)
    rates = [slot["lr"] for slot in optimizer.param_groups]
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    start = starting_points(parameters) if settings.interpolate else {}
    state = _resume(saved, origin, run, parameters, optimizer) if saved else State()
    engine = TrainContext(recipe, accelerator, model, wrapped, optimizer, parameters, data)

    def save() -> bool:
        return checkpoint.save(run.checkpoint, parameters, optimizer, asdict(state), origin)

    def agreed(fine: bool) -> bool:
        """Whether it is so on every rank."""
        return int(accelerator.reduce(torch.tensor(int(fine), device=accelerator.device), "sum")) == ranks

    tracker: Tracker | None = None

    def judge(way: float) -> tuple[Scores, bool]:
        """Scores of the weights as they stand, and whether they are the best so far: then they are kept."""
        set_mode(model, training=False)
        now = measure(model, heard, recipe, accelerator)
        better = _is_better(now, state, settings.max_canary_loss)
        better = better and agreed(not main or _save_best(model, adapted, run))
        if better:
            state.best, state.best_epoch, state.best_alpha = asdict(now), state.epoch, way
        if tracker:
            tracker.record("valid", state.step, epoch=state.epoch, alpha=way, wer=now.valid, canary_wer=now.canary)
        return now, better

    with memory_watched(), ExitStack() as stack:
        stop = stack.enter_context(interruptible())
        if main:
            tracker = Tracker(
                run.metrics,
                recipe.name,
                list(recipe.machine.trackers),
                recipe.model_dump(mode="json"),
                state.step if saved else None,
            )
            stack.callback(tracker.close)
            for row in summarize_parts(model):
                log.info(
                    "trains %-14s %4d modules %12s parameters, rate %g",
                    row.part,
                    row.modules,
                    f"{row.parameters:,}",
                    rate_of(recipe, row.part),
                )
            log.info("%d steps, %.1f %% padding, batches of up to %g s", steps, 100 * padding, seconds)
        progress = stack.enter_context(Progress(steps, state.step, settings.epochs, sys.stdout.isatty(), main))
        if state.base is None:
            set_mode(model, training=False)
            state.base = asdict(measure(model, heard, recipe, accelerator))
            progress.say(f"base model: {format_scores(Scores(**state.base))}")
        before: dict[str, int] | None = fingerprints(model)
        count, spent = 0, 0.0
        while state.epoch < settings.epochs and not state.finished:
            set_mode(model, training=True)
            plan = plans[state.epoch][state.steps_in_epoch :]
            mine = [shard_for_rank(step, accelerator.process_index, ranks) for step in plan]
            batches = feed.batches(
                [micro or step[0] for step, own in zip(plan, mine, strict=True) for micro in own], state.epoch
            )
            for step, own in zip(plan, mine, strict=True):
                factor = schedule(state.step, steps, settings.warmup)
                for slot, rate in zip(optimizer.param_groups, rates, strict=True):
                    slot["lr"] = rate * factor
                clock = time.monotonic()
                done = take_step(engine, step, own, batches, state.step, stop.signum, before)
                spent += time.monotonic() - clock
                state.step, state.steps_in_epoch = state.step + 1, state.steps_in_epoch + 1
                if done.taken:
                    before, state.loss = None, state.loss + done.loss
                else:
                    _skip(state, step, data, done, settings.max_skipped_steps)
                chosen = [data.utterances[index] for micro in step for index in micro]
                count += len(chosen)
                progress.step(
                    epoch=state.epoch + 1,
                    loss=done.loss,
                    rate=factor * rates[0],
                    audio_seconds=sum(item.duration for item in chosen),
                    padding=padding_share([step], data.durations),
                )
                if tracker:
                    tracker.record("step", state.step, loss=done.loss, grad_norm=done.grad_norm, rate=factor * rates[0])
                due = state.step % recipe.machine.checkpoint_every == 0 and step is not plan[-1]
                kept = main and (done.stop or due) and save()
                if done.stop:
                    raise Interrupted(state.step if kept or not main else None, stop.signum or signal.SIGTERM)
            text = f"epoch {state.epoch + 1}/{settings.epochs}  loss {state.loss / len(plans[state.epoch]):.3f}"
            text += f"  {count / spent:.1f} clips/s" if spent else ""
            state.epoch, state.steps_in_epoch, state.loss = state.epoch + 1, 0, 0.0
            if state.epoch % settings.evaluate_every == 0 or state.epoch == settings.epochs:
                now, better = judge(1.0)
                state.finished = 0 < settings.patience * settings.evaluate_every <= state.epoch - state.best_epoch
                text += f"  {format_scores(now)}{'  (best)' if better else ''}" + "; stopped early" * state.finished
            progress.say(text)
            kept = main and save()
            if not agreed(not stop.signum):  # it came during the evaluation
                raise Interrupted(state.step if kept or not main else None, stop.signum or signal.SIGTERM)
        for way in settings.interpolate:
            with interpolated(parameters, start, way):
                now, better = judge(way)
            progress.say(
                f"{100 * way:g} % of the way from the base  {format_scores(now)}{'  (best)' if better else ''}"
            )
            if not agreed(not stop.signum):
                raise Interrupted(state.step, stop.signum or signal.SIGTERM)
    # The process group ends with the process: taken apart sooner, DDP's reducer is the last to hold it, and waits for
    # gloo's threads while it has Python's lock, for which one of them may wait.

    first, best = Scores(**(state.base or {})), Scores(**(state.best or {}))
    within = rank(best, first, settings.max_canary_loss)[0] == 0
    if not within:
        log.warning(
            "no adapter kept the canary within train.max_canary_loss; the nearest is kept, %.1f points worse "
            "than the base",
            100 * canary_loss(best, first),
        )
    return TrainResult(
        state.best_epoch,
        state.best_alpha,
        best.valid,
        first.valid,
        best.canary,
        first.canary,
        within,
        state.step,
        state.skipped,
        round(padding, 4),
        round(count / max(1e-9, spent), 2),
        sum(p.numel() for p in parameters.values()),
        total,
        round(time.monotonic() - started, 1),
    )


def trainable_parts(recipe: Recipe) -> TrainableParts:
    """The recipe's parts as plain values."""
    parts = recipe.parts
    lora = parts.lora
    return TrainableParts(
        LoraSpec(lora.rank, lora.alpha, lora.dropout, lora.variant, list(lora.modules)),
        PartSpec(parts.projector.mode, parts.projector.rank, parts.projector.alpha),
        PartSpec(parts.encoder.mode, parts.encoder.rank, parts.encoder.alpha),
        parts.encoder.blocks,
        parts.ctc_head.mode == "full",
        parts.lm_head.mode == "full",
        parts.language_model.layers,
    )


def _resume(
    saved: Path,
    origin: dict[str, Any],
    run: RunDir,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> State:
    changed = checkpoint.differences(checkpoint.read_origin(saved), origin)
    if changed:
        raise CheckpointError(
            f"{saved} was made otherwise: {'; '.join(changed[:5])}. Put it back, choose another name "
            f"with --set name=..., or delete {run.root} to start again"
        )
    state = State(**checkpoint.restore(saved, parameters, optimizer))
    log.info("resumed after step %d", state.step)
    return state


def _skip(state: State, step: list[list[int]], data: SpeechDataset, done: StepResult, budget: int) -> None:
    """Counts a step that was not taken. Raises CheckpointError beyond the budget: nothing is saved any more."""
    state.skipped += 1
    ids = [data.utterances[index].id for micro in step for index in micro]
    text = f"step {state.step}: loss {done.loss:g}, gradient {done.grad_norm:g}, utterances {', '.join(ids[:8])}"
    text += f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    if state.skipped > budget:
        raise CheckpointError(
            f"{text}. More than train.max_skipped_steps {budget} such steps: look at these clips, or "
            "lower the learning rates; the last checkpoint is good"
        )
    log.warning("%s: skipped", text)


def _is_better(now: Scores, state: State, max_canary_loss: float | None) -> bool:
    first = Scores(**(state.base or {}))
    return state.best is None or (
        rank(now, first, max_canary_loss) < rank(Scores(**state.best), first, max_canary_loss)
    )


def _save_best(model: GraniteSpeech, adapted: PeftModel | None, run: RunDir) -> bool:
    """False where the disk is full: the best one so far stays."""
    staged = run.best.with_name("best.part")
    try:
        save_adapter(model, adapted, staged)
        replace_folder(staged, run.best)
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        shutil.rmtree(staged, ignore_errors=True)
        log.warning("%s: the disk is full; this better adapter is not kept", run.best)
        return False
    return True
