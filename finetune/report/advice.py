"""Applies all advice rules to the facts of a run, the most important rules first."""

from collections.abc import Callable
from itertools import chain

from finetune.report import rules_errors as errors
from finetune.report import rules_run as run
from finetune.report.facts import Advice, Facts

RULES: tuple[Callable[[Facts], Advice | None], ...] = (
    run.leaking,
    run.silent,
    run.pseudo_labels,
    run.prompted_keywords,
    run.suspicious,
    run.synthetic_training,
    run.forgotten,
    run.no_canary,
    run.hallucinated,
    run.other_language,
    run.not_significant,
    run.few_speakers,
    errors.numerals,
    errors.style,
    errors.truncated,
    errors.runaways,
    errors.deletions,
    errors.insertions,
    errors.seen_terms,
    errors.unseen_terms,
    errors.false_terms,
    errors.unseen_words,
    run.still_learning,
    run.emptied,
    run.decoders,
)
LIST_RULES: tuple[Callable[[Facts], list[Advice]], ...] = (errors.clip_measures, run.uneven)


def advise(facts: Facts) -> list[Advice]:
    """The advice of every rule that applies."""
    words = facts.test.chrf is None  # the rules about word errors are not for translations
    rules = (rule for rule in RULES if words or rule.__module__ != errors.__name__)
    single = [advice for rule in rules if (advice := rule(facts))]
    return [*single, *chain.from_iterable(rule(facts) for rule in LIST_RULES if words)]
