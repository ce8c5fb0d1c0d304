"""The verdict of a report: whether the adapted model is better on the domain, and its side effects.

Every conclusion follows from a p-value, an interval or a count in `evaluation/metrics.json`, never from a difference
alone, and says for whom it holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from finetune.core.wording import count, verb
from finetune.metrics.blocks import MIN_BLOCKS, scope_text
from finetune.metrics.result_rows import UtteranceResult
from finetune.metrics.results import BySystem, EvaluationResults, ProbeResults
from finetune.metrics.scores import Comparison, Scores
from finetune.metrics.significance import SIGNIFICANCE, holm
from finetune.report.facts import Overlap
from finetune.report.overlap import limited_to_speakers
from finetune.report.wording import p_value, percent, points, sentence, span_of_points

GOOD, OPEN, BAD, UNKNOWN = "good", "open", "bad", "unknown"


@dataclass(frozen=True)
class Finding:
    """One tile of the verdict. `state` is one of the four above; `caveat` names limits of the result, or is ""."""

    subject: str
    state: str
    headline: str
    detail: str
    caveat: str = ""


def findings(results: EvaluationResults, overlap: Overlap, limit: float | None, speakers: int) -> list[Finding]:
    """All tiles.

    Args:
        results: results of the evaluation.
        overlap: overlap of test and canary with the training data.
        limit: see `forgetting`.
        speakers: number of known test speakers.
    """
    limited = limited_to_speakers(results, overlap)
    return [
        domain(limited),
        *filter(None, [translation(limited)]),
        forgetting(limited, limit),
        hallucination(results),
        leak(overlap, speakers),
    ]


def known_speakers(rows: Iterable[UtteranceResult]) -> int:
    """The number of speakers of test that have a name."""
    return len({row.speaker for row in rows if row.set == "test"} - {""})


def domain(results: EvaluationResults) -> Finding:
    """Finding on the domain: better or worse only if the p-value of the difference on test is at most 0.05.

    A model that writes nothing for half of the speech is neither, whatever the p-value.
    """
    difference, scores = results.differences["test"], results.scores["test"]
    state, headline = OPEN, "No significant difference"
    if difference.p_value <= SIGNIFICANCE:
        state, headline = (GOOD, "Better") if difference.difference < 0 else (BAD, "Worse")
        headline += scope_text(difference.scope, difference.speakers)
    if scores.adapted.mostly_silent:
        state, headline = BAD, f"No text for {scores.adapted.silent} of {count(scores.adapted.with_speech, 'clip')}"
    detail = f"{_change(results, 'test')} {_tested(results, 'test')}"
    if state == OPEN and difference.detectable is not None and difference.blocks >= MIN_BLOCKS:
        detail += f" This test set can detect differences of {100 * difference.detectable:.1f} points or more."
    prompted = scores.adapted.prompted.in_reference
    caveats = [difference.note or scores.adapted.blocks.note]
    if prompted:
        caveats.append(
            f"{prompted} of {count(scores.adapted.utterances, 'prompt')} contain a keyword of their reference, so the "
            "scores measure recognition of words that are in the prompt"
        )
    caveats += _other_language(results, "test")
    return Finding("Domain", state, headline, detail, _join_caveats(caveats))


def translation(results: EvaluationResults) -> Finding | None:
    """Finding on the translations of a test set that also has other clips; None without them.

    The p-values of several pairs of languages are adjusted by Holm's method; one significant loss makes it bad.
    """
    names = [name for name, both in results.scores.items() if name != "test" and _is_translation_of_test(name, both)]
    if not names:
        return None
    differences = [results.differences[name] for name in names]
    adjusted = holm([item.p_value for item in differences])
    proven = [item for item, p in zip(differences, adjusted, strict=True) if p <= SIGNIFICANCE]
    state, headline = OPEN, "No significant difference"
    if proven:
        state, headline = (BAD, "Worse") if any(item.difference > 0 for item in proven) else (GOOD, "Better")
        headline += _narrowest_scope(proven)
        if len(names) > 1:
            headline += f" ({count(len(proven), 'pair')} of {len(names)})"
    details = [
        f"{sentence(name.partition(': ')[2])}: {_change(results, name)} {_tested(results, name)}" for name in names
    ]
    notes = [item.note for item in differences if item.note][:1]
    others = [f"{name.partition(': ')[2]}: {text}" for name in names for text in _other_language(results, name)]
    return Finding("Translation", state, headline, " ".join(details), _join_caveats([*notes, *others]))


def _is_translation_of_test(name: str, both: BySystem[Scores]) -> bool:
    return name.partition(":")[0] == "test" and both.adapted.chrf is not None


def _other_language(results: EvaluationResults, name: str) -> list[str]:
    """A caveat if hypotheses of the adapted model are in another language."""
    base, adapted = (scores.flags.get("language", 0) for _, scores in results.scores[name].items())
    return [f"{count(adapted, 'hypothesis', 'hypotheses')} in another language (base {base})"] if adapted else []


def forgetting(results: EvaluationResults, limit: float | None) -> Finding:
    """Finding on general speech: worse if a canary set has a significant loss (p-values adjusted by Holm).

    Args:
        results: results of the evaluation.
        limit: accepted increase of WER (`train.max_canary_loss`); a larger increase is bad even if it is not
            significant, and the state is good only if the intervals exclude it.
    """
    subject = "General speech"
    sets = {name: item for name, item in results.differences.items() if name.partition(":")[0] == "canary"}
    if not sets:
        return Finding(subject, UNKNOWN, "Not measured", "The recipe has no data.canary.")
    worse_sets = [
        name
        for name, item in sets.items()
        if item.difference > 0 and item.p_holm is not None and item.p_holm <= SIGNIFICANCE
    ]
    largest_loss = max(worse_sets or sets, key=lambda name: sets[name].difference)
    detail = f"{sentence(largest_loss)}: {_change(results, largest_loss)} {_tested(results, largest_loss)}"
    if limit is not None:
        detail += f" The recipe accepts {100 * limit:.1f} points (train.max_canary_loss)."
    caveat = _join_caveats([sets[largest_loss].note or results.scores[largest_loss].adapted.blocks.note])
    if worse_sets:
        more = f" {count(len(worse_sets), 'set')} of {len(sets)} have a significant loss." if len(sets) > 1 else ""
        worst = sets[largest_loss]
        return Finding(subject, BAD, "Worse" + scope_text(worst.scope, worst.speakers), detail + more, caveat)
    if limit is not None and "canary" in sets and sets["canary"].difference > limit:
        return Finding(subject, BAD, "Above the limit", detail, caveat)
    highest = max(item.high for item in sets.values())
    if highest <= (limit or 0.0):
        headline = "No loss" if highest <= 0 else "No loss above the limit"
        return Finding(subject, GOOD, headline + _narrowest_scope(sets.values()), detail, caveat)
    detail = f"{detail} A loss of up to {100 * highest:.1f} points is possible."
    return Finding(subject, OPEN, "No significant loss", detail, caveat)


def hallucination(results: EvaluationResults) -> Finding:
    """Finding on clips without speech: bad with more words than the base, open with words, good without words."""
    subject = "Hallucinations"
    if results.probes is None:
        return Finding(subject, UNKNOWN, "Not measured", "evaluate.probes is off.")
    base, adapted = results.probes.base, results.probes.adapted
    detail = (
        f"Words for {adapted.with_output} of {count(adapted.clips, 'clip')} without speech (base {base.with_output}), "
        f"{adapted.words_per_minute:.0f} words per minute (base {base.words_per_minute:.0f})."
    )
    if not adapted.with_output:
        return Finding(subject, GOOD, "None", detail)
    if more_hallucinations(base, adapted):
        return Finding(subject, BAD, "More than the base", detail)
    return Finding(subject, OPEN, "Not more than the base", detail)


def more_hallucinations(base: ProbeResults, adapted: ProbeResults) -> bool:
    """Whether the adapted model writes words for more clips without speech, or more words per minute (rounded)."""
    return adapted.with_output > base.with_output or round(adapted.words_per_minute) > round(base.words_per_minute)


def leak(overlap: Overlap, speakers: int) -> Finding:
    """Finding on the overlap of test with train and replay.

    Args:
        overlap: overlap of test with the training data.
        speakers: number of known test speakers.
    """
    subject = "Test data separate from training"
    leaks = [
        f"{count(number, 'test clip')} with {description}"
        for number, description in ((overlap.sentences, "a training sentence"), (overlap.audio, "training audio"))
        if number
    ]
    caveat = (
        f"{overlap.speakers} of {count(speakers, 'test speaker')} {verb(overlap.speakers, 'is', 'are')} in the "
        "training data, so the scores do not apply to new speakers."
        if overlap.speakers
        else ""
    )
    if leaks:
        detail = f"{' and '.join(leaks)}: the test scores are too good."
        return Finding(subject, BAD, "No: test data leaks", detail, caveat)
    if caveat:
        return Finding(
            subject, OPEN, "By sentence, not by speaker", "No test sentence and no test audio is in train.", caveat
        )
    return Finding(subject, GOOD, "Yes", "No test sentence, test audio or known test speaker is in train.")


def _change(results: EvaluationResults, name: str) -> str:
    scores, difference = results.scores[name], results.differences[name]
    if scores.base.chrf is not None:
        gain = replace(difference, difference=-difference.difference, low=-difference.high, high=-difference.low)
        return (
            f"chrF {percent(scores.base.chrf)} → {percent(scores.adapted.chrf)}, {points(gain.difference)} points "
            f"(95 %: {span_of_points(gain)}, p {p_value(difference.p_value)})."
        )
    if not scores.adapted.reference_words:  # a WER of 100 % would say no more than that something is written
        return (
            f"{sentence(scores.base.inserted)} {scores.base.insertions:,} → {scores.adapted.insertions:,} in "
            f"{count(scores.adapted.utterances, 'clip')} without speech (p {p_value(difference.p_value)})."
        )
    return (
        f"{scores.base.error_name} {percent(scores.base.wer)} % → {percent(scores.adapted.wer)} %, "
        f"{points(difference.difference)} points (95 %: {span_of_points(difference)}, p {p_value(difference.p_value)})."
    )


def _tested(results: EvaluationResults, name: str) -> str:
    """What was tested, and on whom the result holds."""
    difference, blocks = results.differences[name], results.scores[name].adapted.blocks
    holds = scope_text(difference.scope, difference.speakers) or " for other speakers like these"
    test = "sign-flip test" if difference.metric == "WER" else "exchanged outputs"
    return f"Tested over {count(difference.blocks, blocks.unit)} ({test}, 5 %); the result holds{holds}."


def _narrowest_scope(differences: Iterable[Comparison]) -> str:
    """The scope of a conclusion about all sets: the first that is not "other speakers"."""
    texts = [scope_text(item.scope, item.speakers) for item in differences]
    return next((text for text in texts if text), "")


def _join_caveats(caveats: list[str]) -> str:
    text = "; ".join(caveat for caveat in caveats if caveat)
    return f"{sentence(text)}." if text else ""
