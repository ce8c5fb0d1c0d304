"""Runs a few optimizer steps of a training on real clips, to extrapolate its time. Nothing is saved."""

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch

from finetune.core.config import Recipe
from finetune.data.manifest import Utterance, seconds_of
from finetune.inference.recognize import recognize
from finetune.model.float32 import arithmetic_is_float32, load_for_training, train_in_float32
from finetune.model.granite import SpeechModel
from finetune.model.trainable import open_parts, set_mode, trained_parameters
from finetune.planning.speed import TimePlan, validations
from finetune.planning.steps import Clips, Steps
from finetune.training.batch_size import explain_out_of_memory
from finetune.training.batches import BatchSource
from finetune.training.dataset import SpeechDataset
from finetune.training.distributed import make_accelerator
from finetune.training.optimizer import build_optimizer
from finetune.training.parts import checkpoint_activations, trainable_parts
from finetune.training.signals import Stop
from finetune.training.step import OptimizerStep

REPEATS = 2  # measured steps on each batch, after one to warm up
DECODED = 8  # clips of valid that are decoded


def measure_time(
    recipe: Recipe,
    steps: Steps,
    valid: Sequence[Utterance],
    valid_seconds: float,
    load_model: Callable[..., SpeechModel] = load_for_training,
) -> TimePlan:
    """Trains on the largest and on a typical batch, and decodes a few clips of valid with the weights of the base.

    The time of a batch is taken to grow linearly with its padded audio. Several processes are taken to be as many times
    as fast as one. Augmentation, decoding of audio and the optimizer are in the time; checkpoints are not.

    Args:
        recipe: the recipe.
        steps: its plan.
        valid: clips of valid.
        valid_seconds: audio of valid and canary.
        load_model: loads the base.

    Raises:
        ModelError: the base cannot be loaded, or memory runs out.
        DataError: the audio of a clip of valid cannot be read.
    """
    processes, settings = steps.plan.processes, recipe.model
    accelerator = make_accelerator()
    with explain_out_of_memory(), _share_of_threads(processes if accelerator.device.type == "cpu" else 1):
        model = load_model(settings.base, settings.dtype, accelerator.device, settings.revision, settings.quantize)
        chosen = sorted(valid, key=lambda clip: clip.duration)[:: max(1, len(valid) // DECODED)][:DECODED]
        per_batch = _step_seconds(model, recipe, steps.measured)
        decoding = _decoding_seconds(model, chosen, recipe) if chosen else 0.0
    (large, slow), (typical, fast) = per_batch
    growth = (slow - fast) / (large - typical) if large > typical else 0.0
    batches = steps.plan.batches
    total = max(0.0, batches * fast + growth * (steps.padded_seconds - batches * typical)) / processes
    rate = decoding / max(1e-9, seconds_of(chosen))
    return TimePlan(
        total,
        validations(recipe) * rate * valid_seconds / processes,
        f"measured on {accelerator.device}: {fast:.2f} s for a batch of {typical:.0f} s of padded audio, "
        f"{slow:.2f} s for one of {large:.0f} s",
    )


class _share_of_threads:
    """Computes with as many threads as one of several processes gets."""

    def __init__(self, processes: int) -> None:
        self.processes, self.before = processes, torch.get_num_threads()

    def __enter__(self) -> None:
        torch.set_num_threads(max(1, self.before // self.processes))

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.before)


def _decoding_seconds(model: SpeechModel, clips: list[Utterance], recipe: Recipe) -> float:
    set_mode(model, training=False)
    started = time.monotonic()
    with model.autocast():
        recognize(model, clips, recipe.model.instruction, recipe.decode)
    return time.monotonic() - started


def _step_seconds(model: SpeechModel, recipe: Recipe, batches: tuple[Clips, Clips]) -> list[tuple[float, float]]:
    """Padded seconds of audio, and the median seconds of a step, of each batch."""
    open_parts(model, trainable_parts(recipe.parts))
    if arithmetic_is_float32(recipe.model.dtype, model.device):
        train_in_float32(model)
    checkpoint_activations(model, recipe.machine)
    parameters = trained_parameters(model)
    optimizer = build_optimizer(recipe, parameters)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # so that every step computes with the weights of the base
    set_mode(model, training=True)
    rows = {item.id: item for batch in batches for clip in batch for item in clip}
    plain = recipe.model_copy(update={"machine": recipe.machine.model_copy(update={"cache_encoder": False})})
    data, places = SpeechDataset(model, plain, list(rows.values())), {name: index for index, name in enumerate(rows)}
    added = [[places[item.id] for item in clip] for batch in batches for clip in batch]
    data.open_clips(added)
    indices = iter(range(len(rows), len(rows) + len(added)))
    source = BatchSource(data, plain, Path(), "", False)
    step = OptimizerStep(plain, make_accelerator(), model, model, optimizer, parameters, data)
    result = []
    for batch in batches:
        chosen, times = [*islice(indices, len(batch))], list[float]()
        for _ in range(1 + REPEATS):
            started = time.monotonic()
            step.run([chosen], [chosen], source.batches([chosen], 0), 0, Stop(), None)
            times.append(time.monotonic() - started)
        padded = max(map(seconds_of, batch)) / (1 - recipe.augment.speed) * len(batch)
        result.append((padded, sorted(times[1:])[(len(times) - 1) // 2]))
    return result
