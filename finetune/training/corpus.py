"""The manifests of a run for training: the dataset, the clips of each epoch, and the validation splits."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.errors import RecipeError
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.model.granite import SpeechModel
from finetune.training.dataset import SpeechDataset
from finetune.training.sampler import plan_epoch

SPLITS = ("train", "replay", "valid", "canary")


def manifests_of(recipe: Recipe, run: RunDir) -> dict[str, Path]:
    """The manifests that training reads, by split."""
    return {split: run.manifest(split) for split in SPLITS if getattr(recipe.data, split)}


def typical_duration(durations: Sequence[float]) -> float:
    """The duration that clips with half of the audio do not exceed, to 0.01 s. A few long clips do not change it."""
    ordered, half = sorted(durations), sum(durations) / 2
    return round(next(last for last, total in zip(ordered, accumulate(ordered), strict=True) if total >= half), 2)


class TrainingCorpus:
    """The clips of a training.

    Args:
        model: its tokenizer and the sizes of its parts; weights are not read.
        recipe: the recipe.
        clips: the utterances of each split.

    Attributes:
        dataset: the clips of train and replay, and the clips that epochs add.
        validation: the utterances of valid, and of the canary if there is one.
        epoch_clips: for each epoch, the indices of its clips in `dataset`.

    Raises:
        RecipeError: a batch cannot hold the longest clip.
    """

    def __init__(self, model: SpeechModel, recipe: Recipe, clips: dict[str, list[Utterance]]) -> None:
        self.recipe, self.clips = recipe, clips
        self.validation: dict[str, list[Utterance]] = {
            split: clips[split] for split in ("valid", "canary") if split in clips
        }
        self.dataset = SpeechDataset(model, recipe, clips["train"], clips.get("replay", []))
        self.epoch_clips = [self.dataset.epoch_clips(epoch) for epoch in range(recipe.train.epochs)]
        self._check_longest()

    def _check_longest(self) -> None:
        data, settings = self.dataset, self.recipe.train
        longest = max(data.utterances[: sum(data.counts)], key=lambda item: item.duration)
        if longest.duration > settings.batch_seconds:
            raise RecipeError(
                f"train.batch_seconds: {settings.batch_seconds:g} is too small for {longest.id}, which has "
                f"{longest.duration:.2f} s; raise it, or lower data.max_duration"
            )
        largest = max(range(len(data.positions)), key=data.positions.__getitem__)
        if data.positions[largest] > settings.batch_tokens:
            raise RecipeError(
                f"train.batch_tokens: {settings.batch_tokens} is too small for {data.utterances[largest].id}, "
                f"which needs {data.positions[largest]} positions; raise it, or lower data.max_duration"
            )

    @property
    def typical_duration(self) -> float:
        """Of the clips of all epochs, concatenated, without speed perturbation."""
        return typical_duration(
            [self.dataset.utterances[index].duration for clips in self.epoch_clips for index in clips]
        )

    @property
    def keyword_prompts(self) -> bool:
        """Whether a training clip has keywords in its prompt."""
        return any(item.keywords for item in self.dataset.utterances)

    def plans(self, batch_seconds: float, group: int) -> list[list[list[list[int]]]]:
        """The plan of each epoch, from `plan_epoch`.

        Args:
            batch_seconds: largest amount of padded audio in a micro-batch.
            group: micro-batches per optimizer step, over all ranks.
        """
        data, recipe = self.dataset, self.recipe
        return [
            plan_epoch(
                data.durations,
                data.positions,
                batch_seconds,
                recipe.train.batch_tokens,
                group,
                recipe.seed,
                epoch,
                clips,
            )
            for epoch, clips in enumerate(self.epoch_clips)
        ]
