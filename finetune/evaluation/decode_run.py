"""Decodes the test and canary sets of a run with the base and the adapted model, and the clips of the other checks."""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from finetune.core.config import Recipe
from finetune.core.model_limits import read_limits
from finetune.core.options import MAX_WINDOW
from finetune.core.progress import task
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.normalizer_choice import normalizer_for
from finetune.data.probes import write_probes
from finetune.evaluation.decode import Recognize, warn_about_limits
from finetune.evaluation.keyword_lists import FitKeywords, evaluate_keyword_lists, kinds
from finetune.evaluation.probes import evaluate_probes
from finetune.evaluation.scoring_sets import scoring_sets, transcriptions
from finetune.evaluation.utterance_rows import hypothesis_row
from finetune.inference.ctc_text import ctc_texts
from finetune.inference.recognize import Hypothesis, recognize
from finetune.metrics.reference_check import suspicion_scores
from finetune.metrics.result_rows import SuspiciousReference
from finetune.metrics.results import SYSTEMS, DecoderComparison, KeywordListScores, ProbeResults
from finetune.metrics.sclite import write_rows
from finetune.metrics.scorecard import ScoringOptions
from finetune.metrics.wer import score
from finetune.model.adapter import load_adapter
from finetune.model.float32 import load_for_inference
from finetune.model.granite import SpeechModel, default_device

log = logging.getLogger(__name__)

COMPARED: tuple[Literal["greedy"], Literal["speculative"]] = ("greedy", "speculative")  # decoders


def load_system(recipe: Recipe, run: RunDir, system: str) -> SpeechModel:
    """Loads the base model, with the adapter of the run if `system` is "adapted"."""

    def adapt(model: SpeechModel, keep_float32: bool) -> None:
        if system == "adapted":
            load_adapter(model, run.best, keep_float32)

    settings = recipe.model
    return load_for_inference(settings.base, settings.dtype, default_device(), settings.revision, adapt)


@dataclass(frozen=True)
class Backend:
    """The functions that run a model: load a system, transcribe utterances, and decode them with the CTC head.

    `fit_keywords` shortens keyword lists, see `evaluate_keyword_lists`.
    """

    load: Callable[[Recipe, RunDir, str], SpeechModel] = load_system
    recognize: Recognize = recognize
    ctc_texts: Callable[[SpeechModel, list[Utterance]], list[str]] = ctc_texts
    fit_keywords: FitKeywords | None = None


@dataclass(frozen=True)
class DecodedRun:
    """Output of the models.

    Attributes:
        hypotheses: by split and system, in the order of the manifest.
        probes: by system; empty if `evaluate.probes` is off.
        keyword_lists: by system; empty without lists or terms.
        decoders: greedy against speculative decoding on test.
        suspicious: references that are probably wrong.
    """

    hypotheses: dict[str, dict[str, list[Hypothesis]]]
    decoders: DecoderComparison
    suspicious: list[SuspiciousReference]
    probes: dict[str, ProbeResults]
    keyword_lists: dict[str, list[KeywordListScores]]


