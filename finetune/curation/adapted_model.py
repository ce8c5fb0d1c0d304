"""The model of a curation command: a recipe or a run with its best adapter, a model folder or a hub name."""

import logging
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError
from finetune.core.files import read_json
from finetune.core.model_limits import ADAPTATION, read_limits
from finetune.core.options import DecodingOptions
from finetune.core.recipe import read_recipe
from finetune.core.run_dir import RunDir
from finetune.inference.saved_options import options_for
from finetune.model.adapter import load_adapter
from finetune.model.granite import SpeechModel, default_device, load_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdaptedModel:
    """A model that is not loaded yet.

    Attributes:
        name: as the user gave it.
        source: folder or hub name of its weights.
        base: folder or hub name of the model it was adapted from; "" for a base model.
        revision: commit of the base on the hub.
        run: the run whose adapter is added to the weights; None if they are complete.
        dtype: data type of the weights in memory.
        instruction: the instruction of its prompts.
        decoding: lossless decoding options.
        max_duration: seconds of speech that it transcribes well in one piece.
        no_speech: a clip with a lower speech score has no speech, see `inference.guards.speech_score`.
    """

    name: str
    source: str
    base: str
    revision: str | None
    run: RunDir | None
    dtype: str
    instruction: str
    decoding: DecodingOptions
    max_duration: float
    no_speech: float

    def load(self) -> SpeechModel:
        """Loads it on the GPU if there is one. Raises ModelError, or CheckpointError for a damaged adapter."""
        model = load_model(self.source, self.dtype, default_device(), self.revision)
        if self.run:
            load_adapter(model, self.run.best)
        return model

    def as_base(self) -> "AdaptedModel":
        """The model it was adapted from, with the same prompt and options."""
        return replace(self, source=self.base, base="", run=None)

    def state(self) -> list[object]:
        """What changes if its weights change: names, sizes and times of their files."""
        folder = self.run.best if self.run else Path(self.source)
        files = sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []
        times = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        return [self.source, self.revision, str(folder), times]


def find_model(name: str) -> AdaptedModel:
    """Finds out what a name means. Nothing is loaded.

    Raises:
        RecipeError: the recipe cannot be read.
        CheckpointError: the run of the recipe has no trained adapter.
        ModelError: the options or the limits of a model folder are damaged.
    """
    path = Path(name)
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        return _of_run(name, read_recipe(path))
    if RunDir(path).resolved.is_file():
        return _of_run(name, read_recipe(RunDir(path).resolved), RunDir(path))
    options, (base, revision) = options_for(name), _base_of(path)
    return AdaptedModel(
        name=name,
        source=name,
        base=base,
        revision=revision,
        run=None,
        dtype="auto",
        instruction=options.instruction,
        decoding=_lossless(options.decoding),
        max_duration=options.decoding.max_window,
        no_speech=options.no_speech,
    )


def _of_run(name: str, recipe: Recipe, run: RunDir | None = None) -> AdaptedModel:
    run = run or RunDir(f"{recipe.runs}/{recipe.name}")
    if not run.best.is_dir():
        command = shlex.join(["finetune", "train", name])
        raise CheckpointError(f"{name}: {run.root} has no trained adapter; run `{command}` first")
    trained = run.done("train")
    if trained is None:
        log.warning("%s: the training has not finished; the best adapter so far is used", run.root)
    limits = read_limits(recipe.model.base).after_training(recipe.model.instruction, trained)
    return AdaptedModel(
        name=name,
        source=recipe.model.base,
        base=recipe.model.base,
        revision=recipe.model.revision,
        run=run,
        dtype=recipe.model.dtype,
        instruction=recipe.model.instruction,
        decoding=_lossless(recipe.decode),
        max_duration=limits.with_window(recipe.decode).max_window,
        no_speech=limits.no_speech,
    )


def _lossless(options: DecodingOptions) -> DecodingOptions:
    """Options with which the CTC head does not choose the text, because its own text is compared with it here."""
    return replace(options, decoder="speculative" if options.decoder == "relaxed" else options.decoder, ctc_weight=0.0)


def _base_of(folder: Path) -> tuple[str, str | None]:
    """The base of an exported folder and its revision; "" and None for any other model."""
    try:
        content = read_json(folder / ADAPTATION)
        return str(content["base"]), content.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", None
