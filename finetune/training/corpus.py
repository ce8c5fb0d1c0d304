"""The manifests of a run for training: the dataset, the plan of each epoch, and the validation splits."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, chain, repeat
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, DataError, RecipeError
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.data.manifest import Utterance
from finetune.data.splits import TRAINING_SPLITS
from finetune.data.utterance_table import UtteranceTable, as_table
from finetune.metrics.keyword_terms import sampling_inputs
from finetune.model.granite import SpeechModel
from finetune.training.dataset import SpeechDataset
from finetune.training.outline import Outline, stored_outline
from finetune.training.plan import EpochPlan, objects, padding_fraction, plan_epoch

SPLITS = (*TRAINING_SPLITS, "valid", "canary")
OUTLINE = "epochs.json"
VERSION = 3  # raise it when plans change


def manifests_of(recipe: Recipe, run: RunDir, splits: Sequence[str] = SPLITS) -> dict[str, Path]:
    """The manifests of a recipe by split; by default those that training reads. Raises DataError if one is missing."""
    paths = {split: run.manifest(split) for split in splits if getattr(recipe.data, split)}
    if missing := next((path for path in paths.values() if not path.is_file()), None):
        raise DataError(f"{missing}: missing; delete {run.marker('prepare')} and rerun to prepare the corpora again")
    return paths


def typical_duration(epochs: Iterable[ArrayLike]) -> float:
    """The duration that clips with half of the audio do not exceed, to 0.01 s. A few long clips do not change it.

    Args:
        epochs: seconds of the clips of each epoch.
    """
    values, counts = np.zeros(0), np.zeros(0, np.int64)

    def all_seconds() -> Iterator[float]:
        nonlocal values, counts
        for epoch in epochs:
            seconds = np.asarray(epoch, np.float64)
            values, places = np.unique(np.concatenate([values, seconds]), return_inverse=True)
            known = np.concatenate([counts, np.ones(len(seconds), np.int64)])
            counts = np.bincount(places, weights=known).astype(np.int64)
            yield from objects(seconds)

    def ordered() -> Iterator[float]:
        return chain.from_iterable(map(repeat, objects(values), objects(counts)))

    half = sum(all_seconds()) / 2
    return round(next(last for last, total in zip(ordered(), accumulate(ordered()), strict=True) if total >= half), 2)


class TrainingCorpus:
    """The clips of a training and their plans. Plans are made for one epoch at a time.

    Args:
        model: its tokenizer and the sizes of its parts; weights are not read.
        recipe: the recipe.
        clips: the utterances of each split; tables from `open_manifest` are not copied into memory.
        manifests: the files of these splits. What takes long is stored beside them, for other processes and a resumed
            run; without them, everything is in memory.

    Attributes:
        dataset: the clips of train and replay, and the clips that the open epoch adds.
        clips: the utterances of each split.
        validation: those of valid, and of the canary if there is one.

    Raises:
        RecipeError: a batch cannot hold the longest clip; also when the outline or a plan is made.
        DataError: a clip with its prompt does not fit into the context of the model; also then.
    """

    def __init__(
        self,
        model: SpeechModel,
        recipe: Recipe,
        clips: Mapping[str, Sequence[Utterance]],
        manifests: Mapping[str, Path] | None = None,
    ) -> None:
        self.recipe = recipe
        self.clips = {split: as_table(items) for split, items in clips.items()}
        self.validation: dict[str, UtteranceTable] = {
            split: self.clips[split] for split in ("valid", "canary") if split in clips
        }
        self._trained = [split for split in TRAINING_SPLITS if split in clips]
        files = [manifests[split] for split in self._trained] if manifests else []
        known = all(self.clips[split].manifest_sha256 for split in self._trained)
        self._folder = files[0].parent if files and known else None
        replay = self.clips.get("replay", ())
        self.dataset = SpeechDataset(model, recipe, self.clips["train"], replay, manifests=files)
        self._outlines: dict[tuple[float, int], Outline] = {}
        self._plan: tuple[tuple[int, float, int], EpochPlan] | None = None
        self._check_longest()
        self._check_positions()

    def _check_longest(self) -> None:
        durations, limit = self.dataset.base.durations, self.recipe.train.batch_seconds
        longest = self.dataset.base[int(durations.argmax())]
        if longest.duration > limit:
            raise RecipeError(
                f"train.batch_seconds: {limit:g} is too small for {longest.id}, which has "
                f"{longest.duration:.2f} s; raise it, or lower data.max_duration"
            )

    def _check_positions(self) -> None:
        data, limit = self.dataset, self.recipe.train.batch_tokens
        largest = int(data.positions.argmax())
        if data.positions[largest] > limit:
            raise RecipeError(
                f"train.batch_tokens: {limit} is too small for {data.clips[largest].id}, "
                f"which needs {data.positions[largest]} positions; raise it, or lower data.max_duration"
            )
        if data.positions[largest] > data.model.max_positions:
            raise DataError(
                f"{data.clips[largest].id} needs {data.positions[largest]} positions for its prompt, audio and text, "
                f"but the model has {data.model.max_positions}; shorten its keywords, or lower data.max_duration"
            )

    @property
    def typical_duration(self) -> float:
        """Of the clips of all epochs, concatenated, without speed perturbation."""
        return typical_duration(map(self.dataset.seconds_of_epoch, range(self.recipe.train.epochs)))

    @property
    def keyword_prompts(self) -> bool:
        """Whether a training clip has keywords in its prompt."""
        return bool(self.dataset.keywords) or self.dataset.base.has_keywords

    @property
    def own_prompts(self) -> bool:
        """Whether a training clip has a task, a style or an instruction of its own."""
        return self.dataset.base.has_prompts

    def plan(self, epoch: int, batch_seconds: float, group: int) -> EpochPlan:
        """The plan of an epoch, from `plan_epoch`. Its clips are open in `dataset` until another plan is made.

        Args:
            epoch: from 0.
            batch_seconds: largest amount of padded audio in a micro-batch.
            group: micro-batches per optimizer step, over all ranks.
        """
        key, data, recipe = (epoch, batch_seconds, group), self.dataset, self.recipe
        if self._plan is None or self._plan[0] != key or data.open != epoch:
            self._plan = None  # its memory is free for the next one
            chosen = data.open_epoch(epoch)
            self._check_positions()
            limits = (batch_seconds, recipe.train.batch_tokens, group, recipe.seed, epoch)
            self._plan = key, plan_epoch(data.durations, data.positions, *limits, chosen)
        plan, outline = self._plan[1], self._outlines.get((batch_seconds, group))
        if outline and outline.steps[epoch] != len(plan):
            raise CheckpointError(
                f"{self._folder}/{OUTLINE}: epoch {epoch + 1} has {count(len(plan), 'step')}, not "
                f"{outline.steps[epoch]}; delete this file and rerun"
            )
        return plan

    def outline(self, batch_seconds: float, group: int) -> Outline:
        """The sizes of all epochs; the arguments are those of `plan`."""
        arguments = batch_seconds, group
        if arguments not in self._outlines:
            make = partial(self._make_outline, batch_seconds, group)
            path = self._folder / OUTLINE if self._folder else None
            self._outlines[arguments] = stored_outline(path, self.key(*arguments), make) if path else make()
        return self._outlines[arguments]

    def _make_outline(self, batch_seconds: float, group: int) -> Outline:
        data, rows = self.dataset, []
        for epoch in reversed(range(self.recipe.train.epochs)):  # so that the first epoch is open afterwards
            plan = self.plan(epoch, batch_seconds, group)
            used = data.seconds[plan.batches.members]
            sizes = len(plan), len(plan.batches), len(used), float(used.sum())
            rows.append((*sizes, float(used.max()), int(data.positions.max())))
        steps, batches, clips, seconds, longest, positions = (list(column) for column in zip(*rows[::-1], strict=True))
        padding = padding_fraction(plan, data.durations)
        return Outline(steps, batches, clips, seconds, max(longest), max(positions), padding)

    def key(self, batch_seconds: float, group: int) -> str:
        """A hash of everything that plans depend on."""
        recipe, model, sizes = self.recipe, self.dataset.model, (batch_seconds, group)
        settings = recipe.model_dump(mode="json", include={"augment", "train", "seed"}) | sampling_inputs(recipe)
        data = [recipe.data.replay_weight, recipe.data.max_duration, recipe.machine.cache_encoder]
        texts = [self.dataset.encoder.fingerprint(), model.window, model.queries]
        manifests = [self.clips[split].manifest_sha256 for split in self._trained]
        return hashlib.sha256(json.dumps([VERSION, sizes, settings, data, texts, manifests]).encode()).hexdigest()
