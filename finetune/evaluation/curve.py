"""Scores the models of a learning curve on one set, and fits the curve."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.core.config import Recipe
from finetune.core.curation_options import CurveOptions
from finetune.core.files import read_json, write_json
from finetune.core.progress import task
from finetune.core.run_dir import RunDir
from finetune.data.manifest import manifest_line, read_manifest, seconds_of
from finetune.data.normalizer_choice import normalizer_for
from finetune.evaluation.decode_run import Backend
from finetune.evaluation.scoring_sets import scoring_sets
from finetune.evaluation.utterances import clip_of
from finetune.metrics.blocks import Blocks, choose_blocks
from finetune.metrics.curve_results import CurvePoint, CurveResult, Unit
from finetune.metrics.power_law import extrapolate, fit
from finetune.metrics.scorecard import units_of
from finetune.metrics.significance import bootstrap_wer
from finetune.metrics.wer import errors_per_utterance

FACTORS = (2, 4)  # of the training data, for the extrapolation


@dataclass(frozen=True)
class TrainedPart:
    """A model that was trained on a part of the data: the part, and the texts of the scored set."""

    share: float
    clips: int
    speakers: int
    hours: float
    epochs: int
    folder: str
    texts: list[str]


class ScoredSet:
    """The transcripts of a split; translations, and Japanese among other languages, are left out.

    Args:
        recipe: the recipe of the whole run.
        run: its directory, prepared.
        split: the name of the split.
        backend: the functions that run a model.
    """

    def __init__(self, recipe: Recipe, run: RunDir, split: str, backend: Backend) -> None:
        self.recipe, self.split, self.backend = recipe, split, backend
        utterances = read_manifest(run.manifest(split))
        self.utterances = [utterances[index] for index in scoring_sets({split: utterances})[split][1]]
        self.preset = normalizer_for(self.utterances, recipe.evaluate.normalizer)
        clips = [clip_of(item, recipe.model.instruction, measure_audio=False) for item in self.utterances]
        self.blocks: Blocks = choose_blocks(units_of(clips))
        self.words = [count for _, count in self._counts(["" for _ in self.utterances])]

    def texts(self, recipe: Recipe, run: RunDir, system: str, path: Path) -> list[str]:
        """The hypotheses of a model; those in `path` if it was the same model with the same clips and decoding.

        Args:
            recipe: the recipe of its run.
            run: its run directory.
            system: `base` or `adapted`.
            path: where they are kept.
        """
        rows = [manifest_line(item).decode() for item in self.utterances]
        trained = run.done("train") if system == "adapted" else None
        state = [system, rows, recipe.model.model_dump(), asdict(recipe.decode), trained]
        key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        try:
            kept = read_json(path)
            if kept["key"] == key:
                return list(kept["texts"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or of an interrupted call
        with task(f"{self.split}, {path.stem}", seconds_of(self.utterances)):
            model = self.backend.load(recipe, run, system)
            hypotheses = self.backend.recognize(model, self.utterances, recipe.model.instruction, recipe.decode)
        texts = [item.text for item in hypotheses]
        write_json(path, {"key": key, "ids": [item.id for item in self.utterances], "texts": texts})
        return texts

    def errors(self, texts: list[str]) -> NDArray[np.int64]:
        """Word errors of each utterance."""
        return np.array([count for count, _ in self._counts(texts)], np.int64)

    def rate(self, runs: NDArray[np.int64]) -> tuple[float, float, float]:
        """Mean WER of the errors (R, U) of R runs, and its interval over the utterances."""
        words, counts = [len(runs) * count for count in self.words], runs.sum(0)
        interval = bootstrap_wer(
            counts.tolist(), words, self.blocks.names, self.recipe.evaluate.replicas, self.recipe.seed
        )
        wer = float(counts.sum()) / sum(words)
        return wer, min(wer, interval.low), max(wer, interval.high)

    def _counts(self, texts: list[str]) -> list[tuple[int, int]]:
        return errors_per_utterance([item.text for item in self.utterances], texts, self.preset)


def curve_result(
    scored: ScoredSet, base: list[str], parts: Sequence[TrainedPart], unit: Unit, options: CurveOptions
) -> CurveResult:
    """The curve of all parts.

    Args:
        scored: the set.
        base: the texts of the base model.
        parts: every training.
        unit: what the parts consist of.
        options: the options of the curve.
    """
    points, errors = list[CurvePoint](), list[NDArray[np.int64]]()
    for share in options.shares:
        same = [part for part in parts if part.share == share]
        errors.append(np.stack([scored.errors(part.texts) for part in same]))
        wer, low, high = scored.rate(errors[-1])
        points.append(
            CurvePoint(
                share=share,
                clips=float(np.mean([part.clips for part in same])),
                speakers=float(np.mean([part.speakers for part in same])),
                hours=float(np.mean([part.hours for part in same])),
                epochs=same[0].epochs,
                wer=wer,
                low=low,
                high=high,
                runs=[float(counts.sum()) / sum(scored.words) for counts in errors[-1]],
                folders=[part.folder for part in same],
            )
        )
    recipe, hours = scored.recipe, [point.hours for point in points]
    targets = [factor * hours[-1] * 100 / options.shares[-1] for factor in FACTORS]
    names, replicas = scored.blocks.names, recipe.evaluate.replicas
    return CurveResult(
        name=recipe.name,
        split=options.split,
        clips=len(scored.utterances),
        words=sum(scored.words),
        normalizer=scored.preset,
        unit=unit,
        same=options.same,
        base=scored.rate(scored.errors(base)[None]),
        points=points,
        law=fit(hours, [point.wer for point in points]),
        extrapolations=extrapolate(hours, errors, scored.words, names, targets, replicas, recipe.seed),
        notes=_notes(scored, unit, options, points),
    )


def _notes(scored: ScoredSet, unit: Unit, options: CurveOptions, points: Sequence[CurvePoint]) -> list[str]:
    applies = (
        (options.split == "valid", "valid also chose the best adapter of each run, so its WER is too good"),
        (options.repeats == 1, "one run for each part; runs that differ in their seed vary too (--repeats 3)"),
        (unit == "clips", "each part has clips of all speakers, so new speakers can bring more than the curve shows"),
        (bool(scored.blocks.note), scored.blocks.note),
        (points[-1].wer >= points[0].wer, "more data did not lower the WER, so the extrapolation says nothing"),
    )
    return [text for holds, text in applies if holds]
