"""The manifests of a run for training: the dataset, the clips of each epoch, and the validation splits."""

from finetune.core.config import Recipe
from finetune.core.errors import RecipeError
from finetune.core.files import sha256_file
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, read_manifest
from finetune.model.granite import SpeechModel
from finetune.training.dataset import SpeechDataset
from finetune.training.sampler import plan_epoch

SPLITS = ("train", "replay", "valid", "canary")


class TrainingCorpus:
    """Reads the manifests of a run.

    Attributes:
        dataset: the clips of train and replay, and the clips that epochs add.
        validation: the utterances of valid, and of the canary if there is one.
        epoch_clips: for each epoch, the indices of its clips in `dataset`.

    Raises:
        RecipeError: a batch cannot hold the longest clip.
    """

    def __init__(self, model: SpeechModel, recipe: Recipe, run: RunDir) -> None:
        self.recipe = recipe
        self.manifests = {split: run.manifest(split) for split in SPLITS if getattr(recipe.data, split)}
        clips = {split: read_manifest(path) for split, path in self.manifests.items()}
        self.validation: dict[str, list[Utterance]] = {
            split: clips[split] for split in ("valid", "canary") if split in clips
        }
        self.dataset = SpeechDataset(model, recipe, clips["train"], clips.get("replay", []))
        self.epoch_clips = [self.dataset.epoch_clips(epoch) for epoch in range(recipe.train.epochs)]
        self._check_longest()

    def _check_longest(self) -> None:
        data, limit = self.dataset, self.recipe.train.batch_tokens
        longest = max(range(len(data.positions)), key=data.positions.__getitem__)
        if data.positions[longest] > limit:
            raise RecipeError(
                f"train.batch_tokens: {limit} is too small for {data.utterances[longest].id}, "
                f"which needs {data.positions[longest]} positions; raise it, or lower data.max_duration"
            )

    def hashes(self) -> dict[str, str]:
        """A hash of each manifest, by split."""
        return {split: sha256_file(path) for split, path in self.manifests.items()}

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
