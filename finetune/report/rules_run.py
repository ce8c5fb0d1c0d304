"""Advice rules about the set-up and side effects of a run: test data, training, general speech, decoding."""

from collections.abc import Sequence

from finetune.core.wording import count
from finetune.data.splits import TRAINING_SPLITS
from finetune.metrics.blocks import MIN_BLOCKS
from finetune.metrics.results import SYSTEMS
from finetune.metrics.scores import TermRow
from finetune.metrics.significance import SIGNIFICANCE
from finetune.report.facts import Advice, Facts
from finetune.report.overlap import limited_to_speakers
from finetune.report.verdict import BAD, forgetting, hallucination
from finetune.report.wording import percent, points, sentence

GROUP_GAP = 0.1  # WER of the worst group minus WER of the best group
STILL_FALLING = 0.05  # relative decrease of the validation WER in the last evaluation below that of all earlier ones
SUSPICIOUS_FRACTION = 0.02  # of test clips
CHANGED_FRACTION = 0.01  # of test clips whose text the normalizer empties or halves
LARGEST_FACTOR = 100  # a larger test set is not advised
LARGEST_DETECTABLE = 0.05  # a test set that detects only larger differences does not show that two models are equal
USEFUL_DETECTABLE = 0.02  # the difference that an advised larger test set detects
FEW_ACCEPTED = 0.5  # of draft tokens
SLOWER = 1.1  # time of speculative decoding over that of greedy decoding


def leaking(facts: Facts) -> Advice | None:
    if not facts.overlap.clips:
        return None
    return Advice(
        "leaking",
        f"{count(facts.overlap.clips, 'test clip')} with training text or training audio.",
        "The test scores are too good. Remove the training clips with this text or audio (manifests/problems.json "
        "names them) and train again.",
    )


def pseudo_labels(facts: Facts) -> Advice | None:
    """Texts that a model wrote; in the sets that are scored, they are no references."""
    counts = facts.pseudo_labels
    if not counts:
        return None
    shown = ", ".join(f"{count(number, 'clip')} of {split}" for split, number in counts.items())
    if {*counts} - {*TRAINING_SPLITS}:
        action = "Remove them from valid, test and canary: these scores show how well a model is repeated."
    else:
        action = "Check some of them. An error that they repeat is learned; transcripts by people are worth more."
    return Advice("pseudo-labels", f"A model wrote the texts of {shown} (pseudo_label).", action)


def silent(facts: Facts) -> Advice | None:
    if not facts.test.mostly_silent:
        return None
    return Advice(
        "silent",
        f"The adapted model writes nothing for {facts.test.silent} of {count(facts.test.with_speech, 'test clip')} "
        "with speech.",
        "An error rate of 100 % can be below that of wrong text, and says nothing. Train longer (train.epochs), on "
        "more data or with another learning rate.",
    )


def prompted_keywords(facts: Facts) -> Advice | None:
    number = facts.test.prompted.in_reference
    if not number:
        return None
    return Advice(
        "prompted keywords",
        f"{number} of {count(facts.test.utterances, 'test prompt')} contain keywords of their reference.",
        "This is fair only if your application knows these words too. Otherwise remove the keywords from the test "
        "manifest, or set evaluate.keyword_lists: [0, 100] to measure recall with and without them.",
    )


def not_significant(facts: Facts) -> Advice | None:
    """Which test set would show the difference; a few blocks do not tell, and `few_speakers` asks for more of them."""
    comparison = facts.difference
    if comparison.p_value <= SIGNIFICANCE or comparison.detectable is None or comparison.blocks < MIN_BLOCKS:
        return None
    finding = (
        f"Test can detect differences of {100 * comparison.detectable:.1f} points or more; the measured difference is "
        f"{points(comparison.difference)}."
    )
    if abs(comparison.difference) * LARGEST_FACTOR**0.5 < comparison.detectable:
        if comparison.detectable > LARGEST_DETECTABLE:
            clips = count(round((comparison.detectable / USEFUL_DETECTABLE) ** 2 * facts.test.utterances), "clip")
            action = (
                f"This test set is too small to say that both models are equal. A test set of about {clips}, of new "
                f"speakers, detects {100 * USEFUL_DETECTABLE:.0f} points with a probability of 80 %."
            )
            return Advice("not significant", finding, action)
        action = (
            "Treat both models as equal on this test set: no test set of reasonable size would show a difference. "
            "Train longer, or on more of your own speech."
        )
        return Advice("not significant", finding, action)
    if abs(comparison.difference) >= comparison.detectable:
        action = "The blocks differ too much, or too few of them differ: add clips of new speakers to test."
        return Advice("not significant", finding, action)
    factor = (comparison.detectable / comparison.difference) ** 2  # the standard error falls with the root of the size
    clips = count(round(factor * facts.test.utterances), "clip")
    action = (
        f"If the difference is real, a test set {factor:.1f} times as large (about {clips}, of new speakers) detects "
        "it with a probability of 80 %."
    )
    return Advice("not significant", finding, action)


