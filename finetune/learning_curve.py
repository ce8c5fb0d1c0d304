"""`finetune curve`: trains a recipe on nested parts of its training data, and extrapolates the WER to more data."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.core.config import Recipe
from finetune.core.curation_options import CurveOptions
from finetune.core.data_config import CorpusEntry, TextSection
from finetune.core.errors import DataError, RecipeError
from finetune.core.files import write_lines
from finetune.core.run_dir import RunDir
from finetune.core.wording import count, verb
from finetune.data.manifest import manifest_line
from finetune.data.splits import SPLITS
from finetune.data.utterance_table import UtteranceTable, open_manifest
from finetune.evaluation.curve import ScoredSet, TrainedPart, curve_result
from finetune.evaluation.decode_run import Backend
from finetune.metrics.curve_results import CurveResult, Unit
from finetune.metrics.results import write_model
from finetune.pipeline import run_recipe
from finetune.training.launch import world_size
from finetune.training.subsets import nested_parts, unit_for

log = logging.getLogger(__name__)

MIN_CLIPS = 10  # of the smallest part
MIN_WORDS = 50  # of the scored set

Train = Callable[[Recipe], RunDir]


@dataclass(frozen=True)
class Part:
    """A part of the training data: its share in per cent, a name, its rows in the manifest, and its recipe."""

    share: float
    name: str
    rows: NDArray[np.int64]
    recipe: Recipe


class CurveFiles:
    """The files of a curve, in the folder `curve` of a run directory."""

    def __init__(self, run: RunDir) -> None:
        self.folder = run.root / "curve"
        self.result, self.page = self.folder / "curve.json", self.folder / "curve.html"

    def manifest(self, name: str) -> Path:
        return self.folder / "parts" / f"{name}.jsonl"

    def texts(self, name: str) -> Path:
        return self.folder / "texts" / f"{name}.json"


def learning_curve(
    recipe: Recipe, options: CurveOptions, train: Train, backend: Backend | None = None
) -> tuple[CurveResult, CurveFiles]:
    """Trains, scores and extrapolates; writes `curve.json`. Finished trainings and scored models are skipped.

    The data is prepared in the run directory of the recipe, and each part is a run below its folder `curve`. The whole
    data, with the recipe's own seed, is the run of the recipe itself.

    Args:
        recipe: the recipe.
        options: the parts and how they are trained.
        train: trains a recipe up to the stage `train`.
        backend: the functions that run a model.

    Raises:
        RecipeError: the recipe has no training data or no set to score.
        DataError: the data is too small.
        CheckpointError: a run directory holds another run.
    """
    if world_size(os.environ) > 1:
        raise RecipeError("finetune curve starts its trainings itself; run it without `accelerate launch`")
    if not getattr(recipe.data, options.split):
        raise RecipeError(f"data.{options.split}: empty, so nothing can be scored; add it, or choose another --split")
    run = run_recipe(recipe, "prepare")
    files, scored = CurveFiles(run), ScoredSet(recipe, run, options.split, backend or Backend())
    if sum(scored.words) < MIN_WORDS:
        raise DataError(
            f"data.{options.split}: {count(sum(scored.words), 'word')} {verb(sum(scored.words), 'is', 'are')} "
            f"too few for a curve; at least {MIN_WORDS} are needed, and several thousand for narrow intervals"
        )
    clips = open_manifest(run.manifest("train"))
    speakers = list(clips.texts("speaker"))
    unit = unit_for(speakers) if options.by == "auto" else options.by
    parts = plan_parts(recipe, run, clips, unit, options)
    base, trained = scored.texts(recipe, run, "base", files.texts("base")), list[TrainedPart]()
    for number, part in enumerate(parts, 1):
        log.info("curve: part %s (%d of %d): %s", part.name, number, len(parts), count(len(part.rows), "clip"))
        _write_part(clips, part, files.manifest(part.name))
        texts = scored.texts(part.recipe, train(part.recipe), "adapted", files.texts(part.name))
        trained.append(
            TrainedPart(
                share=part.share,
                clips=len(part.rows),
                speakers=len({speakers[row] for row in part.rows} - {""}),
                hours=float(clips.durations[part.rows].sum()) / 3600,
                epochs=part.recipe.train.epochs,
                folder=f"{part.recipe.runs}/{part.recipe.name}",
                texts=texts,
            )
        )
    result = curve_result(scored, base, trained, unit, options)
    write_model(files.result, result)
    return result, files


def plan_parts(recipe: Recipe, run: RunDir, clips: UtteranceTable, unit: Unit, options: CurveOptions) -> list[Part]:
    """The parts and their recipes, the smallest first, then their repetitions.

    Raises:
        DataError: the data is too small, or speakers are unknown.
    """
    if unit == "speakers" and "" in {*clips.texts("speaker")}:
        raise DataError("--by speakers: some training clips have no speaker; add the column, or use --by clips")
    files, fractions, parts = CurveFiles(run), [share / 100 for share in options.shares], list[Part]()
    for repeat in range(options.repeats):
        every = nested_parts(clips, fractions, unit, recipe.seed + repeat)
        for share, rows in zip(options.shares, every, strict=True):
            name = part_name(share, repeat)
            is_full = share == 100 and not repeat
            own = recipe if is_full else part_recipe(recipe, run, files.manifest(name), name, share, repeat, options)
            parts.append(Part(share, name, rows, own))
    sizes = [len(part.rows) for part in parts[: len(fractions)]]
    if sizes[0] < MIN_CLIPS or len({*sizes}) < len(sizes):
        counts = ", ".join(f"{share:g} %: {size}" for share, size in zip(options.shares, sizes, strict=True))
        raise DataError(
            f"data.train: too small for these parts (clips: {counts}). Each part needs more clips than the one before, "
            f"the first at least {MIN_CLIPS}; choose larger --shares, or add training data"
        )
    return parts


def part_name(share: float, repeat: int) -> str:
    """Such as `025`, and `025-2` for its second repetition."""
    return (f"{share:03.0f}" if share == int(share) else f"{share:g}") + (f"-{repeat + 1}" if repeat else "")


def part_recipe(
    recipe: Recipe, run: RunDir, manifest: Path, name: str, share: float, repeat: int, options: CurveOptions
) -> Recipe:
    """The recipe of one part. It reads prepared manifests, to which the rules of `data.text` were applied.

    With the same number of steps, a smaller part has more epochs and fewer validations per epoch. Each epoch has less
    replay, so that all trainings have the same mixture.
    """
    fraction = share / 100
    stretch = 1 / fraction if options.same == "steps" else 1.0
    splits = {split: [CorpusEntry(path=str(run.manifest(split)))] for split in SPLITS if getattr(recipe.data, split)}
    data = {
        **splits,
        "train": [CorpusEntry(path=str(manifest))],
        "replay_weight": recipe.data.replay_weight * fraction,
        "text": TextSection(),
        "too_long": "drop",
    }
    train = {
        "epochs": max(1, round(recipe.train.epochs * stretch)),
        "evaluate_every": max(1, round(recipe.train.evaluate_every * stretch)),
    }
    return recipe.model_copy(
        update={
            "name": name,
            "runs": str(run.root / "curve"),
            "seed": recipe.seed + repeat,
            "data": recipe.data.model_copy(update=data),
            "train": recipe.train.model_copy(update=train),
        }
    )


def _write_part(clips: UtteranceTable, part: Part, path: Path) -> None:
    """Writes the manifest of a part, unless it is there already."""
    lines = [manifest_line(clips[int(row)]) for row in part.rows]
    if not (path.is_file() and path.read_bytes() == b"".join(lines)):
        write_lines(path, lines)
