"""Evaluates the base and the adapted model of a run on test and canary: decode, score, write."""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finetune.core.config import Recipe
from finetune.core.options import DecodingOptions
from finetune.core.provenance import provenance
from finetune.core.run_dir import RunDir
from finetune.data.audio import load_utterance
from finetune.data.audio_files import require_audio_files
from finetune.data.manifest import Utterance, read_manifest
from finetune.data.normalizer_choice import normalizer_for
from finetune.data.splits import TRAINING_SPLITS
from finetune.evaluation.decode import system_output
from finetune.evaluation.decode_run import Backend, DecodedRun, decode_run
from finetune.evaluation.scoring_sets import scoring_sets, transcriptions
from finetune.evaluation.synthetic import synthetic_training
from finetune.evaluation.task_results import compare_tasks, require_translation_scorer
from finetune.evaluation.utterance_rows import utterance_rows, write_transcripts
from finetune.evaluation.utterances import LoadAudio, clip_of
from finetune.inference.recognize import Hypothesis, decoding_summary
from finetune.metrics.groups import GroupTable
from finetune.metrics.results import (
    SYSTEMS,
    BySystem,
    DecodingStatistics,
    EvaluationResults,
    EvaluationSettings,
    Provenance,
    SyntheticTraining,
    TaskResult,
    by_system,
    read_results,
    write_model,
)
from finetune.metrics.sclite import write_rows
from finetune.metrics.scorecard import Clip, ScoringOptions, SystemOutput, comparison, group_tables, scorecard
from finetune.metrics.scores import Comparison, Details, Scores, empty_references_note
from finetune.metrics.significance import holm
from finetune.metrics.terms import column_terms, notes_on_signs, read_terms, term_recall
from finetune.metrics.wer import score
from finetune.metrics.words import word_counts
from finetune.model.granite import default_device, resolved_dtype

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateResult:
    """Path of `evaluation/metrics.json`, and the duration of the evaluation in seconds."""

    metrics: str
    seconds: float

    def read(self) -> EvaluationResults:
        """Reads the results from the file."""
        return read_results(Path(self.metrics))


@dataclass(frozen=True)
class EvaluationSet:
    """Utterances that are scored together, with their hypotheses by system; `split` is test or canary."""

    name: str
    split: str
    utterances: list[Utterance]
    hypotheses: dict[str, list[Hypothesis]]


@dataclass(frozen=True)
class ScoredSet:
    """Scores of both systems on one set, with the inputs of the scores.

    `preset` is the normalizer; `without_terms` the WER before `decode.terms` were written.
    """

    scores: BySystem[Scores]
    difference: Comparison
    details: BySystem[Details]
    groups: list[GroupTable]
    decoding: BySystem[DecodingStatistics]
    clips: list[Clip]
    outputs: dict[str, list[SystemOutput]]
    preset: str
    without_terms: BySystem[float] | None


def evaluate(
    recipe: Recipe, run: RunDir, backend: Backend | None = None, load_audio: LoadAudio = load_utterance
) -> EvaluateResult:
    """Decodes and scores test and canary with both models, and writes `evaluation/`.

    Args:
        recipe: settings of the run.
        run: its directory, after training.
        backend: the model functions; None uses those of the toolkit.
        load_audio: reads the audio of the test set, to measure bandwidth and SNR.

    Raises:
        DataError: the list of terms cannot be read; the audio of a clip changed since `finetune prepare`, or cannot be
            read any more.
        CheckpointError: the run has no adapter.
    """
    started = time.monotonic()
    splits = {
        split: read_manifest(run.manifest(split)) for split in ("test", "canary") if run.manifest(split).is_file()
    }
    require_audio_files(run, splits)
    require_translation_scorer([item for items in splits.values() for item in items])
    training = {split: read_manifest(run.manifest(split)) for split in TRAINING_SPLITS if run.manifest(split).is_file()}
    options = _scoring_options(recipe, splits["test"], [item.text for rows in training.values() for item in rows])
    synthetic = synthetic_training(training.get("train", []), options.terms, _terms_preset(splits["test"], recipe))
    decoded = decode_run(recipe, run, splits, options, backend or Backend())
    sets = _sets(splits, decoded)
    scored = {item.name: score_set(item, recipe, options, load_audio) for item in sets}
    write_rows(run.suspicious, map(asdict, decoded.suspicious))
    write_rows(run.utterances, _utterance_rows(sets, scored))
    tasks = {split: _compare_tasks(split, items, decoded, options) for split, items in splits.items()}
    for name in set(splits) & set(scored):
        write_transcripts(run, name, scored[name].clips, scored[name].outputs, scored[name].preset)
    write_model(run.scores, _results(recipe, decoded, scored, tasks, synthetic))
    return EvaluateResult(str(run.scores), round(time.monotonic() - started, 1))


