"""Compares systems on the same clips: scores quality and speed of each, and tests each against the first."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from finetune.core.config import EvaluateSection, Recipe
from finetune.core.errors import DataError, RecipeError
from finetune.core.files import check_output_file, read_json, sha256_file, write_json
from finetune.core.run_dir import RunDir
from finetune.core.wording import count, verb
from finetune.data.manifest import Utterance
from finetune.data.normalizer_choice import in_characters, normalizer_for, tags_note, with_language
from finetune.evaluation.compare_result import (
    ClipHypothesis,
    CompareResult,
    CompareSettings,
    SystemComparison,
    SystemScores,
    Verdict,
)
from finetune.evaluation.kept_hypotheses import run_and_keep
from finetune.evaluation.system_terms import terms_note
from finetune.evaluation.systems import TRANSCRIBERS, System, SystemHypotheses, Transcriber, parse_system, run_system
from finetune.evaluation.training_overlap import TrainingOverlap, limited, overlap_notes, training_overlap
from finetune.evaluation.utterances import check_audio, clip_of, read_utterances
from finetune.metrics.conditions import Condition, check_conditions
from finetune.metrics.normalizer import UNSPACED, normalize
from finetune.metrics.scorecard import Clip, ScoringOptions, SystemOutput, comparison, scorecard
from finetune.metrics.scores import Comparison
from finetune.metrics.significance import SIGNIFICANCE, holm
from finetune.metrics.terms import column_terms, notes_on_signs, read_terms, term_recall

RESULT_KEYS = {"manifest_sha256", "systems", "comparisons"}
RUN_ORDER = ("file", "run", "model", "whisper", "openai")  # files first: an invalid file stops before a model decodes


@dataclass(frozen=True)
class _Inputs:
    """Systems in the order of the user, the utterances to score, and the ids of the others, which are translations."""

    systems: list[System]
    manifest: str
    translations: frozenset[str]
    utterances: list[Utterance]
    options: ScoringOptions


def scoring_options(normalizer: str | None, replicas: int | None) -> ScoringOptions:
    """Scoring options without a recipe; None is the default of a recipe.

    Raises:
        RecipeError: an unknown normalizer, or too few replicas.
    """
    values = {name: value for name, value in (("normalizer", normalizer), ("replicas", replicas)) if value is not None}
    try:
        section = EvaluateSection.model_validate(values)
    except ValidationError as error:
        problems = (f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
        raise RecipeError("\n".join(problems)) from error
    seed = Recipe.model_fields["seed"].default
    return ScoringOptions(section.normalizer, section.replicas, seed, (), frozenset(), {})


def compare(
    names: Sequence[str],
    manifest: str | None,
    options: ScoringOptions,
    terms: str | None,
    instruction: str,
    conditions: Sequence[Condition],
    transcribers: Mapping[str, Transcriber] | None = None,
    folder: Path | None = None,
) -> CompareResult:
    """Transcribes, scores and tests all systems on the same clips with the same normalizer.

    A clip on which one system failed is left out for all systems, with a note.

    Args:
        names: two or more systems (`systems.parse_system`); each is compared with the first.
        manifest: the clips; None is the test set of the first run directory among the systems.
        options: how to score; its terms are replaced.
        terms: a file of terms; None is the manifest columns `terms` and `keywords`.
        instruction: the instruction of clips without their own, for the flag `echo`.
        conditions: conditions to check on each system except the first.
        transcribers: by kind of a system, the function that transcribes; the default is `systems.TRANSCRIBERS`.
        folder: where the hypotheses of systems that transcribe are kept and found again; None keeps nothing.

    Raises:
        RecipeError: fewer than two systems, the same system twice, no manifest, or a condition on terms without terms.
        DataError: clips, terms or hypotheses cannot be read or do not match.
        ModelError: a system cannot be used.
    """
    inputs = _resolve(names, manifest, options, terms, conditions)
    if any(system.kind in TRANSCRIBERS for system in inputs.systems):
        check_audio(inputs.utterances)
    hypotheses = _decode(inputs, transcribers or TRANSCRIBERS, folder)
    return _score(inputs, hypotheses, instruction, conditions)


def check_output(path: Path) -> None:
    """Checks before any work that a result can be written, and replaces nothing but an earlier result.

    Raises:
        DataError: the file is something else, or its folder cannot be written.
    """
    if "\0" in str(path):
        raise DataError(f"{str(path)!r}: a file name must not contain a NUL character")
    check_output_file(path)
    try:
        earlier = read_json(path) if os.path.lexists(path) else None
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    except ValueError as error:  # not JSON
        raise DataError(f"{path}: exists and is not a result of compare; choose another file") from error
    if earlier is not None and not (isinstance(earlier, dict) and earlier.keys() >= RESULT_KEYS):
        raise DataError(f"{path}: exists and is not a result of compare; choose another file")


def write_comparison(path: Path, result: CompareResult) -> None:
    """Writes a result as JSON. Raises DataError if the file cannot be written."""
    try:
        write_json(path, TypeAdapter(CompareResult).dump_python(result, mode="json"))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _resolve(
    names: Sequence[str],
    manifest: str | None,
    options: ScoringOptions,
    terms: str | None,
    conditions: Sequence[Condition],
) -> _Inputs:
    """Reads and checks everything that can fail before a system decodes."""
    if len(names) < 2 or len({*names}) < len(names):
        raise RecipeError("compare: needs two or more different systems; each is compared with the first")
    systems = [parse_system(name) for name in names]
    path = manifest or _manifest_of(systems)
    utterances = read_utterances(Path(path), audio_required=any(system.kind in TRANSCRIBERS for system in systems))
    transcripts = [item for item in utterances if not item.is_translation]
    if not transcripts:
        raise DataError(f"{path}: all clips are translations; compare scores transcripts only")
    choose = normalizer_for if options.preset == EvaluateSection.model_fields["normalizer"].default else with_language
    options = replace(options, preset=choose(transcripts, options.preset))
    cells = [cell for item in transcripts for cell in (item.keywords, item.extra.get("terms"))]
    term_list = read_terms(terms) if terms else column_terms(cells, options.preset)
    term_recall([], [], term_list, options.preset)  # raises DataError for an invalid term
    check_conditions(conditions, [item.text for item in transcripts], term_list, options.preset)
    translations = frozenset(item.id for item in utterances if item.is_translation)
    return _Inputs(systems, str(path), translations, transcripts, replace(options, terms=tuple(term_list)))


def _manifest_of(systems: Sequence[System]) -> str:
    run = next((RunDir(system.source) for system in systems if system.kind == "run"), None)
    if run is None:
        raise RecipeError("--manifest: is missing; it is optional only if one of the systems is a run directory")
    return str(run.manifest("test"))


def _decode(
    inputs: _Inputs, transcribers: Mapping[str, Transcriber], folder: Path | None
) -> dict[str, SystemHypotheses]:
    hypotheses = {}
    for system in sorted(inputs.systems, key=lambda system: RUN_ORDER.index(system.kind)):
        if folder is None or system.kind not in TRANSCRIBERS:
            hypotheses[system.name] = run_system(system, inputs.utterances, transcribers)
        else:
            hypotheses[system.name] = run_and_keep(system, inputs.utterances, folder, transcribers)
    return hypotheses


def _score(
    inputs: _Inputs, hypotheses: Mapping[str, SystemHypotheses], instruction: str, conditions: Sequence[Condition]
) -> CompareResult:
    options, names = inputs.options, [system.name for system in inputs.systems]
    columns = [hypotheses[name].outputs for name in names]
    complete = [index for index, outputs in enumerate(zip(*columns, strict=True)) if None not in outputs]
    if not complete:
        raise DataError("no clip was transcribed by all systems")
    clips = [clip_of(inputs.utterances[index], instruction, measure_audio=False) for index in complete]
    outputs = {
        name: [output for index in complete if (output := column[index]) is not None]
        for name, column in zip(names, columns, strict=True)
    }
    scores = {
        system.name: _system_scores(system, hypotheses[system.name], inputs.utterances, clips, outputs, options)
        for system in inputs.systems
    }
    overlaps = training_overlap(inputs.systems, [inputs.utterances[index] for index in complete])
    return CompareResult(
        manifest=inputs.manifest,
        manifest_sha256=sha256_file(Path(inputs.manifest)),
        settings=CompareSettings(options.preset, options.replicas, options.seed, len(options.terms)),
        clips=len(clips),
        words=scores[names[0]].reference_words,
        systems=scores,
        comparisons=_comparisons(clips, outputs, options, overlaps),
        notes=[*_notes(inputs, hypotheses, clips), *overlap_notes(inputs.systems, overlaps, clips)],
        fired=_fired(conditions, scores),
    )


def _system_scores(
    system: System,
    hypotheses: SystemHypotheses,
    utterances: Sequence[Utterance],
    clips: Sequence[Clip],
    outputs: Mapping[str, Sequence[SystemOutput]],
    options: ScoringOptions,
) -> SystemScores:
    """The scorecard without the scores that depend on the training data, which is not known here."""
    card = scorecard(clips, outputs[system.name], options)
    return SystemScores(
        kind=system.kind,
        about=hypotheses.about,
        failures=hypotheses.failures,
        hypotheses=[
            ClipHypothesis(item.id, *((None, 0.0) if output is None else (output.text, round(output.seconds, 4))))
            for item, output in zip(utterances, hypotheses.outputs, strict=True)
        ],
        file=hypotheses.file,
        reused=hypotheses.reused,
        **card.scores.set_scores(),
        terms=card.scores.terms.unseen if card.scores.terms else None,
        details=card.details,
    )


def _comparisons(
    clips: Sequence[Clip],
    outputs: Mapping[str, list[SystemOutput]],
    options: ScoringOptions,
    overlaps: Mapping[str, TrainingOverlap],
) -> dict[str, SystemComparison]:
    """Each system against the first. The verdict follows the p-values, adjusted by Holm's method."""
    baseline, *candidates = outputs
    tests = {
        name: limited(comparison(clips, outputs[baseline], outputs[name], options), (baseline, name), overlaps)
        for name in candidates
    }
    adjusted = holm([test.p_value for test in tests.values()])
    return {
        name: SystemComparison(**{**vars(test), "p_holm": p_holm}, verdict=_verdict(test, p_holm))
        for (name, test), p_holm in zip(tests.items(), adjusted, strict=True)
    }


