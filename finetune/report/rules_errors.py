"""Advice rules about the remaining errors on test; each rule applies only above its threshold.

Rules about fractions of errors need `MIN_COUNT` errors, because fractions of a few errors are not reliable.
"""

from finetune.core.wording import count
from finetune.report.facts import Advice, Facts
from finetune.report.wording import percent, points

MIN_COUNT = 20  # smallest number of errors, words or occurrences for a fraction of them
NUMERAL_FRACTION = 0.3  # of word errors
EXCESS = 1.5  # error rate of numerals or of unseen words over that of all words
STYLE_GAP = 0.03  # raw WER minus normalized WER
DELETION_FRACTION, INSERTION_FRACTION = 0.5, 0.4  # of word errors
FLAGGED_FRACTION = 0.2  # of word errors, in flagged clips
UNSEEN_FRACTION = 0.3  # of missed words
SEEN_RECALL = 0.9  # of terms in the training texts
UNSEEN_RATIO = 0.5  # recall of unseen terms over that of seen terms
FALSE_ALARM_FRACTION = 0.1  # of terms in hypotheses
BIN_RATIO = 1.5  # WER of a bin over that of all clips
BIN_WORDS = 0.05  # of all words, in a bin
MEASURES = {  # by measure, the action if the bin is among the lower ones, and if it is among the higher ones
    "duration": (
        "Add clips of that length to train.",
        "Add clips of that length to train, or concatenate short ones (augment.concat), or cut long recordings at "
        "pauses (decode.max_window).",
    ),
    "bandwidth": ("Add clips of that channel to train.",) * 2,
    "snr": (
        "Add noisy clips to train, or add noise to clean ones (augment.noise_db).",
        "Listen to these clips: they have little noise, so the cause is another one.",
    ),
}


def numerals(facts: Facts) -> Advice | None:
    errors = facts.test.numerals
    if facts.errors < MIN_COUNT or errors.numeral < NUMERAL_FRACTION * facts.errors:
        return None
    statement = f"{percent(errors.numeral / facts.errors)} % of the errors involve numerals"
    if 2 * errors.style < errors.numeral:
        if not _in_excess(errors.numeral, facts.errors, errors.numeral_words, errors.words):
            return None  # numerals are recognized about as well as other words
        action = "Add sentences with numbers to train: these are recognition errors, not differences of style."
        return Advice("numerals", f"{statement}.", action)
    excess = sum(  # of digits in the references
        row.count * (_has_digit(row.reference) - _has_digit(row.hypothesis))
        for row in facts.results.details["test"].adapted.confusions
    )
    difference = (
        "the references use digits, but the model writes words"
        if excess > 0
        else "the references use words, but the model writes digits"
    )
    return Advice(
        "numerals",
        f"{statement}: {difference}.",
        "These are differences of style. Write numbers in the same form in train and test, or score English with "
        "evaluate.normalizer: whisper-en@1, which unifies both forms.",
    )


def style(facts: Facts) -> Advice | None:
    counts, gap = facts.test.style, facts.test.raw_error - facts.test.wer
    if gap < STYLE_GAP:
        return None
    missing = counts.marks - counts.marks_correct
    if 2 * (counts.case_errors + missing + counts.marks_inserted) < gap * facts.test.reference_words:
        return None  # the normalizer changes something else
    rules = facts.recipe.data.text
    changed = (rules.case, rules.punctuation) != ("keep", "keep")
    setting = ", with data.text.case and data.text.punctuation at keep" if changed else ""
    main_error = "punctuation" if missing + counts.marks_inserted > counts.case_errors else "casing"
    return Advice(
        "style",
        f"{points(gap)} points of raw {facts.test.error_name} are casing and punctuation, mostly {main_error} "
        f"({counts.case_errors} words with other casing, {missing} missing punctuation marks, "
        f"{counts.marks_inserted} inserted).",
        f"If the output needs this style, write the transcripts in that style{setting}. Otherwise use the normalized "
        f"{facts.test.error_name}.",
    )


def deletions(facts: Facts) -> Advice | None:
    deleted = facts.test.deletions
    if facts.errors < MIN_COUNT or deleted < DELETION_FRACTION * facts.errors or facts.test.mostly_silent:
        return None
    return Advice(
        "deletions",
        f"{percent(deleted / facts.errors)} % of the errors are deletions.",
        "Listen to the clips with the most errors: is the reference longer than the audio, or is the clip longer than "
        "those of train (data.max_duration, augment.concat, decode.max_window)?",
    )


def insertions(facts: Facts) -> Advice | None:
    inserted = facts.test.insertions
    if facts.errors < MIN_COUNT or inserted < INSERTION_FRACTION * facts.errors:
        return None
    return Advice(
        "insertions",
        f"{percent(inserted / facts.errors)} % of the errors are insertions.",
        "Listen to the clips with the most errors: does the reference omit speech (other speakers, cut starts), or "
        "does the model split or hallucinate words?",
    )


def truncated(facts: Facts) -> Advice | None:
    number = facts.test.truncated
    if not number:
        return None
    return Advice(
        "truncated",
        f"{number} of {facts.test.utterances:,} hypotheses reached the limit of tokens.",
        "Increase decode.max_new_tokens, unless the hypotheses are loops (see the flags of the clips).",
    )


