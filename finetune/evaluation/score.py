"""Scores a base model on each test set separately, as leaderboards do: WER of each set, mean WER, speed."""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter

from finetune.core.array_job import Shard
from finetune.core.config import EvaluateSection, ModelSection, Recipe
from finetune.core.data_config import CorpusEntry
from finetune.core.errors import DataError
from finetune.core.files import sha256_file, write_json
from finetune.core.model_limits import read_limits
from finetune.core.options import DecodingOptions
from finetune.core.progress import task
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.data.cells import clean_text
from finetune.data.corpus_entries import read_entry
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.normalizer_choice import normalizer_for
from finetune.data.row import Row
from finetune.evaluation.decode import system_output, warn_about_limits
from finetune.evaluation.score_files import SetFiles
from finetune.evaluation.scoring_sets import scoring_sets
from finetune.evaluation.task_results import require_translation_scorer, split_tasks, task_line
from finetune.evaluation.utterances import audited_utterances, clip_of
from finetune.inference.recognize import Hypothesis, recognize
from finetune.metrics.normalizer import normalize
from finetune.metrics.scorecard import ScoringOptions, SystemOutput, scorecard
from finetune.metrics.scores import SetScores, empty_references_note
from finetune.metrics.task_scores import TaskScores
from finetune.model.float32 import load_for_inference
from finetune.model.granite import SpeechModel, default_device

log = logging.getLogger(__name__)

LEADERBOARD = ("openasr", "whisper-en")  # normalizers of the Open ASR Leaderboard, which leaves out empty references
NOT_A_REFERENCE = "ignore time segment in scoring"  # a mark of NIST's STM files
# Settings of decoding that version 0.2 did not have. Without them its hypotheses are those of their defaults.
NEW_SETTINGS = ("max_window", "keyword_method", "terms", "num_beams", "ctc_weight", "cuda_graphs")
Decoder = Callable[[Sequence[Utterance]], list[Hypothesis]]


@dataclass(frozen=True)
class SetSource:
    """A test set: its corpus, and how many of its clips are left out, because their reference is not scored."""

    source: str
    unscored: int


@dataclass(frozen=True)
class ScoredSet(SetScores, SetSource):
    """A test set and the scores of the model on it: those of its transcriptions, if it has any, and of these those in
    languages with spaces, as in `scoring_sets`.

    `tasks` has the scores by task and language; it is empty for a set with one language and no translations.
    """

    tasks: list[TaskScores] = field(default_factory=list)


