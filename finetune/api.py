"""The Python API: load a model and transcribe; run the stages of a recipe; compare systems.

The functions use the same run directory as the command, so a run can be started by one and resumed by the other.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from finetune.core import config
from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.core.keyword_list import term_list
from finetune.core.model_limits import read_limits
from finetune.core.options import DECODER_OF, TranscribeOptions, override
from finetune.core.prompts import INSTRUCTION
from finetune.core.recipe import read_recipe, recipe_from_values
from finetune.core.run_dir import RunDir
from finetune.inference import transcribe as inference
from finetune.inference.audio_items import audio_sources
from finetune.inference.keyword_warning import option_warnings
from finetune.inference.saved_options import options_for
from finetune.inference.transcript import Transcript
from finetune.model import granite
from finetune.pipeline import STAGES, Stage, run_recipe, summarize

if TYPE_CHECKING:  # the modules of the stages take seconds to import; a service that transcribes does not need them
    from finetune.data.prepare import PrepareResult
    from finetune.evaluation.compare_result import CompareResult
    from finetune.exporting.export import ExportResult
    from finetune.metrics.results import EvaluationResults, RunSummary
    from finetune.training.callbacks import TrainerCallback
    from finetune.training.state import TrainResult

Audio = Any  # a path, a NumPy array, a torch tensor, or {"array": ..., "sampling_rate": ...} as `datasets` gives it


class GraniteSpeech:
    """A loaded model that transcribes.

    Attributes:
        network: the torch module, with its tokenizer.
        options: defaults of `transcribe`, from the export or else from the toolkit.
    """

    def __init__(self, network: granite.SpeechModel, options: TranscribeOptions) -> None:
        self.network, self.options = network, options

    @overload
    def transcribe(self, audio: list[Any] | tuple[Any, ...], **options: Any) -> list[Transcript]: ...
    @overload
    def transcribe(self, audio: Audio, **options: Any) -> Transcript: ...
    def transcribe(
        self,
        audio: Any,
        *,
        sample_rate: int | None = None,
        keywords: str | Iterable[str] | None = None,
        language: str | None = None,
        translate_to: str | None = None,
        channel: str | int | None = None,
        failed: Callable[[str, DataError], None] | None = None,
        progress: Callable[[float, float], None] | None = None,
        **options: Any,
    ) -> Transcript | list[Transcript]:
        """Transcribes audio of any length.

            model = finetune.load("runs/quickstart/export")
            transcript = model.transcribe("call.wav", keywords=["metoprolol"])
            print(transcript.text)
            for word in transcript.words:
                print(word.start, word.end, word.text)

        Args:
            audio: a path; a NumPy array or torch tensor (N,), (C, N) or (N, C); a dict with `array` and
                `sampling_rate`; or a list or tuple of these.
            sample_rate: in Hz; required for arrays. Files and dicts state their own.
            keywords: expected words: a list, or `"a, b"`; they are used as `keyword_method` says.
            language: spoken language, such as `fr` or `French`.
            translate_to: language to translate into; the transcript then has no word times.
            channel: of audio with several: `mix` averages (the default), a number from 0, `left` or `right` chooses
                one, `each` gives one transcript for each channel.
            failed: called with the name and the error of each item of a list that cannot be read, which is then
                skipped. Without it, and for audio that is not in a list, the error is raised.
            progress: called with the seconds of audio transcribed and those read so far.
            **options: other fields of `TranscribeOptions` and `DecodingOptions`, such as `decoder`, `vad`,
                `max_window`, `batch_seconds` or `max_new_tokens`; `terms` is a list, or a file as in a recipe.

        Returns:
            A transcript; for a list or tuple, and with `channel="each"`, a list of transcripts in its order, without
            those of skipped items.

        Raises:
            DataError: audio or a list of terms cannot be read, an array has no sample rate, or a dict another one.
            ModelError: the model does not accept this prompt, or a batch does not fit into GPU memory.
            RecipeError: an unknown language or option, a value out of range, a bad keyword.
        """
        items = audio if (several := isinstance(audio, list | tuple)) else [audio]
        if sample_rate is not None and items and all(isinstance(item, str | Path) for item in items):
            warnings.warn("sample_rate has no effect: files state their own; it is for arrays", stacklevel=2)
        options = _call_options(keywords, options)
        chosen = override(
            self.options, keywords=keywords, language=language, translate_to=translate_to, channel=channel, **options
        )
        _check_decoder(chosen.decoding.decoder, options)
        for warning in option_warnings(chosen, self.network.profile, read_limits(self.network.source)):
            warnings.warn(warning, stacklevel=2)
        failed = failed if several else None
        sources = list(audio_sources(items, sample_rate, chosen.channel, failed))
        transcripts = list(inference.transcripts(self.network, sources, chosen, failed, progress))
        return transcripts if several or chosen.channel == "each" else transcripts[0]


def _call_options(keywords: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the lines of a file as `terms`; a `keyword_method` of `auto` is that of the model."""
    if isinstance(keywords, str | Path) and os.path.isfile(keywords):
        raise RecipeError(f"keywords: {str(keywords)!r} is a file; give a list of its lines")
    if options.get("keyword_method") == "auto":
        options = {**options, "keyword_method": None}
    terms = options.get("terms")
    if isinstance(terms, str | Path) and not os.path.isfile(terms):
        raise DataError(
            f"terms: {terms}: cannot be read (no such file); give a list, or a file with a term in each line"
        )
    return {**options, "terms": [line for _, line in term_list(terms)]} if isinstance(terms, str | Path) else options


