"""The part of a model card with results: WER with intervals, forgetting, terms, words on clips without speech."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import TypeVar

from finetune.core.config import Recipe
from finetune.core.options import MAX_WINDOW, DecodingOptions
from finetune.core.wording import all_of, count
from finetune.exporting.card.training import HOUR, hours_text
from finetune.metrics.results import EvaluationResults
from finetune.report import verdict
from finetune.report.facts import Overlap
from finetune.report.overlap import limited_to_speakers
from finetune.report.tables import interval_notes, interval_units
from finetune.report.wording import p_value, percent, points, span
from finetune.training.state import TrainRecord

T = TypeVar("T")


def public_results(results: EvaluationResults) -> EvaluationResults:
    """The results with numbers for the corpora of the canary, whose names are paths; those on the hub keep theirs."""
    files = [name for name in results.scores if name.startswith("canary: ") and _is_path(name.removeprefix("canary: "))]
    shown = {name: f"canary: corpus {number}" for number, name in enumerate(files, 1)}

    def renamed(values: Mapping[str, T]) -> dict[str, T]:
        return {shown.get(name, name): value for name, value in values.items()}

    names = ("scores", "differences", "without_terms")
    return results.model_copy(update={name: renamed(getattr(results, name)) for name in names})


def _is_path(name: str) -> bool:
    return not name.startswith("hf:") and (bool(PurePath(name).suffix) or "/" in name or "\\" in name)


def results_section(results: EvaluationResults, recipe: Recipe, overlap: Overlap) -> str:
    """Scores of base and adapted model on each set, and the verdicts of the report.

    Args:
        results: results of the evaluation.
        recipe: recipe of the run.
        overlap: overlap of test with the training data; it limits the verdicts.
    """
    results = limited_to_speakers(results, overlap)
    lines = [
        "| set | clips | hours | metric | base | this model | 95 % interval | difference | 95 % interval | p |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(name, results) for name in results.scores),
    ]
    scores = results.scores["test"].adapted
    notes = [
        f"Normalizer `{scores.normalizer}`; intervals and tests over {interval_units(results)}. "
        "`test` is the domain; `canary` is other speech, which measures forgetting. WER, CER and chrF are in per cent, "
        "differences in percentage points.",
        *_other_engines(results, recipe.decode),
    ]
    findings = [
        verdict.domain(results),
        *filter(None, [verdict.translation(results)]),
        verdict.forgetting(results, recipe.train.max_canary_loss),
        verdict.hallucination(results),
    ]
    if overlap.clips or overlap.speakers:
        findings.append(verdict.leak(overlap, scores.blocks.speakers))
    bullets = [" ".join(filter(None, [f"- **{x.subject}: {x.headline}.**", x.detail, x.caveat])) for x in findings]
    notes += [f"Interval of `{name}`: {note}." for name, system, note in interval_notes(results) if system != "base"]
    return "\n".join([*lines, "", *notes, "", *bullets, *_terms(results), ""])


def _other_engines(results: EvaluationResults, decode: DecodingOptions) -> list[str]:
    """How the models wrote, if other engines cannot do it, and the scores without, if known."""
    beams = f"beam search (`decode.decoder: beam`, {decode.num_beams} texts)" if decode.decoder == "beam" else ""
    terms = f"a list of {count(len(decode.terms), 'term')} (`decode.terms`)" if decode.terms else ""
    windows = f"clips longer than {decode.max_window:g} s cut at pauses" if decode.max_window < MAX_WINDOW else ""
    if not (means := [text for text in (beams, terms, windows) if text]):
        return []
    adapted = results.scores["test"].adapted
    notes = [
        f"Both models wrote with {all_of(means)}, which `finetune transcribe` and "
        "`finetune serve` use with this model; other engines do not."
    ]
    if adapted.without_words:
        return notes
    if terms and (wers := results.without_terms.get("test")):
        rates = f"{percent(wers.base)} (base) and {percent(wers.adapted)} (this model)"
        notes.append(f"Without the list, the {adapted.error_name} of `test` is {rates}.")
    greedy = results.decoders.engine_wer
    if (beams or windows) and greedy is not None and adapted.chrf is None:  # a WER says nothing about translations
        without = f"greedy decoding{' without the list' * bool(terms)}{' of each clip in one piece' * bool(windows)}"
        rate = f"a {adapted.error_name} of {percent(greedy)}"
        notes.append(f"With {without}, as in other engines, this model has {rate}.")
    return [" ".join(notes)]


def _row(name: str, results: EvaluationResults) -> str:
    base, adapted = results.scores[name].base, results.scores[name].adapted
    difference = results.differences.get(name)
    translated, hours = adapted.chrf is not None, hours_text(adapted.audio_seconds / HOUR)
    if adapted.without_words:
        counts = (base.inserted, f"{base.insertions:,}", f"{adapted.insertions:,}", "–")
        change = f"{adapted.insertions - base.insertions:+,}".replace("-", "−")
        return f"| {' | '.join([name, f'{adapted.utterances:,}', hours, *counts, change, '–', '–'])} |"
    values = (
        ("chrF", percent(base.chrf), percent(adapted.chrf), "–")
        if translated
        else (base.error_name, percent(base.wer), percent(adapted.wer), span(adapted.interval))
    )
    sign = -1 if translated else 1
    compared = ("–", "–", "–")
    if difference is not None:
        low, high = sorted((sign * difference.low, sign * difference.high))
        compared = (
            points(sign * difference.difference),
            f"{points(low)} to {points(high)}",
            p_value(difference.p_value),
        )
    return f"| {' | '.join([name, f'{adapted.utterances:,}', hours, *values, *compared])} |"


def _terms(results: EvaluationResults) -> list[str]:
    base, adapted = results.scores["test"].base.terms, results.scores["test"].adapted.terms
    if base is None or adapted is None:
        return []
    rows = (("that occur in the training texts", base.seen, adapted.seen), ("others", base.unseen, adapted.unseen))
    texts = [
        f"{label} {percent(before.recall)} % → {percent(after.recall)} %"
        + (f" ({span(after)})" if after.low is not None else "")
        for label, before, after in rows
        if after.recall is not None
    ]
    return [f"- **Recall of terms**: {'; '.join(texts)}."] * bool(texts)


def validation_section(record: TrainRecord, metric: str, translations: bool) -> str:
    """The scores of validation, for a run that was not evaluated. With translations they have errors by chrF too."""
    measure = f"Error (1 - chrF of translations, {metric} of the others)" if translations else metric
    lines = [
        f"Not evaluated on test data. {measure} of the validation clips, which chose this adapter: base "
        f"{percent(record.base_valid_wer)} %, this model {percent(record.best_valid_wer)} %."
    ]
    if record.best_canary_wer is not None:
        lines.append(
            f"Other speech (canary): base {percent(record.base_canary_wer)} %, this model "
            f"{percent(record.best_canary_wer)} %."
        )
    return " ".join(lines) + "\n"
