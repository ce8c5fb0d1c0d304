"""Advice from how the run was set up and what it cost: test set, training, general speech, decoding."""

from finetune.report.facts import Advice, Facts
from finetune.report.verdict import BAD, forgetting
from finetune.report.wording import count, percent, points, sentence

GROUP_GAP = 0.1  # WER between the worst and the best group
STILL_FALLING = 0.05  # relative fall of valid WER over the last evaluation
SUSPICIOUS_SHARE = 0.02  # of test clips
CHANGED_SHARE = 0.01  # of test clips, whose text the normalizer empties or halves
LARGER = 100  # times the size of test; a larger one is not worth asking for
SLOWER = 1.1  # time of speculative decoding over that of greedy


def leaking(facts: Facts) -> Advice | None:
    if not facts.leaked["clips"]:
        return None
    return Advice(
        "leaking",
        f"Trained on, by text or audio: {count(facts.leaked['clips'], 'test clip')}.",
        "Remove them from train (manifests/problems.json names each) and train again: until then every "
        "figure of test is too good.",
    )


def prompted_keywords(facts: Facts) -> Advice | None:
    prompted = facts.test["prompted"]
    if not prompted["said"]:
        return None
    return Advice(
        "told keywords",
        f"{prompted['said']} of {count(facts.test['utterances'], 'test prompt')} name words that are said in the clip.",
        "That is fair only if your application knows them too. Drop the keywords from the test manifest, or "
        "set evaluate.keyword_lists: [0, 100] to see recall with and without them.",
    )


def not_proven(facts: Facts) -> Advice | None:
    found = facts.difference
    if not found["low"] <= 0 <= found["high"] or found["detectable"] is None:
        return None
    shown = (
        f"Test shows differences of {100 * found['detectable']:.1f} points and more; this one is "
        f"{points(found['difference'])}."
    )
    if abs(found["difference"]) * LARGER**0.5 < found["detectable"]:
        return Advice(
            "not proven",
            shown,
            "Take both for equal here: no test set of a sensible size would tell them "
            "apart. Train longer, or on more of your own speech.",
        )
    times = (found["detectable"] / found["difference"]) ** 2  # the standard error falls with the root of the size
    clips = round(times * facts.test["utterances"])
    return Advice(
        "not proven",
        shown,
        f"If it is real, a test set {times:.1f} times as large (about "
        f"{count(clips, 'clip')}, of new speakers) would prove it in four of five cases.",
    )


def few_speakers(facts: Facts) -> Advice | None:
    note = facts.difference["note"] or facts.test["blocks"]["note"]
    if not note:
        return None
    return Advice(
        "few speakers",
        f"Test is narrow: {note}.",
        "Record test clips of ten speakers or more (column speaker), none of them in train; until then "
        "the intervals say nothing of other people.",
    )


def no_canary(facts: Facts) -> Advice | None:
    if len(facts.metrics["differences"]) > 1:
        return None
    return Advice(
        "no canary",
        "Nothing is known of speech outside the domain.",
        "Name a manifest of general speech in data.canary: adapting often costs it.",
    )


def forgotten(facts: Facts) -> Advice | None:
    data, train = facts.recipe["data"], facts.recipe["train"]
    finding = forgetting(facts.metrics, train.get("max_canary_loss"))
    if finding.state != BAD:
        return None
    cures = [
        cure
        for wanted, cure in (
            (not data.get("replay"), "mix general speech into training (data.replay)"),
            (bool(data.get("replay")), "raise data.replay_weight"),
            (not train.get("interpolate"), "go back a little towards the base (train.interpolate: [0.95, 0.9])"),
            (
                train.get("max_canary_loss") is None,
                "keep no adapter that loses more than you allow (train.max_canary_loss: 0.02)",
            ),
        )
        if wanted
    ]
    text = "; ".join([*cures, "or lower the learning rates"])
    return Advice("forgotten", f"General speech got worse. {finding.detail}", f"{sentence(text)}.")


def made_up(facts: Facts) -> Advice | None:
    probes = facts.metrics["probes"]
    if not probes or probes["adapted"]["with_output"] <= probes["base"]["with_output"]:
        return None
    return Advice(
        "made up",
        f"The adapted model writes words for {probes['adapted']['with_output']} of "
        f"{count(probes['adapted']['clips'], 'clip')} without speech, the base for "
        f"{probes['base']['with_output']}.",
        "Leave silence out before decoding (finetune transcribe does, "
        "at pauses; --vad silero in noise), or go back towards the base (train.interpolate).",
    )


def suspicious(facts: Facts) -> Advice | None:
    found = facts.metrics["suspicious"]
    if found < max(1, SUSPICIOUS_SHARE * facts.test["utterances"]):
        return None
    return Advice(
        "suspicious",
        f"Against base, adapted model and CTC draft alone: {count(found, 'test reference')}.",
        "Listen to them (evaluation/suspicious.jsonl): a wrong reference counts against whichever model hears right.",
    )


def emptied(facts: Facts) -> Advice | None:
    rows = facts.metrics["details"]["test"]["adapted"]["normalizer_changes"]
    changed = sum(row["side"] == "reference" for row in rows)
    if changed < max(1, CHANGED_SHARE * facts.test["utterances"]):
        return None
    return Advice(
        "emptied",
        f"The normalizer leaves less than half of {count(changed, 'reference')}.",
        "Look at them (details.test.adapted.normalizer_changes): brackets and symbols are not scored.",
    )


def uneven(facts: Facts) -> list[Advice]:
    """One for each column whose ranked groups lie far apart."""
    return [
        Advice(
            "uneven",
            f"By {table['column']}, {table['worst']['adapted']} is heard worst: "
            f"{percent(table['gap']['adapted'])} points of WER above the best.",
            "Add clips of that group to train, and more of it to test.",
        )
        for table in facts.metrics["groups"]["test"]
        if table["column"] not in ("duration", "bandwidth", "snr") and table["gap"].get("adapted", 0) >= GROUP_GAP
    ]


def still_learning(facts: Facts) -> Advice | None:
    if len(facts.valid) < 2:
        return None
    (_, before), (epoch, last) = facts.valid[-2:]
    if not before or (before - last) / before < STILL_FALLING:
        return None
    return Advice(
        "still learning",
        f"Valid WER still fell at the end ({percent(before)} to {percent(last)} % by epoch {epoch}).",
        "Train longer (train.epochs).",
    )


def decoders(facts: Facts) -> Advice | None:
    found = facts.metrics["decode"]
    if not found["tokens_equal"]:
        return Advice(
            "decoders",
            "Speculative decoding wrote other tokens than greedy decoding.",
            "Take decode.decoder: greedy where that matters, and report it: in exact arithmetic they agree.",
        )
    if found["speculative_seconds"] <= SLOWER * found["greedy_seconds"]:
        return None
    drafts = facts.recipe["parts"]["ctc_head"]["mode"]
    cure = "." if drafts != "frozen" else ", or train the CTC head too (parts.ctc_head, train.ctc_weight)."
    return Advice(
        "decoders",
        f"Speculative decoding took {found['speculative_seconds']:.1f} s where greedy took "
        f"{found['greedy_seconds']:.1f} s: too few of its drafts are right here.",
        f"Set decode.decoder: greedy{cure}",
    )
