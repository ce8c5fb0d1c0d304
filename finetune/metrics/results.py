"""Types of the result files of a run: `evaluation/metrics.json` and `summary.json`; `result_rows` has those of rows.

`scripts/write_schemas.py` writes their JSON schemas to `docs/schemas/`. Increase the schema version when a key or its
meaning changes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.core.errors import CheckpointError
from finetune.core.files import read_json, write_json
from finetune.metrics.groups import GroupTable
from finetune.metrics.hallucination import Probe
from finetune.metrics.scores import Comparison, Details, Scores, SubsetWer, TermsBySeen
from finetune.metrics.significance import Interval, PairedDifference
from finetune.metrics.task_scores import Metric, TaskScores

RESULTS_SCHEMA: Literal[5] = 5
SUMMARY_SCHEMA: Literal[3] = 3
SYSTEMS = ("base", "adapted")
T = TypeVar("T")


class Model(BaseModel):
    """An immutable model; unknown keys are errors, also in nested dataclasses."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BySystem(Model, Generic[T]):
    """One value for each of the two compared systems."""

    base: T
    adapted: T

    def __getitem__(self, system: str) -> T:
        if system not in SYSTEMS:
            raise KeyError(system)
        return self.base if system == "base" else self.adapted

    def items(self) -> Iterator[tuple[str, T]]:
        return ((system, self[system]) for system in SYSTEMS)


def by_system(values: dict[str, T]) -> BySystem[T] | None:
    """The values of both systems; None if there are none."""
    return BySystem(base=values["base"], adapted=values["adapted"]) if values else None


class EvaluationSettings(Model):
    """The settings of a recipe that decide the scores: its section `evaluate`, seed, instruction and decoder."""

    normalizer: str
    replicas: int
    groups: list[str]
    probes: bool
    keyword_lists: list[int]
    seed: int
    instruction: str
    decoder: str


class Provenance(Model):
    """Software and hardware of the evaluation; see `finetune.core.provenance`."""

    made: str
    toolkit: str
    commit: str | None
    python: str
    libraries: dict[str, str]
    device: str
    dtype: str
    system: str


class DecodingStatistics(Model):
    """Statistics of the decoding of one set by one system.

    `acceptance` is the fraction of accepted draft tokens (None without drafts); `passes` (of the language model) and
    `seconds` are means over utterances; `gave_up` counts utterances that stopped drafting; `accepted_by` counts
    utterances by the decoder that wrote their text.
    """

    acceptance: float | None
    passes: float
    seconds: float
    gave_up: int
    accepted_by: dict[str, int]


class DecoderComparison(Model):
    """Greedy against speculative decoding of the adapted model on test.

    `passes` are means over utterances; `acceptance` is the fraction of accepted draft tokens. `engine_wer` is that of
    greedy decoding of whole clips without `decode.terms`, as other engines decode; None in results of earlier versions.
    """

    greedy_seconds: float
    speculative_seconds: float
    greedy_wer: float
    speculative_wer: float
    tokens_equal: bool
    acceptance: float
    greedy_passes: float
    speculative_passes: float
    engine_wer: float | None = None


class ProbeResults(Model):
    """Text that one system writes for clips without speech; 0 is correct. `fraction` is `with_output` over `clips`."""

    clips: int
    with_output: int
    fraction: float
    words_per_minute: float
    truncated: int
    outputs: list[Probe]


class KeywordListScores(Model):
    """Scores with keyword lists of one size in the prompt.

    Attributes:
        set: the decoded set, `test` or `canary`.
        distractors: distractors in each list; None for prompts without keywords.
        true_terms: each list also has the terms of its clip.
        mean_keywords: keywords in a list, on average.
        shortened: number of lists that had to lose distractors to fit into the context of the model.
        wer: WER of all clips.
        interval: its interval.
        difference: the WER minus that without keywords; None for prompts without keywords.
        recall: recall of all terms; None without a term in the references.
        terms: recall of terms in the training texts and of other terms, with intervals; None without a term.
        precision: precision of all terms; None if none was written.
        precision_interval: its interval.
        false_keywords_per_clip: keywords of the prompt that were written and not spoken.
        false_keywords_interval: its interval.
        without_term: WER of the clips in which no term is spoken.
    """

    set: str
    distractors: int | None
    true_terms: bool
    mean_keywords: float
    shortened: int
    wer: float
    interval: Interval
    difference: PairedDifference | None
    recall: float | None
    terms: TermsBySeen | None
    precision: float | None
    precision_interval: Interval | None
    false_keywords_per_clip: float
    false_keywords_interval: Interval
    without_term: SubsetWer