def _terms_preset(test: list[Utterance], recipe: Recipe) -> str:
    """The normalizer by which the terms are found in the texts: that of the transcriptions of test."""
    return normalizer_for([test[index] for index in transcriptions(test)] or test, recipe.evaluate.normalizer)


def _scoring_options(recipe: Recipe, test: list[Utterance], training_texts: list[str]) -> ScoringOptions:
    """Scoring options with the terms of the recipe, or of the columns `terms` and `keywords` of the test manifest."""
    preset = _terms_preset(test, recipe)
    cells = [cell for item in test for cell in (item.keywords, item.extra.get("terms"))]
    terms = read_terms(recipe.data.terms) if recipe.data.terms else column_terms(cells, preset)
    for note in notes_on_signs(terms, preset, [item.text for item in test]):
        log.info("terms  %s", note)
    rows = term_recall(training_texts, training_texts, terms, preset)
    return ScoringOptions(
        preset=recipe.evaluate.normalizer,
        replicas=recipe.evaluate.replicas,
        seed=recipe.seed,
        terms=tuple(terms),
        seen=frozenset(row.term for row in rows if row.support),
        trained=word_counts(training_texts, preset),
    )


def _sets(splits: dict[str, list[Utterance]], decoded: DecodedRun) -> list[EvaluationSet]:
    return [
        EvaluationSet(
            name=name,
            split=split,
            utterances=[splits[split][i] for i in chosen],
            hypotheses={system: [rows[i] for i in chosen] for system, rows in decoded.hypotheses[split].items()},
        )
        for name, (split, chosen) in scoring_sets(splits).items()
    ]


def score_set(item: EvaluationSet, recipe: Recipe, options: ScoringOptions, load_audio: LoadAudio) -> ScoredSet:
    """Scores both systems on one set, compares them, and logs the main scores."""
    options = replace(options, preset=normalizer_for(item.utterances, options.preset))
    measured = item.split == "test"
    clips = [clip_of(utterance, recipe.model.instruction, measured, load_audio) for utterance in item.utterances]
    outputs = {system: [system_output(row) for row in rows] for system, rows in item.hypotheses.items()}
    base, adapted = (scorecard(clips, outputs[system], options) for system in SYSTEMS)
    statistics = [DecodingStatistics(**decoding_summary(item.hypotheses[system])) for system in SYSTEMS]
    groups = recipe.evaluate.groups if base.scores.chrf is None else []  # groups have a WER
    tables = group_tables(clips, outputs, groups, options) if base.scores.chrf is None else []
    for column in {*groups} - {table.column for table in tables}:
        log.info("%-6s no utterance has a value in column %r, so there are no groups for it", item.name, column)
    scored = ScoredSet(
        scores=BySystem(base=base.scores, adapted=adapted.scores),
        difference=comparison(clips, outputs["base"], outputs["adapted"], options),
        details=BySystem(base=base.details, adapted=adapted.details),
        groups=tables,
        decoding=BySystem(base=statistics[0], adapted=statistics[1]),
        clips=clips,
        outputs=outputs,
        preset=options.preset,
        without_terms=_without_terms(item, options.preset, recipe.decode) if recipe.decode.terms else None,
    )
    _log_scores(item.name, scored)
    return scored


def _without_terms(item: EvaluationSet, preset: str, decoding: DecodingOptions) -> BySystem[float] | None:
    """WER of the texts before terms were written into them; None for translations, or if keywords were written too."""
    with_keywords = any(decoding.by_ctc(utterance.keywords) != decoding.terms for utterance in item.utterances)
    if with_keywords or any(utterance.is_translation for utterance in item.utterances):
        return None
    references = [utterance.text for utterance in item.utterances]
    texts = {
        system: [row.text if row.without_keywords is None else row.without_keywords for row in rows]
        for system, rows in item.hypotheses.items()
    }
    base, adapted = (score(references, texts[system], preset).wer for system in SYSTEMS)
    return BySystem(base=base, adapted=adapted)