def few_speakers(facts: Facts) -> Advice | None:
    comparison, note = facts.difference, facts.difference.note or facts.test.blocks.note
    if not facts.test.reference_words and facts.test.chrf is None:
        finding = "The references of test have no words, so only inserted words are measured."
        action = "Add test clips with speech, of ten or more speakers who are not in train."
    elif comparison.scope == "unknown speakers":
        finding = "The speakers of test are unknown, so nothing is shown for other speakers."
        action = "Add a column speaker to the test corpus; ten or more speakers are needed, who are not in train."
    elif comparison.scope == "these speakers":
        finding = f"Test has only {count(comparison.speakers, 'speaker')}, so nothing is shown for other speakers."
        action = "Record test clips of ten or more speakers (column speaker) who are not in train."
    elif note:
        finding = f"The test set is too small: {note}."
        action = "Add test clips of more speakers who are not in train."
    else:
        return None
    return Advice("few speakers", finding, action)


def no_canary(facts: Facts) -> Advice | None:
    if any(name.startswith("canary") for name in facts.results.differences):
        return None
    return Advice(
        "no canary",
        "The WER of general speech is not measured.",
        "Set data.canary to a manifest of general speech: adaptation often makes it worse.",
    )


def forgotten(facts: Facts) -> Advice | None:
    data, train = facts.recipe.data, facts.recipe.train
    finding = forgetting(limited_to_speakers(facts.results, facts.overlap), train.max_canary_loss)
    if finding.state != BAD:
        return None
    actions = [
        action
        for applies, action in (
            (not data.replay, "mix general speech into the training (data.replay)"),
            (bool(data.replay), "increase data.replay_weight"),
            (not train.interpolate, "interpolate towards the base (train.interpolate: [0.96, 0.92])"),
            (train.max_canary_loss is None, "limit the loss of the selected adapter (train.max_canary_loss: 0.02)"),
        )
        if applies
    ]
    text = "; ".join([*actions, "or lower the learning rates"])
    return Advice("forgotten", f"General speech: {finding.headline.lower()}. {finding.detail}", f"{sentence(text)}.")


def hallucinated(facts: Facts) -> Advice | None:
    finding = hallucination(facts.results)
    if finding.state != BAD:
        return None
    untrained = not facts.recipe.augment.no_speech
    return Advice(
        "hallucinated",
        f"The adapted model hallucinates more than the base. {finding.detail}",
        ("Train with clips without speech (augment.no_speech: 0.05), remove" if untrained else "Remove")
        + " silence before decoding (finetune transcribe splits at pauses; use --vad silero for noisy audio), or "
        "interpolate towards the base (train.interpolate).",
    )


def other_language(facts: Facts) -> Advice | None:
    sets = [both.adapted for name, both in facts.results.scores.items() if name.partition(":")[0] == "test"]
    number, clips = sum(item.flags.get("language", 0) for item in sets), sum(item.utterances for item in sets)
    if not number:
        return None
    return Advice(
        "other language",
        f"{number} of {count(clips, 'test hypothesis', 'test hypotheses')} are written in another language than their "
        "row asks for.",
        "Check the columns language and target_language of these clips (listed under Hallucinations), and add rows of "
        "that task and language to train.",
    )


def suspicious(facts: Facts) -> Advice | None:
    number = facts.results.suspicious
    if number < max(1, SUSPICIOUS_FRACTION * facts.test.utterances):
        return None
    return Advice(
        "suspicious",
        f"The base, the adapted model and the CTC draft agree, and differ from {count(number, 'test reference')}.",
        "Listen to these clips (evaluation/suspicious.jsonl): a wrong reference counts as an error of a correct model.",
    )