class TaskResult(BySystem[TaskScores]):
    """Scores of both systems on the clips of one task and language, and the adapted model minus the base by score."""

    differences: dict[Metric, PairedDifference]


class SyntheticTraining(Model):
    """Synthetic clips of the training split: their number among all `clips`, and the terms that occur only in them."""

    clips: int
    synthetic: int
    terms: list[str]


class EvaluationResults(Model):
    """The content of `evaluation/metrics.json`.

    Attributes:
        settings: settings that decide the scores.
        provenance: software and hardware.
        scores: by set ("test", "test: real", "test: synthetic", "canary", "canary: CORPUS").
        differences: by set, the adapted model against the base.
        details: by set, the lists from which the scores are computed.
        groups: by set, scores of groups of utterances.
        decoding: by set, decoding statistics.
        decoders: greedy against speculative decoding on test.
        probes: clips without speech; None if `evaluate.probes` is off.
        keyword_lists: one entry for each kind of prompt; None without lists or terms.
        suspicious: number of references in `evaluation/suspicious.jsonl`.
        tasks: by split, scores by task and language; absent for a split with one language and no translations.
        synthetic: synthetic training clips; None if there are none.
        without_terms: by set, WER of the texts before `decode.terms` were written; absent for sets without them.
    """

    schema_version: Literal[5] = RESULTS_SCHEMA
    settings: EvaluationSettings
    provenance: Provenance
    scores: dict[str, BySystem[Scores]]
    differences: dict[str, Comparison]
    details: dict[str, BySystem[Details]]
    groups: dict[str, list[GroupTable]]
    decoding: dict[str, BySystem[DecodingStatistics]]
    decoders: DecoderComparison
    probes: BySystem[ProbeResults] | None
    keyword_lists: BySystem[list[KeywordListScores]] | None
    suspicious: int
    tasks: dict[str, list[TaskResult]] = {}
    synthetic: SyntheticTraining | None = None
    without_terms: dict[str, BySystem[float]] = {}


class ExportSummary(Model):
    """The exported model: its folder, and its differences from the trained model."""

    dir: str
    max_abs_logit_diff: float
    transcripts_equal: bool
    dtype: str


class ParameterCounts(Model):
    """Number of parameters of the model, and number of trained parameters."""

    total: int
    trained: int


class RunSummary(Model):
    """The content of `summary.json`.

    `without_terms` is as in `EvaluationResults`. `report` is the path of the page, None if the report was skipped.
    `seconds` is the duration of each stage, None if it is unknown.
    """

    schema_version: Literal[3] = SUMMARY_SCHEMA
    scores: dict[str, BySystem[Scores]]
    differences: dict[str, Comparison]
    tasks: dict[str, list[TaskResult]] = {}
    without_terms: dict[str, BySystem[float]] = {}
    decoders: DecoderComparison
    report: str | None
    export: ExportSummary
    seconds: dict[str, float | None]
    parameters: ParameterCounts


def read_results(path: Path) -> EvaluationResults:
    """Reads `evaluation/metrics.json`.

    Raises:
        CheckpointError: the file is missing or damaged, or has another schema.
    """
    advice = "Run `finetune evaluate RECIPE` again"
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). {advice}") from error
    keys = content if isinstance(content, dict) else {}
    version = keys.get("schema_version", keys.get("schema"))
    if version != RESULTS_SCHEMA:
        raise CheckpointError(
            f"{path}: has schema {version}, but this version of finetune reads schema {RESULTS_SCHEMA}. {advice}"
        )
    try:
        return EvaluationResults.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path}: {key}: {first['msg']}. {advice}") from error


def write_model(path: Path, model: Model) -> None:
    """Writes a model as JSON."""
    write_json(path, model.model_dump(mode="json"))
