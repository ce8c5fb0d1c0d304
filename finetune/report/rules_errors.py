"""Advice from what kind of errors is left on test: each rule speaks only beyond its threshold.

Rules about shares of errors want `ENOUGH` errors, because of few anything is a large share.
"""

from finetune.report.facts import Advice, Facts
from finetune.report.wording import count, percent, points

ENOUGH = 20  # errors, words or occurrences, before a share of them means something
NUMERAL_SHARE = 0.3  # of word errors
STYLE_GAP = 0.03  # raw WER above normalized WER
DELETION_SHARE, INSERTION_SHARE = 0.5, 0.4  # of word errors
FLAGGED_SHARE = 0.2  # of word errors, in clips with a flag
NEW_SHARE = 0.3  # of missed words, that training never had
TAUGHT_RECALL = 0.9  # of terms that training had
UNTAUGHT_RATIO = 0.5  # recall of other terms over that of taught ones
INVENTED_SHARE = 0.1  # of terms heard
BIN_RATIO = 1.5  # WER of a bin of clips over that of all
BIN_WORDS = 0.05  # of all words, before a bin is spoken of


def numerals(facts: Facts) -> Advice | None:
    found = facts.test["numerals"]
    if facts.errors < ENOUGH or found["numeral"] < NUMERAL_SHARE * facts.errors:
        return None
    share = f"{percent(found['numeral'] / facts.errors)} % of the errors are numerals"
    if 2 * found["style"] < found["numeral"]:
        return Advice(
            "numerals", f"{share}.", "Add sentences with numbers to train: they are heard wrong, not written otherwise."
        )
    side = sum(
        row["count"] * (_digits(row["reference"]) - _digits(row["hypothesis"]))
        for row in facts.metrics["details"]["test"]["adapted"]["confusions"]
    )
    whose = (
        "your transcripts use digits where the model writes words"
        if side > 0
        else ("your transcripts spell out what the model writes in digits")
    )
    return Advice(
        "numerals",
        f"{share}: {whose}.",
        "That is style, not hearing. Write numbers in train and test the "
        "same way, or score English with evaluate.normalizer: whisper-en@1, which makes them equal.",
    )


def style(facts: Facts) -> Advice | None:
    found, gap = facts.test["style"], facts.test["raw_wer"] - facts.test["wer"]
    if gap < STYLE_GAP:
        return None
    missing = found["marks_said"] - found["marks_right"]
    what = "punctuation" if missing + found["marks_invented"] > found["case_errors"] else "casing"
    return Advice(
        "style",
        f"{points(gap)} points of raw WER are casing and punctuation, mostly {what} "
        f"({found['case_errors']} words in other case, {missing} marks missing, {found['marks_invented']} "
        "added).",
        "If you want your style, train on it: data.lowercase: false, and transcripts written the "
        "way the output should look. If not, read the normalized WER.",
    )


def deletions(facts: Facts) -> Advice | None:
    found = facts.test
    if facts.errors < ENOUGH or found["deletions"] < DELETION_SHARE * facts.errors:
        return None
    return Advice(
        "deletions",
        f"{percent(found['deletions'] / facts.errors)} % of the errors are words left out.",
        "Listen to the worst clips: texts that go on where the audio ends, or clips longer than those of "
        "train (data.max_duration, augment.concat)?",
    )


def insertions(facts: Facts) -> Advice | None:
    found = facts.test
    if facts.errors < ENOUGH or found["insertions"] < INSERTION_SHARE * facts.errors:
        return None
    return Advice(
        "insertions",
        f"{percent(found['insertions'] / facts.errors)} % of the errors are words added.",
        "Listen to the worst clips: speech that the texts leave out (other voices, cut starts), or words "
        "that the model splits or makes up?",
    )


def truncated(facts: Facts) -> Advice | None:
    cut = facts.test["truncated"]
    if not cut:
        return None
    return Advice(
        "truncated",
        f"{cut} of {facts.test['utterances']:,} hypotheses ended at the limit of tokens.",
        "Raise decode.max_new_tokens, unless they are loops: the flags of the worst clips say so.",
    )


