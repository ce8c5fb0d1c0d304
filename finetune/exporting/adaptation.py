"""`adaptation.json` in an exported folder: records the base model, recipe and data of the export."""

from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.files import read_json, write_json
from finetune.core.model_limits import ADAPTATION, ModelLimits
from finetune.core.run_dir import RunDir
from finetune.metrics.results import BySystem, read_results
from finetune.metrics.scores import Scores
from finetune.training.state import TrainRecord
from finetune.version import __version__

FILE = ADAPTATION


class Adaptation(BaseModel):
    """Base model, recipe, data and scores of an export.

    Attributes:
        schema_version: Increases by one when the meaning of a field changes.
        toolkit: Version of this package.
        torch: Version of torch.
        base: Folder or hub name of the base model, and `revision`, its commit.
        recipe: Every setting of the run.
        data: By split, the SHA-256 of its manifest.
        train: The record of the training stage; None if the run has none.
        limits: The limits of the exported model: those of the base, extended by training.
        scores: By test set, the scores of the base and the adapted model; None if the run has not been evaluated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    toolkit: str
    torch: str
    base: str
    revision: str | None
    recipe: Recipe
    data: dict[str, str]
    train: TrainRecord | None
    limits: ModelLimits = ModelLimits()
    scores: dict[str, BySystem[Scores]] | None

    @classmethod
    def of_run(cls, recipe: Recipe, run: RunDir, limits: ModelLimits) -> Self:
        """Collects the records of a run's stages. Raises CheckpointError if the evaluation cannot be read."""
        return cls(
            toolkit=__version__,
            torch=torch.__version__,
            base=recipe.model.base,
            revision=recipe.model.revision,
            recipe=recipe,
            data=(run.done("prepare") or {}).get("hashes", {}),
            train=run.result("train", TrainRecord) if run.done("train") else None,
            limits=limits,
            scores=read_results(run.scores).scores if run.scores.is_file() else None,
        )

    def write(self, folder: Path) -> None:
        """Writes `adaptation.json` into a folder."""
        write_json(folder / FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads it from an exported folder.

        Raises:
            OSError: it is missing.
            ModelError: it is damaged, or of another version.
        """
        path = folder / FILE
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        except ValueError as error:
            reason = str(error)[:200]
        raise ModelError(f"{path}: damaged, or of another version ({reason}); export the run again")
