"""The verdict of a report: is the adapted model better where it should be, and what did that cost?

Every finding comes from an interval or a count that stands in `evaluation/metrics.json`; none from a mere
difference of two rates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.report.wording import count, percent, points, sentence, span_of_points

SIGNIFICANCE = 0.05  # of p values that were adjusted for the number of sets
GOOD, OPEN, BAD, UNKNOWN = "good", "open", "bad", "unknown"


@dataclass(frozen=True)
class Finding:
    """One tile of the verdict. `state` is one of the four above; `caveat` is what makes it doubtful, or ""."""

    subject: str
    state: str
    headline: str
    detail: str
    caveat: str = ""


def domain(metrics: Mapping[str, Any]) -> Finding:
    """Better or worse only where the 95 % interval of the paired difference on test excludes 0."""
    found, scores = metrics["differences"]["test"], metrics["scores"]["test"]
    state, headline = (
        (GOOD, "Better") if found["high"] < 0 else (BAD, "Worse") if found["low"] > 0 else (OPEN, "Not proven")
    )
    detail = (
        f"WER {percent(scores['base']['wer'])} % → {percent(scores['adapted']['wer'])} %, "
        f"{points(found['difference'])} points (95 %: {span_of_points(found)})."
    )
    if state == OPEN and found["detectable"] is not None:
        detail += f" This test set shows differences of {100 * found['detectable']:.1f} points and more."
    caveats = [found["note"] or scores["adapted"]["blocks"]["note"]]
    if told := scores["adapted"]["prompted"]["said"]:
        caveats.append(
            f"{told} of {count(scores['adapted']['utterances'], 'prompt')} hold a keyword that is said in "
            "their clip: this is how well the model hears words that it is told"
        )
    if "translation" in scores["adapted"]:
        caveats.append("these are translations: read BLEU and chrF, not word errors")
    return Finding("Your domain", state, headline, detail, _sentence(caveats))


def forgetting(metrics: Mapping[str, Any], limit: float | None) -> Finding:
    """Worse where any canary set lost, at a p value adjusted for their number (Holm).

    Args:
        metrics: as `evaluate` wrote them.
        limit: WER that may be lost (`train.max_canary_loss`); a loss beyond it must be excluded for the best mark.
    """
    subject = "General speech"
    sets = {name: found for name, found in metrics["differences"].items() if name != "test"}
    if not sets:
        return Finding(subject, UNKNOWN, "Not measured", "No data.canary: nothing is known of what was forgotten.")
    lost = [name for name, found in sets.items() if found["difference"] > 0 and found["p_holm"] <= SIGNIFICANCE]
    name = max(lost or sets, key=lambda name: sets[name]["difference"])
    found, scores = sets[name], metrics["scores"][name]
    detail = (
        f"{name.capitalize()}: WER {percent(scores['base']['wer'])} % → {percent(scores['adapted']['wer'])} %, "
        f"{points(found['difference'])} points (95 %: {span_of_points(found)})."
    )
    caveat = _sentence([found["note"] or scores["adapted"]["blocks"]["note"]])
    if lost:
        more = f" {count(len(lost), 'set')} of {len(sets)} lost." if len(sets) > 1 else ""
        return Finding(subject, BAD, "Worse", detail + more, caveat)
    highest = max(found["high"] for found in sets.values())
    if highest <= (limit or 0.0):
        return Finding(subject, GOOD, "Intact", detail, caveat)
    return Finding(
        subject,
        OPEN,
        "No loss proven",
        f"{detail} A loss of up to {100 * highest:.1f} points cannot be excluded.",
        caveat,
    )


def hallucination(metrics: Mapping[str, Any]) -> Finding:
    """Words for clips in which nobody speaks: more of them than the base is worse, any is open."""
    subject = "Made-up words"
    if not metrics["probes"]:
        return Finding(subject, UNKNOWN, "Not measured", "evaluate.probes is off.")
    base, adapted = metrics["probes"]["base"], metrics["probes"]["adapted"]
    detail = (
        f"Words for {adapted['with_output']} of {count(adapted['clips'], 'clip')} without speech (base "
        f"{base['with_output']}), {adapted['words_per_minute']:.0f} a minute (base "
        f"{base['words_per_minute']:.0f})."
    )
    if not adapted["with_output"]:
        return Finding(subject, GOOD, "None", detail)
    more = adapted["with_output"] > base["with_output"]
    return Finding(subject, BAD if more else OPEN, "More than the base" if more else "Some, as the base does", detail)


def leak(leaked: Mapping[str, int], speakers: int) -> Finding:
    """What test has in common with train and replay.

    Args:
        leaked: `sentences` and `audio`, clips of test whose text or audio is trained on; `speakers` that are.
        speakers: known ones of test.
    """
    subject = "Test kept apart"
    both = [
        f"{count(leaked[kind], 'clip')} of test with {what}"
        for kind, what in (("sentences", "a sentence of train"), ("audio", "audio of train"))
        if leaked[kind]
    ]
    voices = (
        f"{leaked['speakers']} of {count(speakers, 'test speaker')} are in train too: this says less of new voices"
        if leaked["speakers"]
        else ""
    )
    if both:
        return Finding(subject, BAD, "It leaks", f"{' and '.join(both)}: its score flatters.", _sentence([voices]))
    if voices:
        return Finding(
            subject,
            OPEN,
            "By sentence, not by speaker",
            "No sentence and no audio of test is in train.",
            _sentence([voices]),
        )
    return Finding(subject, GOOD, "Yes", "No sentence, no audio and no known speaker of test is in train.")


def _sentence(parts: list[str]) -> str:
    text = "; ".join(part for part in parts if part)
    return f"{sentence(text)}." if text else ""