def _verdict(test: Comparison, p_holm: float) -> Verdict:
    if p_holm <= SIGNIFICANCE:
        return "better" if test.difference < 0 else "worse"
    return "not proven"


def _fired(conditions: Sequence[Condition], scores: Mapping[str, SystemScores]) -> list[str]:
    """The conditions that hold, for each system except the first, which is the base."""
    rates = {
        name: {"wer": entry.wer, "cer": entry.cer, "recall": entry.terms.recall if entry.terms else None}
        for name, entry in scores.items()
    }
    base, *candidates = rates
    return [
        f"{name}: {condition.text} ({condition.metric} {100 * (rates[name][condition.metric] or 0):.2f}, base "
        f"{100 * (rates[base][condition.metric] or 0):.2f})"
        for condition in conditions
        for name in candidates
        if condition.is_true(rates[name], rates[base])
    ]


def _notes(inputs: _Inputs, hypotheses: Mapping[str, SystemHypotheses], clips: Sequence[Clip]) -> Iterator[str]:
    utterances, preset = inputs.utterances, inputs.options.preset
    if number := len(inputs.translations):
        yield f"{count(number, 'translation')} {verb(number, 'is', 'are')} not scored"
    for name, column in hypotheses.items():
        if column.failures:
            clip_id, error = next(iter(column.failures.items()))
            total = count(len(utterances), "clip")
            yield f"{name} failed on {len(column.failures)} of {total}, the first {clip_id!r}: {error}"
        if note := tags_note([output.text for output in column.outputs if output], preset):
            yield f"{name}: {note}"
        if column.reused:
            total = count(len(utterances), "hypothesis", "hypotheses")
            yield f"{name}: {column.reused} of {total} reused from {column.file}"
        if unmatched := [row for row in column.unmatched if row not in inputs.translations]:
            rows = count(len(unmatched), "row")
            yield f"{name}: not scored: {rows} without a clip of the manifest, such as {unmatched[0]!r}"
        different = [
            item.id
            for item, text in zip(utterances, column.references, strict=False)
            if text and normalize(text, preset) != normalize(item.text, preset)
        ]
        if different:
            yield (
                f"{name} has a different reference for {count(len(different), 'clip')}, such as {different[0]!r}; "
                "the references of the manifest are used"
            )
    yield from terms_note(inputs.systems)
    for note in notes_on_signs(inputs.options.terms, preset, [clip.text for clip in clips]):
        yield f"terms {note}"
    if note := tags_note([clip.text for clip in clips], preset):
        yield f"references: {note}"
    if failed := len(utterances) - len(clips):
        yield f"left out for all systems, because one of them failed: {count(failed, 'clip')}"
    if preset not in UNSPACED and (japanese := sum(map(in_characters, utterances))):
        yield (
            f"{count(japanese, 'clip')} {verb(japanese, 'is', 'are')} Japanese or Chinese, without spaces "
            f"between words, but {preset} counts words: score these clips separately with --normalizer ja-cer@2"
        )
    if any(system.kind == "model" for system in inputs.systems) and any(clip.keywords for clip in clips):
        yield "models that transcribed now had the keywords of the manifest in their prompts; other systems did not"