def emptied(facts: Facts) -> Advice | None:
    rows = facts.results.details["test"].adapted.normalizer_changes
    changed = sum(row.side == "reference" for row in rows)
    if changed < max(1, CHANGED_FRACTION * facts.test.utterances):
        return None
    return Advice(
        "emptied",
        f"The normalizer removes more than half of {count(changed, 'reference')}.",
        "Check them (details.test.adapted.normalizer_changes in evaluation/metrics.json): brackets and symbols are "
        "not scored.",
    )


def uneven(facts: Facts) -> list[Advice]:
    """Advice for each column with a large gap between its ranked groups, whose intervals do not overlap."""
    advice = []
    for table in facts.results.groups["test"]:
        if table.column in ("duration", "bandwidth", "snr") or table.gap.get("adapted", 0) < GROUP_GAP:
            continue
        ranked = sorted((row for row in table.rows if row.ranked), key=lambda row: row.wer["adapted"])
        best, worst = ranked[0], ranked[-1]
        if worst.interval["adapted"].low <= best.interval["adapted"].high:
            continue
        finding = (
            f"By {table.column}, {worst.name} has the highest WER, {percent(table.gap['adapted'])} points above the "
            f"lowest, {best.name}."
        )
        action = "Add clips of that group to train and to test."
        if table.column == "speaker":
            action = "Listen to the clips of this speaker, and add speakers like this one to train."
        advice.append(Advice("uneven", finding, action))
    return advice


def synthetic_training(facts: Facts) -> Advice | None:
    synthetic = facts.results.synthetic
    if synthetic is None:
        return None
    recorded = "test: real" in facts.results.details
    clips = "recorded test clips" if recorded else "test"
    if synthetic.synthetic == synthetic.clips:
        return Advice(
            "synthetic training",
            f"All {count(synthetic.clips, 'training clip')} are synthetic speech.",
            "Add recordings of people to train: synthetic speech alone can make the recognition of people worse."
            + ("" if recorded else " Test on recordings."),
        )
    if not synthetic.terms:
        return None
    rows = facts.results.details["test: real" if recorded else "test"]
    recalls = [_recall_of(synthetic.terms, rows[system].terms) for system in SYSTEMS]
    measured = f" Their recall on {clips} is {percent(recalls[1])} % (base {percent(recalls[0] or 0.0)} %)."
    return Advice(
        "synthetic training",
        f"Only synthetic training clips have {count(len(synthetic.terms), 'term')} of the domain."
        + (measured if recalls[1] is not None else f" None of them occurs in {clips}."),
        "A synthetic pronunciation is a guess: record a few clips with these terms, at least for test."
        if not recorded or recalls[1] is None
        else "If it is too low, add voices and pronunciations (finetune synthesize --lexicon), or a few recordings.",
    )


def _recall_of(terms: Sequence[str], rows: Sequence[TermRow]) -> float | None:
    chosen = [row for row in rows if row.term in terms]
    support = sum(row.support for row in chosen)
    return sum(row.hits for row in chosen) / support if support else None


def still_learning(facts: Facts) -> Advice | None:
    if len(facts.valid) < 2:
        return None
    lowest = min(wer for _, wer in facts.valid[:-1])
    epoch, last_wer = facts.valid[-1]
    if not lowest or (lowest - last_wer) / lowest < STILL_FALLING:
        return None
    return Advice(
        "still learning",
        f"The validation WER still fell at the end, from {percent(lowest)} to {percent(last_wer)} % in epoch {epoch}.",
        "Train longer (train.epochs).",
    )


def decoders(facts: Facts) -> Advice | None:
    if facts.recipe.decode.decoder not in ("speculative", "relaxed"):
        return None  # greedy decoding is no advice for a run that has it, and worse than beam search
    comparison = facts.results.decoders
    if not comparison.tokens_equal:
        return Advice(
            "decoders",
            "Speculative and greedy decoding wrote different tokens.",
            "Set decode.decoder: greedy if this matters, and report it: in exact arithmetic both are equal.",
        )
    if comparison.speculative_seconds <= SLOWER * comparison.greedy_seconds:
        return None
    frozen = facts.recipe.parts.ctc_head.mode == "frozen"
    few = comparison.acceptance < FEW_ACCEPTED
    train_head = ", or train the CTC head too (parts.ctc_head, train.ctc_weight)" if frozen and few else ""
    return Advice(
        "decoders",
        f"Speculative decoding took {comparison.speculative_seconds:.1f} s, greedy decoding "
        f"{comparison.greedy_seconds:.1f} s; {percent(comparison.acceptance)} % of the draft tokens are accepted.",
        f"Set decode.decoder: greedy{train_head}.",
    )