@dataclass(frozen=True)
class ScoreSettings:
    """The sections of the recipe that decide the scores, and its seed."""

    model: ModelSection
    decode: DecodingOptions
    evaluate: EvaluateSection
    seed: int


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """The scores of a model: the content of `score/scores.json`.

    Attributes:
        sets: the scores by set name.
        macro_wer: the mean of the WERs of all sets with transcriptions that have words and are scored in words, each
            rounded to 0.01 percentage points as in the leaderboard; None without such sets.
        rtfx: seconds of audio per second of recognition (features, encoder, decoding; without reading files).
        macro_cer: the same mean of the CERs of sets that are scored in characters, such as Japanese ones.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    schema: Literal[3] = 3
    settings: ScoreSettings
    sets: dict[str, ScoredSet]
    macro_wer: float | None
    rtfx: float | None
    macro_cer: float | None = None


def score(recipe: Recipe, run: RunDir, decoder: Decoder | None = None, merge: bool = False) -> ScoreResult:
    """Decodes each corpus of `data.test` with `model.base` and scores it.

    A corpus is not decoded again if there are hypotheses of the same model, corpus, audio and decoding options, also
    those of all jobs of an array (`score_shard`). Only `test` of `data` is read. No clip is dropped for its length, and
    no text is changed.

    Writes `score/SET.jsonl` with the keys of the leaderboard (unchanged texts; `time` is the time of the batch
    divided by its number of clips) and `score/scores.json`.

    Args:
        recipe: the recipe.
        run: the run directory.
        decoder: decodes utterances; the default loads `model.base` at the first corpus to decode.
        merge: the hypotheses must be there already, from `score_shard`.

    Raises:
        DataError: a corpus cannot be read, or has a clip that cannot be used (the message names each one); with
            `merge`, hypotheses are missing.
        ModelError: the model cannot be loaded.
    """
    decoder = decoder or _ModelDecoder(recipe)
    sets = {}
    for name, source, utterances, unscored, files in _test_sets(recipe, run):
        outputs = files.outputs(utterances)
        if outputs is None and merge:
            raise DataError(_missing_parts(name, files, utterances))
        if outputs is None:
            hypotheses = decoder(utterances)
            files.write(utterances, hypotheses)
            outputs = list(map(system_output, hypotheses))
        sets[name] = _score_set(recipe, source, unscored, utterances, outputs)
    result = _result(recipe, sets)
    write_json(run.score / "scores.json", TypeAdapter(ScoreResult).dump_python(result, mode="json"))
    return result


def score_shard(recipe: Recipe, run: RunDir, shard: Shard, decoder: Decoder | None = None) -> None:
    """Decodes the clips of one job of an array, which `score` then merges. A part that is there already is kept.

    Args:
        recipe: the recipe.
        run: the run directory.
        shard: which part.
        decoder: as in `score`.

    Raises:
        DataError, ModelError: see `score`.
    """
    decoder = decoder or _ModelDecoder(recipe)
    for name, _, utterances, _, files in _test_sets(recipe, run):
        chosen = [item for number, item in enumerate(utterances) if shard.has(number)]
        if files.has(shard, utterances):
            log.info("%s: shard %s is done already", name, shard)
            continue
        files.write(chosen, decoder(chosen) if chosen else [], shard)
        log.info("%s: shard %s: %d of %d clips are transcribed", name, shard, len(chosen), len(utterances))


def _test_sets(recipe: Recipe, run: RunDir) -> list[tuple[str, str, list[Utterance], int, SetFiles]]:
    """Name, source, scored utterances, number of the others and files of each corpus of `data.test`.

    All are read before one is decoded, so that the last one does not stop a scoring that took hours.
    """
    entries, sets = recipe.data.test, []
    for name, entry in zip(set_names([entry.path for entry in entries]), entries, strict=True):
        utterances, unscored = _read_set(entry, run.media / name, recipe.evaluate.normalizer)
        left_out = f", {unscored} without a reference left out, as in the leaderboard" if unscored else ""
        log.info("%s: %s%s", name, count(len(utterances), "clip"), left_out)
        require_translation_scorer(utterances)
        sets.append((name, entry.path, utterances, unscored, SetFiles(run.score, name, _input_hash(recipe, entry))))
    return sets


def _missing_parts(name: str, files: SetFiles, utterances: Sequence[Utterance]) -> str:
    missing = [str(shard) for shard in files.shards() if not files.has(shard, utterances)]
    parts = f"shards {', '.join(missing[:10])}{' ...' * (len(missing) > 10)}" if missing else "clips"
    return f"{name}: the hypotheses of {parts} are missing; run `finetune score RECIPE --shard` again for them"


def _result(recipe: Recipe, sets: dict[str, ScoredSet]) -> ScoreResult:
    audio, seconds = (sum(getattr(entry, name) for entry in sets.values()) for name in ("audio_seconds", "seconds"))
    return ScoreResult(
        settings=ScoreSettings(recipe.model, recipe.decode, recipe.evaluate, recipe.seed),
        sets=sets,
        macro_wer=_macro(_sets_with(sets, "WER")),
        rtfx=audio / seconds if seconds else None,
        macro_cer=_macro(_sets_with(sets, "CER")),
    )


def _sets_with(sets: Mapping[str, ScoredSet], metric: str) -> list[ScoredSet]:
    """The sets with transcriptions whose rate is the WER, or the CER; those without reference words have none."""
    chosen = (entry for entry in sets.values() if entry.chrf is None and not entry.without_words)
    return [entry for entry in chosen if entry.error_name == metric]


def _macro(sets: Sequence[ScoredSet]) -> float | None:
    """The mean of their rates, each rounded as in the leaderboard; None without sets."""
    return sum(round(100 * entry.wer, 2) for entry in sets) / len(sets) / 100 if sets else None


class _ModelDecoder:
    """Decodes with `model.base`, which is loaded at the first call."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.model = recipe, None

    model: SpeechModel | None

    def __call__(self, utterances: Sequence[Utterance]) -> list[Hypothesis]:
        recipe = self.recipe
        if self.model is None:
            settings = recipe.model
            self.model = load_for_inference(settings.base, settings.dtype, default_device(), settings.revision)
        warn_about_limits(read_limits(recipe.model.base), utterances, recipe.model.instruction, recipe.decode)
        with task("scoring", seconds_of(utterances)):
            return recognize(self.model, list(utterances), recipe.model.instruction, recipe.decode)


def _score_set(
    recipe: Recipe, source: str, unscored: int, utterances: Sequence[Utterance], outputs: Sequence[SystemOutput]
) -> ScoredSet:
    _, chosen = scoring_sets({"test": utterances})["test"]
    items = [utterances[index] for index in chosen]
    preset = normalizer_for(items, recipe.evaluate.normalizer)
    options = ScoringOptions(preset, recipe.evaluate.replicas, recipe.seed, (), frozenset(), {})
    clips = [clip_of(item, recipe.model.instruction, False) for item in items]
    scores = scorecard(clips, [outputs[index] for index in chosen], options).scores
    tasks = split_tasks(utterances, outputs, replace(options, preset=recipe.evaluate.normalizer))
    return ScoredSet(source=source, unscored=unscored, **scores.set_scores(), tasks=tasks)