def runaways(facts: Facts) -> Advice | None:
    without, flagged_fraction = facts.test.without_flagged, facts.flagged_errors / max(1, facts.errors)
    if facts.errors < MIN_COUNT or flagged_fraction < FLAGGED_FRACTION or without.wer >= facts.test.wer:
        return None
    flagged = count(facts.test.utterances - without.utterances, "flagged clip")
    rest = f"the WER without them is {percent(without.wer)} %" if without.utterances else "these are all clips"
    return Advice(
        "runaways",
        f"{flagged} with {percent(flagged_fraction)} % of the errors; {rest}.",
        "Check these clips first: a loop or a copied prompt causes as many errors as many normal clips.",
    )


def unseen_words(facts: Facts) -> Advice | None:
    rows = facts.test.frequency
    total, words = sum(row.missed for row in rows), sum(row.words for row in rows)
    unseen = next((row for row in rows if row.name == "unseen"), None)
    if unseen is None or total < MIN_COUNT or unseen.missed < UNSEEN_FRACTION * total:
        return None
    if not _in_excess(unseen.missed, total, unseen.words, words):
        return None  # the other words are missed about as often
    return Advice(
        "unseen words",
        f"{percent(unseen.missed / total)} % of the missed words do not occur in the training texts.",
        "Add sentences with these words to train, by any speaker: more text helps more than more epochs.",
    )


def seen_terms(facts: Facts) -> Advice | None:
    seen = facts.test.terms.seen if facts.test.terms else None
    if seen is None or seen.recall is None or seen.support < MIN_COUNT or seen.recall >= SEEN_RECALL:
        return None
    base = _base_recall(facts, seen=True)
    if base > seen.recall:
        action = "Training made it worse: lower the learning rate, or interpolate towards the base (train.interpolate)."
    else:
        action = (
            "Add more sentences for each term, by more speakers and in other contexts, or train longer with a lower "
            "learning rate."
        )
    return Advice(
        "seen terms",
        f"Recall of the terms that occur in training is {percent(seen.recall)} % (base {percent(base)} %).",
        action,
    )


def unseen_terms(facts: Facts) -> Advice | None:
    terms = facts.test.terms
    if terms is None or min(terms.seen.support, terms.unseen.support) < MIN_COUNT:
        return None
    seen, unseen = terms.seen.recall or 0.0, terms.unseen.recall or 0.0
    if unseen >= UNSEEN_RATIO * seen:
        return None
    prompts = ", or give terms as keywords in the prompt (finetune transcribe --keywords)"
    return Advice(
        "unseen terms",
        f"Recall of terms that do not occur in training is {percent(unseen)} % (base "
        f"{percent(_base_recall(facts, seen=False))} %), of the other terms {percent(seen)} %.",
        f"Add every important term to the training sentences{prompts if _keywords_help(facts) else ''}.",
    )


def false_terms(facts: Facts) -> Advice | None:
    groups = [facts.test.terms.seen, facts.test.terms.unseen] if facts.test.terms else []
    false = sum(group.false_alarms for group in groups)
    hits = sum(round((group.recall or 0) * group.support) for group in groups)
    if hits + false < MIN_COUNT or false < FALSE_ALARM_FRACTION * (hits + false):
        return None
    setting = "a larger data.replay_weight" if facts.recipe.data.replay else "data.replay"
    return Advice(
        "false terms",
        f"{false} of {hits + false} terms in the hypotheses are not in the references.",
        f"Add sentences without terms to the training ({setting}), and words that sound similar.",
    )


def clip_measures(facts: Facts) -> list[Advice]:
    """Advice for each measure with a large bin of clips whose WER is much higher than that of all clips."""
    advice = []
    all_wer = facts.test.wer
    for table in facts.results.groups["test"]:
        rows = [row for row in table.rows if row.words >= max(MIN_COUNT, BIN_WORDS * facts.test.reference_words)]
        if table.column not in MEASURES or len(rows) < 2:
            continue
        worst_row = max(rows, key=lambda row: row.wer["adapted"])
        wer = worst_row.wer["adapted"]
        if worst_row.interval["adapted"].low > all_wer and wer >= BIN_RATIO * all_wer:
            finding = (
                f"The WER of clips with {table.column} {worst_row.name} is {percent(wer)} %, of all clips "
                f"{percent(all_wer)} %."
            )
            low_bin, high_bin = MEASURES[table.column]
            action = low_bin if 2 * rows.index(worst_row) + 1 < len(rows) else high_bin
            advice.append(Advice(table.column, finding, action))
    return advice


def _in_excess(part: int, errors: int, part_words: int, words: int) -> bool:
    """Whether the error rate of a part of the words is `EXCESS` times that of all words, or more."""
    return part * words >= EXCESS * errors * part_words


def _base_recall(facts: Facts, seen: bool) -> float:
    terms = facts.results.scores["test"].base.terms
    return ((terms.seen if seen else terms.unseen).recall or 0.0) if terms else 0.0


def _keywords_help(facts: Facts) -> bool:
    """Whether keywords in the prompt increase the recall of the adapted model and not its WER, as measured."""
    lists = facts.results.keyword_lists
    if not lists:
        return False
    recall = next((row.recall or 0.0 for row in lists.adapted if row.distractors is None), 0.0)
    with_terms = [row for row in lists.adapted if row.true_terms]
    return any((row.recall or 0.0) > recall and row.difference and row.difference.difference <= 0 for row in with_terms)


def _has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))