def decode_run(
    recipe: Recipe, run: RunDir, splits: dict[str, list[Utterance]], scoring: ScoringOptions, backend: Backend
) -> DecodedRun:
    """Decodes all splits with both systems and writes `evaluation/SPLIT.SYSTEM.jsonl`.

    Args:
        recipe: settings of the run.
        run: its directory.
        splits: utterances of test, and of canary if there is one.
        scoring: normalizer and terms, for the keyword lists and the suspicious references.
        backend: the model functions.

    Raises:
        CheckpointError: the run has no adapter.
    """
    _warn(recipe, run, splits)
    instruction, options = recipe.model.instruction, recipe.decode
    clips = write_probes(run.probes, recipe.seed) if recipe.evaluate.probes else []
    hypotheses: dict[str, dict[str, list[Hypothesis]]] = {split: {} for split in splits}
    probes, lists = dict[str, ProbeResults](), dict[str, list[KeywordListScores]]()
    transcripts = transcriptions(splits["test"])
    test = [splits["test"][index] for index in transcripts]  # other sets are scored with these clips alone
    model: SpeechModel | None = None
    for system in SYSTEMS:
        model = None
        gc.collect()  # the adapted model must find the memory of the base free
        model = backend.load(recipe, run, system)
        for split, utterances in splits.items():
            with task(f"{split}, {system} model", seconds_of(utterances)):
                rows = backend.recognize(model, utterances, instruction, options)
            hypotheses[split][system] = rows
            write_rows(run.hypotheses(split, system), map(hypothesis_row, utterances, rows))
        if clips:
            with task(f"clips without speech, {system} model", seconds_of(clips)):
                probes[system] = evaluate_probes(model, clips, instruction, options, backend.recognize)
        if recipe.evaluate.keyword_lists and scoring.terms and test:
            lists[system] = _keyword_lists(model, splits, recipe, scoring, system, backend)
    assert model is not None
    texts = {system: [rows[index] for index in transcripts] for system, rows in hypotheses["test"].items()}
    compared = scoring_sets(splits)["test"][1]
    decoded = [splits["test"][index] for index in compared]
    chosen = [hypotheses["test"]["adapted"][index] for index in compared]
    with task("comparing the decoders", comparison_seconds(decoded, recipe)):
        decoders = compare_decoders(model, decoded, chosen, recipe, backend)
    with task("CTC text of suspicious references", seconds_of(test)):
        preset = normalizer_for(test, scoring.preset)
        suspicious = find_suspicious(model, test, texts, preset, backend) if test else []
    return DecodedRun(hypotheses, decoders, suspicious, probes, lists)


def _keyword_lists(
    model: SpeechModel,
    splits: dict[str, list[Utterance]],
    recipe: Recipe,
    scoring: ScoringOptions,
    system: str,
    backend: Backend,
) -> list[KeywordListScores]:
    sizes, spoken = recipe.evaluate.keyword_lists, dict[str, list[Utterance]]()
    for split, utterances in splits.items():
        if indices := transcriptions(utterances):
            spoken[split] = [utterances[index] for index in indices]
    scoring = replace(scoring, preset=normalizer_for(spoken["test"], scoring.preset))
    seconds = sum(seconds_of(spoken[kind.split]) for kind in kinds(sizes, list(spoken)))
    with task(f"keyword lists, {system} model", seconds):
        return evaluate_keyword_lists(
            model,
            spoken,
            recipe.model.instruction,
            recipe.decode,
            scoring,
            sizes,
            backend.recognize,
            backend.fit_keywords,
        )


def _warn(recipe: Recipe, run: RunDir, splits: dict[str, list[Utterance]]) -> None:
    """Logs what the adapted model was not trained for."""
    limits = read_limits(recipe.model.base).after_training(recipe.model.instruction, run.done("train"))
    items = [item for utterances in splits.values() for item in utterances]
    if recipe.evaluate.keyword_lists and items:
        items.append(replace(items[0], keywords=("keyword",)))  # as the keyword lists will prompt
    warn_about_limits(limits, items, recipe.model.instruction, recipe.decode)


def find_suspicious(
    model: SpeechModel,
    utterances: list[Utterance],
    hypotheses: dict[str, list[Hypothesis]],
    preset: str,
    backend: Backend,
) -> list[SuspiciousReference]:
    """References that differ from base model, adapted model and CTC head, the most suspicious first."""
    texts = {system: [item.text for item in hypotheses[system]] for system in SYSTEMS}
    doubts = suspicion_scores([item.text for item in utterances], [texts[system] for system in SYSTEMS], preset)
    chosen = [index for index, value in enumerate(doubts) if value > 0]  # the CTC head decodes only these
    if not chosen:
        return []
    items = [utterances[index] for index in chosen]
    columns = [*([texts[system][index] for index in chosen] for system in SYSTEMS), backend.ctc_texts(model, items)]
    values = suspicion_scores([item.text for item in items], columns, preset)
    rows = [
        SuspiciousReference(
            id=item.id,
            audio_filepath=item.audio_filepath,
            offset=item.offset,
            duration=item.duration,
            channel=item.channel,
            text=item.text,
            pred_text=adapted,
            pred_text_base=base,
            pred_text_ctc=draft,
            suspicion=round(value, 4),
        )
        for item, base, adapted, draft, value in zip(items, *columns, values, strict=True)
    ]
    return sorted((row for row in rows if row.suspicion > 0), key=lambda row: -row.suspicion)


