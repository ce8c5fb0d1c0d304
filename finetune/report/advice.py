"""What to do next, by rule: the rules in the order in which their advice is worth taking."""

from collections.abc import Callable
from itertools import chain

from finetune.report import rules_errors as errors
from finetune.report import rules_run as run
from finetune.report.facts import Advice, Facts

RULES: tuple[Callable[[Facts], Advice | None], ...] = (
    run.leaking,
    run.prompted_keywords,
    run.suspicious,
    run.forgotten,
    run.no_canary,
    run.made_up,
    run.not_proven,
    run.few_speakers,
    errors.numerals,
    errors.style,
    errors.truncated,
    errors.runaways,
    errors.deletions,
    errors.insertions,
    errors.taught_terms,
    errors.untaught_terms,
    errors.invented_terms,
    errors.new_words,
    run.still_learning,
    run.emptied,
    run.decoders,
)
MANY: tuple[Callable[[Facts], list[Advice]], ...] = (errors.kinds_of_clips, run.uneven)


def advise(facts: Facts) -> list[Advice]:
    """What every rule says that has something to say."""
    single = [found for rule in RULES if (found := rule(facts))]
    return [*single, *chain.from_iterable(rule(facts) for rule in MANY)]