def _log_scores(name: str, scored: ScoredSet) -> None:
    for system, scores in scored.scores.items():
        if scores.chrf is not None:  # the scores by task have BLEU and chrF
            continue
        if not scores.without_words:
            _log_rates(name, system, scores)
        if empty := empty_references_note(scores):
            log.info("%-6s %-7s %s", name, system, empty)
    adapted = scored.scores.adapted
    if note := scored.difference.note or adapted.blocks.note:
        log.info("%-6s %s", name, note)
    if adapted.prompted.in_reference:
        log.warning(
            "%s: %d of %d prompts contain a keyword of their reference, so the scores measure recognition of "
            "words that are in the prompt",
            name,
            adapted.prompted.in_reference,
            adapted.utterances,
        )


def _log_rates(name: str, system: str, scores: Scores) -> None:
    log.info(
        "%-6s %-7s %s %5.1f %% (95 %%: %.1f to %.1f)  raw %s %5.1f %%  CER %5.1f %%",
        name,
        system,
        scores.error_name,
        100 * scores.wer,
        100 * scores.interval.low,
        100 * scores.interval.high,
        scores.error_name,
        100 * scores.raw_error,
        100 * scores.cer,
    )


def _utterance_rows(sets: list[EvaluationSet], scored: dict[str, ScoredSet]) -> Iterator[dict[str, Any]]:
    """One row for each utterance, in the first set that has it. Unknown measures are omitted."""
    written = set[tuple[str, str]]()
    for item in sets:
        scored_set = scored[item.name]
        for row in utterance_rows(item.name, item.utterances, scored_set.clips, scored_set.outputs, scored_set.preset):
            if (item.split, row.id) not in written:
                written.add((item.split, row.id))
                yield {key: value for key, value in vars(row).items() if value is not None}


def _compare_tasks(
    split: str, utterances: list[Utterance], decoded: DecodedRun, options: ScoringOptions
) -> list[TaskResult]:
    outputs = {system: list(map(system_output, rows)) for system, rows in decoded.hypotheses[split].items()}
    return compare_tasks(split, utterances, outputs, options)


def _results(
    recipe: Recipe,
    decoded: DecodedRun,
    sets: dict[str, ScoredSet],
    tasks: dict[str, list[TaskResult]],
    synthetic: SyntheticTraining | None,
) -> EvaluationResults:
    device = default_device()
    machine = torch.cuda.get_device_name() if device == "cuda" else device
    return EvaluationResults(
        settings=EvaluationSettings(
            **recipe.evaluate.model_dump(),
            seed=recipe.seed,
            instruction=recipe.model.instruction,
            decoder=recipe.decode.decoder,
        ),
        provenance=Provenance(**provenance(machine, resolved_dtype(recipe.model.dtype, device))),
        scores={name: item.scores for name, item in sets.items()},
        differences=_adjust_for_sets({name: item.difference for name, item in sets.items()}),
        details={name: item.details for name, item in sets.items()},
        groups={name: item.groups for name, item in sets.items()},
        decoding={name: item.decoding for name, item in sets.items()},
        decoders=decoded.decoders,
        probes=by_system(decoded.probes),
        keyword_lists=by_system(decoded.keyword_lists),
        suspicious=len(decoded.suspicious),
        tasks={split: by_task for split, by_task in tasks.items() if by_task},
        synthetic=synthetic,
        without_terms={name: wers for name, item in sets.items() if (wers := item.without_terms)},
    )


def _adjust_for_sets(differences: dict[str, Comparison]) -> dict[str, Comparison]:
    """Adjusts the p-values of the canary sets, because they test the same question: is general speech worse?"""
    names = [name for name in differences if name.partition(":")[0] == "canary"]
    adjusted = dict(zip(names, holm([differences[name].p_value for name in names]), strict=True))
    return {name: replace(item, p_holm=adjusted.get(name)) for name, item in differences.items()}