def score_table(result: ScoreResult) -> list[str]:
    """The model, notes on empty references, a heading, one line for each set and each task, and the means."""
    names = {name: name + ", CER" * (entry.error_name == "CER") for name, entry in result.sets.items()}
    means: dict[str, float | None] = {
        f"mean {metric} of {count(len(_sets_with(result.sets, metric)), 'set')}": value
        for metric, value in (("WER", result.macro_wer), ("CER", result.macro_cer))
        if value is not None
    }
    means = means or {"all sets": None}
    width = max(map(len, [*names.values(), *means]))
    rate = f"{' or '.join(sorted({entry.error_name for entry in result.sets.values()}, reverse=True))} % (95 % CI)"
    notes = [f"{name}: {note}" for name, entry in result.sets.items() if (note := empty_references_note(entry))]
    tasks = [f"{name}: {task_line(task)}" for name, entry in result.sets.items() for task in entry.tasks]
    lines = [
        f"model: {result.settings.model.base} (model.base of the recipe)",
        *notes,
        "",
        f"{'':{width}}{'clips':>8}{'no ref.':>10}{'reference':>20}{rate:>27}{'CER %':>8}{'RTFx':>9}",
    ]
    for name, entry in result.sets.items():
        wer = f"{100 * entry.wer:.2f} ({100 * entry.interval.low:.2f} to {100 * entry.interval.high:.2f})"
        rates = f"{wer:>27}{100 * entry.cer:8.2f}" if entry.chrf is None else f"{'translations, see below':>35}"
        if entry.without_words:
            rates = f"{f'no words, {entry.insertions} inserted':>35}"
        unit = "character" if entry.error_name == "CER" else "word"
        counts = f"{entry.utterances:8}{entry.unscored:10}{count(entry.reference_words, unit):>20}"
        lines.append(f"{names[name]:{width}}{counts}{rates}{entry.rtfx or 0:9.2f}")
    for label, value in means.items():
        mean = "" if value is None else f"{100 * value:.2f}"
        lines.append(f"{label:{width}}{'':38}{mean:>11}{'':24}{result.rtfx or 0:9.2f}")
    return [*lines, *tasks]


def set_names(sources: Sequence[str]) -> dict[str, str]:
    """The sources by a short, unique name that is valid as a file name.

    `hf:NAME:ami:test` is `ami.test`; any other source has the name of its file or folder.
    """
    names: dict[str, str] = {}
    for source in sources:
        parts = source.split(":")
        name = ".".join(parts[2:] if len(parts) > 3 else parts[1:]) if source.startswith("hf:") else Path(source).stem
        name = re.sub(r"[^\w.-]+", "_", name)
        num_same = sum(used_name == name or used_name.startswith(f"{name}-") for used_name in names)
        names[f"{name}-{num_same + 1}" if num_same else name] = source
    return names


def _input_hash(recipe: Recipe, entry: CorpusEntry) -> str:
    """A hash of everything that the hypotheses of a set depend on, with the files of local models and corpora.

    A set that an earlier version decoded has the same hash if `NEW_SETTINGS` have their defaults.
    """
    files = [Path(entry.path), *sorted(Path(recipe.model.base).glob("*.safetensors"))]
    content, default = recipe.model_dump(mode="json"), DecodingOptions()
    unused = {name for name in NEW_SETTINGS if getattr(recipe.decode, name) == getattr(default, name)}
    inputs = [
        entry.model_dump(mode="json"),
        content["model"],
        {name: value for name, value in content["decode"].items() if name not in unused},
        *(sha256_file(path) for path in files if path.is_file()),
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _read_set(entry: CorpusEntry, media: Path, preset: str) -> tuple[list[Utterance], int]:
    """The utterances of a corpus that are scored, and the number of the others.

    Under a normalizer of the leaderboard, clips without words in the normalized reference are left out; under any
    other, they stay, and their recognized words are insertions.
    """
    rows, source = read_entry(entry, media), entry.path
    left_out = {NOT_A_REFERENCE, *([""] if preset.startswith(LEADERBOARD) else [])}
    scored = [row for row in rows if normalize(clean_text(row.values.get("text")), preset) not in left_out]
    if not scored:
        raise DataError(f"{source}: every reference is empty after normalizer {preset}; nothing can be scored")
    return audited_utterances(_without_duplicate_ids(scored), source), len(rows) - len(scored)


def _without_duplicate_ids(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows. If ids are not unique, they are removed; ids are then made from the file names."""
    counts = Counter(str(row.values.get("id") or "") for row in rows)
    if counts.most_common(1)[0][1] == 1:
        return rows
    return [replace(row, values={key: value for key, value in row.values.items() if key != "id"}) for row in rows]