def _check_decoder(decoder: str, options: dict[str, Any]) -> None:
    """Refuses options of another decoder, as the command does: they would have no effect."""
    for name, owner in DECODER_OF.items():
        if options.get(name) is not None and decoder != owner:
            raise RecipeError(f'{name} needs decoder="{owner}"; the decoder is {decoder}')


class Recipe(config.Recipe):
    """What to train and how: the sections of a recipe file as attributes, such as `recipe.train.epochs`. Frozen.

        recipe = finetune.Recipe(
            name="drugs",
            model={"base": "ibm-granite/granite-4.0-1b-speech"},
            data={"train": ["train.jsonl"], "valid": ["valid.jsonl"], "test": ["test.jsonl"]},
            train={"goal": "vocabulary", "epochs": 3},
        )

    Raises:
        RecipeError: an unknown key, an invalid value, a contradiction.
    """

    def __init__(self, **sections: Any) -> None:
        super().__init__(**recipe_from_values(sections).model_dump())

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Reads a recipe file.

        Args:
            path: a YAML file, or the `resolved.json` of a run.
            overrides: `KEY=VALUE` strings, as after `--set`.

        Raises:
            RecipeError: no such file, invalid YAML, an unknown key, an invalid value; with file and line.
        """
        if not isinstance(path, str | Path):
            raise RecipeError(f"expected the path of a recipe file, got {path!r}")
        return cls(**read_recipe(path, overrides).model_dump())


def load(model: str | Path) -> GraniteSpeech:
    """Loads an exported folder, a base model folder or a hub name, on the GPU if there is one.

    Raises:
        ModelError: not a Granite Speech model with all its weights, or its options are damaged.
    """
    if not isinstance(model, str | Path):
        raise ModelError(f"expected a model folder or a hub name, got {model!r}")
    options = options_for(model)
    return GraniteSpeech(inference.load(model), options)


def transcribe(audio: Any, model: str | Path | GraniteSpeech, **arguments: Any) -> Any:
    """Same as `load(model).transcribe(audio, ...)`; `model` can also be a loaded model."""
    loaded = model if isinstance(model, GraniteSpeech) else load(model)
    return loaded.transcribe(audio, **arguments)


def prepare(recipe: config.Recipe) -> "PrepareResult":
    """Reads and audits the corpora of a recipe and writes manifests. A completed stage is skipped.

    Raises:
        DataError: a corpus cannot be read, too many rows are unusable, or test data is in train.
        CheckpointError: the run directory belongs to another recipe, or another process uses it.
    """
    from finetune.data.prepare import PrepareResult

    return _run(recipe, "prepare").result("prepare", PrepareResult)


def train(recipe: config.Recipe, callbacks: "Sequence[TrainerCallback]" = ()) -> "TrainResult":
    """Prepares and trains; resumes from the checkpoint of an interrupted run.

    Args:
        recipe: what to train and how.
        callbacks: objects with the methods of `TrainerCallback`; only for training in one process.

    Raises:
        RecipeError: callbacks with several processes; a batch cannot hold the longest clip.
        DataError, ModelError, CheckpointError: see the stages.
        Interrupted: a signal stopped the training; the checkpoint holds the last step.
    """
    from finetune.training.callbacks import check_callbacks
    from finetune.training.launch import processes_for
    from finetune.training.state import TrainResult
    from finetune.training.trainer import train as run_training

    _require_recipe(recipe)
    check_callbacks(callbacks)
    if callbacks and processes_for(recipe) > 1:
        raise RecipeError("callbacks need training in one process; set machine.processes to 1")
    stages = [
        replace(stage, run=lambda recipe, run: run_training(recipe, run, callbacks)) if stage.name == "train" else stage
        for stage in STAGES
    ]
    return _run(recipe, "train", stages).result("train", TrainResult)


def evaluate(recipe: config.Recipe) -> "EvaluationResults":
    """Prepares, trains and scores base and adapted model on test and canary; completed stages are skipped.

    Raises:
        DataError, ModelError, CheckpointError: see the stages.
    """
    from finetune.metrics.results import read_results

    return read_results(_run(recipe, "evaluate").scores)


def export(recipe: config.Recipe) -> "ExportResult":
    """Runs all stages: the merged model is in `ExportResult.dir`. Completed stages are skipped.

    Raises:
        DataError, ModelError, CheckpointError: see the stages.
    """
    from finetune.exporting.export import ExportResult

    return _run(recipe, "export").result("export", ExportResult)


def run(recipe: config.Recipe) -> "RunSummary":
    """Runs all stages of a recipe, as `finetune run` does, and returns the figures of `summary.json`.

    Raises:
        DataError, ModelError, CheckpointError: see the stages.
    """
    return summarize(_run(recipe, "export"))


def compare(
    systems: Sequence[str | Path],
    manifest: str | Path | None = None,
    *,
    normalizer: str | None = None,
    replicas: int | None = None,
    terms: str | Path | None = None,
    fail_if: Sequence[str] = (),
    hypotheses: str | Path | None = None,
) -> "CompareResult":
    """Scores systems on the same clips and tests each against the first, as `finetune compare` does.

    Args:
        systems: runs, model folders, hypothesis files, `whisper:SIZE`, `openai:MODEL`.
        manifest: the clips; None is the test set of the first run among the systems.
        normalizer: as `evaluate.normalizer` of a recipe; None is its default.
        replicas: as `evaluate.replicas` of a recipe; None is its default.
        terms: a file of terms whose recall is computed.
        fail_if: conditions such as `"wer > base + 0.2"`; `CompareResult.fired` lists those that hold.
        hypotheses: the folder where hypotheses are kept and used again; None keeps nothing.

    Raises:
        RecipeError: fewer than two systems, or a condition that cannot be parsed.
        DataError, ModelError: a system or the manifest cannot be used.
    """
    from finetune.evaluation.compare import compare as run_comparison
    from finetune.evaluation.compare import scoring_options
    from finetune.metrics.conditions import parse_condition

    for name, value in (("systems", systems), ("fail_if", fail_if)):
        if isinstance(value, str | Path):  # a text is a sequence of its characters
            raise RecipeError(f"{name}: must be a list, got {str(value)!r}; write [{str(value)!r}, ...]")
    for name, path in (("manifest", manifest), ("terms", terms), ("hypotheses", hypotheses)):
        if not isinstance(path, str | Path | None):
            raise RecipeError(f"{name}: must be a path, got {path!r}")
    return run_comparison(
        [str(system) for system in systems],
        None if manifest is None else str(manifest),
        scoring_options(normalizer, replicas),
        None if terms is None else str(terms),
        INSTRUCTION,
        [parse_condition(text) for text in fail_if],
        folder=None if hypotheses is None else Path(hypotheses),
    )


def _run(recipe: config.Recipe, last: str, stages: Sequence[Stage] = STAGES) -> RunDir:
    from finetune.planning.fits import check_model, check_training

    _require_recipe(recipe)
    if last != "prepare":
        check_model(recipe)
    return run_recipe(recipe, last, stages, check=check_training)


def _require_recipe(recipe: Any) -> None:
    if not isinstance(recipe, config.Recipe):
        raise RecipeError(f"expected a recipe, got {recipe!r}; make one with finetune.Recipe.from_yaml(path)")
