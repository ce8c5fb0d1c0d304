"""The error of one clip by which the lists of clips are sorted: word errors, or 1 - chrF of a translation."""

from finetune.metrics.chrf import chrf_counts, chrf_error
from finetune.metrics.result_rows import UtteranceResult


def clip_errors(row: UtteranceResult) -> tuple[float, float]:
    """The error of the base and of the adapted model; the words of a translation say little about its quality.

    A translation without a reference has no error, as in its scores.
    """
    if not row.target_language:
        return row.errors_base, row.errors
    if not row.text.strip():
        return 0.0, 0.0
    base, adapted = (chrf_error([chrf_counts(row.text, text)]) for text in (row.pred_text_base, row.pred_text))
    return base, adapted


def gain(row: UtteranceResult) -> float:
    """By how much the error of the adapted model is smaller than that of the base."""
    base, adapted = clip_errors(row)
    return base - adapted
