"""Which clips are synthetic (column `synthetic`), and which terms only synthetic clips teach."""

from collections.abc import Sequence

from finetune.data.manifest import Utterance
from finetune.metrics.results import SyntheticTraining
from finetune.metrics.terms import term_recall

YES = ("1", "true", "yes", "y")


def is_synthetic(item: Utterance) -> bool:
    """Whether the column `synthetic` of a row says so."""
    return str(item.extra.get("synthetic", "")).strip().lower() in YES


def synthetic_training(train: Sequence[Utterance], terms: Sequence[str], preset: str) -> SyntheticTraining | None:
    """The synthetic clips of the training split, without replay; None if there is none.

    Args:
        train: its rows.
        terms: terms of the domain.
        preset: the normalizer, by which terms are found in texts.
    """
    synthetic, recorded = ([item.text for item in train if is_synthetic(item) is flag] for flag in (True, False))
    if not synthetic:
        return None
    counts = [term_recall(texts, texts, list(terms), preset) if terms else [] for texts in (synthetic, recorded)]
    only = [spoken.term for spoken, real in zip(*counts, strict=True) if spoken.support and not real.support]
    return SyntheticTraining(clips=len(train), synthetic=len(synthetic), terms=only)
