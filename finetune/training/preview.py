"""What `finetune check` says about a training: the errors of its start, its steps, an estimate of its time."""

import math
from datetime import timedelta
from pathlib import Path

import torch

from finetune.core.config import Recipe
from finetune.core.files import read_json
from finetune.data.expected import expected_utterances
from finetune.data.manifest import Utterance
from finetune.model.granite import check_quantization, default_device
from finetune.model.model_summary import model_without_weights
from finetune.training.corpus import SPLITS, TrainingCorpus
from finetune.training.launch import processes_for


def preview_training(recipe: Recipe) -> list[str]:
    """Lines about the training, from the checks that `train` makes at its start. Reads no weights and decodes no audio.

    Raises:
        RecipeError: a batch cannot hold the longest clip.
        ModelError: this machine cannot load the base as the recipe says.
        MissingExtraError: the extra [quant] is not installed.
        DataError: a corpus cannot be read.
    """
    check_quantization(recipe.model.quantize, default_device())
    lines = [f"processes  {processes_line(recipe, torch.cuda.device_count())}"]
    clips = {split: expected_utterances(recipe.data, split) for split in SPLITS if getattr(recipe.data, split)}
    if unopened := [split for split, items in clips.items() if items is None]:
        return [*lines, f"steps      unknown until `finetune prepare` has read data.{unopened[0]}"]
    known: dict[str, list[Utterance]] = {split: items for split, items in clips.items() if items}
    if empty := [split for split in clips if split not in known]:
        return [*lines, f"steps      unknown: no clip of data.{empty[0]} has a usable duration"]
    corpus = TrainingCorpus(model_without_weights(recipe.model.base, recipe.model.revision), recipe, known)
    settings = recipe.train
    outline = corpus.outline(settings.batch_seconds, processes_for(recipe) * settings.accumulation)
    auto = ", or more if train.batch: auto finds smaller batches" * (settings.batch == "auto")
    return [
        *lines,
        f"steps      {sum(outline.steps):,} in {settings.epochs} epochs, {sum(outline.batches):,} batches of up to "
        f"{settings.batch_seconds:g} s{auto}",
        f"audio      {sum(outline.seconds) / 3600:.2f} h in all epochs, longest clip {outline.longest:.1f} s, "
        f"{outline.positions} positions (limit {settings.batch_tokens})",
        f"time       {time_line(recipe, sum(outline.clips))}",
    ]


def processes_line(recipe: Recipe, gpus: int) -> str:
    """The number of training processes, and why it differs from the recipe's."""
    wanted, used = recipe.machine.processes, processes_for(recipe, gpus)
    place = f"{gpus} GPUs" if gpus else "the CPU"
    return f"{used} on {place}" + (f"; machine.processes is {wanted}" if wanted not in (0, used) else "")


def time_line(recipe: Recipe, clips: int) -> str:
    """The time of all steps, from the speed of the newest finished run with the same base and parts.

    Args:
        recipe: the recipe.
        clips: number of clips in all epochs.
    """
    settings = recipe.model_dump(mode="json", include={"model", "parts"}, exclude_none=True)
    runs = sorted(Path(recipe.runs).glob("*/train.done.json"), key=lambda path: -path.stat().st_mtime)
    for done in runs:
        try:
            speed = float(read_json(done)["clips_per_second"])
            other = read_json(done.with_name("resolved.json"))
            same = all(other[name] == value for name, value in settings.items())
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if same and 0 < speed < math.inf:
            duration = timedelta(seconds=round(clips / speed))
            return f"about {duration} for the steps, without validation ({speed:g} clips/s in {done.parent})"
    return "unknown until the first steps: no run with this base and these parts has finished here"