def _cut(utterances: list[Utterance], recipe: Recipe) -> list[int]:
    """Indices of the utterances that the recipe decodes in several windows."""
    window = recipe.decode.max_window
    return [row for row, item in enumerate(utterances) if item.duration > window] if window < MAX_WINDOW else []


def comparison_seconds(utterances: list[Utterance], recipe: Recipe) -> float:
    """Seconds of audio that `compare_decoders` decodes."""
    decoded = 1 if recipe.decode.decoder in COMPARED else len(COMPARED)
    return decoded * seconds_of(utterances) + seconds_of(utterances[row] for row in _cut(utterances, recipe))


def _as_other_engines(
    model: SpeechModel, utterances: list[Utterance], greedy: list[Hypothesis], recipe: Recipe, backend: Backend
) -> list[str]:
    """The texts of greedy decoding without a list of terms, each clip in one piece."""
    options = replace(recipe.decode, decoder="greedy", max_window=MAX_WINDOW)
    cut = _cut(utterances, recipe)
    again = backend.recognize(model, [utterances[row] for row in cut], recipe.model.instruction, options) if cut else []
    chosen = dict(enumerate(greedy)) | dict(zip(cut, again, strict=True))
    return [item.text if item.without_keywords is None else item.without_keywords for item in chosen.values()]


def compare_decoders(
    model: SpeechModel, utterances: list[Utterance], hypotheses: list[Hypothesis], recipe: Recipe, backend: Backend
) -> DecoderComparison:
    """Compares greedy and speculative decoding of the adapted model: tokens, time and acceptance.

    Args:
        model: the adapted model.
        utterances: the test set.
        hypotheses: its hypotheses with the decoder of the recipe; they are not decoded again.
        recipe: settings of the run.
        backend: the model functions.
    """
    greedy, speculative = (
        hypotheses
        if recipe.decode.decoder == decoder
        else backend.recognize(model, utterances, recipe.model.instruction, replace(recipe.decode, decoder=decoder))
        for decoder in COMPARED
    )
    differing = [a.id for a, b in zip(greedy, speculative, strict=True) if a.tokens != b.tokens]
    if differing:
        log.warning(
            "speculative and greedy decoding differ on %s, such as %s",
            count(len(differing), "utterance"),
            differing[:3],
        )
    texts, preset = [item.text for item in utterances], normalizer_for(utterances, recipe.evaluate.normalizer)
    greedy_wer = score(texts, [item.text for item in greedy], preset).wer
    plain = _as_other_engines(model, utterances, greedy, recipe, backend)
    drafted = sum(item.drafted for item in speculative)
    return DecoderComparison(
        greedy_seconds=round(sum(item.seconds for item in greedy), 3),
        speculative_seconds=round(sum(item.seconds for item in speculative), 3),
        greedy_wer=greedy_wer,
        speculative_wer=score(texts, [item.text for item in speculative], preset).wer if differing else greedy_wer,
        tokens_equal=not differing,
        acceptance=round(sum(item.accepted for item in speculative) / max(1, drafted), 4),
        greedy_passes=round(sum(item.passes for item in greedy) / len(greedy), 2),
        speculative_passes=round(sum(item.passes for item in speculative) / len(speculative), 2),
        engine_wer=score(texts, plain, preset).wer,
    )