def runaways(facts: Facts) -> Advice | None:
    without, share = facts.test["without_flagged"], facts.flagged_errors / max(1, facts.errors)
    if facts.errors < ENOUGH or share < FLAGGED_SHARE:
        return None
    flagged = count(facts.test["utterances"] - without["utterances"], "flagged clip")
    return Advice(
        "runaways",
        f"{flagged} with {percent(share)} % of the errors; without them WER is {percent(without['wer'])} %.",
        "Look at their flags first: one loop outweighs many good clips.",
    )


def new_words(facts: Facts) -> Advice | None:
    missed = {row["name"]: row["missed"] for row in facts.test["frequency"]}
    total = sum(missed.values())
    if total < ENOUGH or missed["unseen"] < NEW_SHARE * total:
        return None
    return Advice(
        "new words",
        f"{percent(missed['unseen'] / total)} % of the missed words never stood in training.",
        "More text helps more than more epochs: sentences with these words, read by anybody.",
    )


def taught_terms(facts: Facts) -> Advice | None:
    seen = facts.test.get("terms", {}).get("seen", {"support": 0})
    if seen["support"] < ENOUGH or seen["recall"] >= TAUGHT_RECALL:
        return None
    return Advice(
        "taught terms",
        f"Of the terms that training had, {percent(seen['recall'])} % are heard.",
        "Give each more sentences, by more voices and in other patterns, or train longer with smaller steps.",
    )


def untaught_terms(facts: Facts) -> Advice | None:
    terms = facts.test.get("terms")
    if not terms or min(terms[kind]["support"] for kind in ("seen", "unseen")) < ENOUGH:
        return None
    seen, unseen = terms["seen"]["recall"], terms["unseen"]["recall"]
    if unseen >= UNTAUGHT_RATIO * seen:
        return None
    return Advice(
        "untaught terms",
        f"Terms that training lacks are heard in {percent(unseen)} % of cases, others in "
        f"{percent(seen)} %: the model learned words, not the domain's sound.",
        "Put every term that matters into train sentences, or give terms as keywords in the prompt "
        "(finetune transcribe --keywords).",
    )


def invented_terms(facts: Facts) -> Advice | None:
    terms = facts.test.get("terms", {})
    false = sum(found["false_alarms"] for found in terms.values())
    hits = sum(round((found["recall"] or 0) * found["support"]) for found in terms.values())
    if hits + false < ENOUGH or false < INVENTED_SHARE * (hits + false):
        return None
    return Advice(
        "invented terms",
        f"{false} of {hits + false} terms that were heard had not been said.",
        "Train on sentences without terms too (data.replay), and on words that sound like them.",
    )


def kinds_of_clips(facts: Facts) -> list[Advice]:
    """One for each measure of clips of which a bin is heard much worse than all, and holds words enough to tell."""
    cures = {
        "duration": "Add clips of that length to train, or join short ones (augment.concat); cut long files at "
        "pauses before they are transcribed.",
        "bandwidth": "Add clips of that channel to train.",
        "snr": "Add noisy clips to train, or noise to clean ones (augment.noise_db).",
    }
    found = []
    for table in facts.metrics["groups"]["test"]:
        rows = [row for row in table["rows"] if row["words"] >= max(ENOUGH, BIN_WORDS * facts.test["reference_words"])]
        if table["column"] not in cures or len(rows) < 2:
            continue
        worst = max(rows, key=lambda row: row["wer"]["adapted"])
        if worst["interval"]["adapted"]["low"] > facts.test["wer"] and (
            worst["wer"]["adapted"] >= BIN_RATIO * facts.test["wer"]
        ):
            found.append(
                Advice(
                    table["column"],
                    f"Clips of {table['column']} {worst['name']} have a WER of "
                    f"{percent(worst['wer']['adapted'])} %, all together {percent(facts.test['wer'])} %.",
                    cures[table["column"]],
                )
            )
    return found


def _digits(word: str) -> bool:
    return any(map(str.isdigit, word))
