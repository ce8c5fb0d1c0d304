"""BLEU and chrF of speech translation by sacreBLEU, each with its signature.

Scores are comparable only if their signatures are equal (Post, "A call for clarity in reporting BLEU scores",
WMT 2018, arXiv 1804.08771). Text is scored as written, without a normalizer.
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.core.errors import DataError
from finetune.core.extras import require
from finetune.core.languages import row_language
from finetune.core.wording import count
from finetune.metrics.resampling import FloatArray

# By target language; "13a" for others. Japanese is split into characters: its word tokenizer is another package.
_TOKENIZERS = {"ja": "char", "zh": "zh", "ko": "char"}
_ORDER = 4  # longest n-grams of BLEU
BLEU_COUNTS = 2 + 2 * _ORDER


@dataclass(frozen=True)
class TranslationScores:
    """Corpus scores from 0 to 100. `empty_hypotheses` are scored as empty translations."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    empty_hypotheses: int


def translation_scores(references: list[str], hypotheses: list[str], target_language: str) -> TranslationScores:
    """BLEU (Papineni et al., ACL 2002) and chrF (Popovic, WMT 2015) of a corpus with one reference each.

    Args:
        references: one translation for each segment.
        hypotheses: hypotheses in the same order; they can be empty.
        target_language: code such as `ja` or `de-DE`; selects BLEU's tokenizer.

    Raises:
        DataError: there are no segments, the lists differ in length, or a reference is empty.
        MissingExtraError: sacrebleu is not installed.
    """
    if not references or len(references) != len(hypotheses):
        raise DataError(
            f"{count(len(references), 'reference')} and {count(len(hypotheses), 'hypothesis', 'hypotheses')}: give one "
            "reference and one hypothesis for each segment"
        )
    if empty_references := [number for number, text in enumerate(references, 1) if not text.strip()]:
        raise DataError(f"reference translations number {empty_references[:5]} are empty; remove these rows")
    bleu, chrf = _bleu_metric(target_language), require("sacrebleu.metrics", extra="st").CHRF()
    refs, hyps = (list(map(_composed, texts)) for texts in (references, hypotheses))
    bleu_score, chrf_score = bleu.corpus_score(hyps, [refs]), chrf.corpus_score(hyps, [refs])
    return TranslationScores(
        bleu_score.score,
        str(bleu.get_signature()),
        chrf_score.score,
        str(chrf.get_signature()),
        sum(not text.strip() for text in hypotheses),
    )


def bleu_counts(references: list[str], hypotheses: list[str], target_language: str) -> list[list[int]]:
    """For each segment, the `BLEU_COUNTS` numbers of which BLEU is a function; those of a corpus are their sums.

    They are the tokens of the hypothesis and of the reference, and for each length of n-grams the correct ones, then
    for each length all of the hypothesis. Arguments and errors as in `translation_scores`.
    """
    metric = _bleu_metric(target_language, effective_order=True)  # for single segments; the counts are the same
    rows = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        score = metric.sentence_score(_composed(hypothesis), [_composed(reference)])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return rows


def bleu(sums: FloatArray) -> FloatArray:
    """BLEU from 0 to 1 of N corpora, from their summed `bleu_counts` (`BLEU_COUNTS`, N): returns (N,).

    As in sacrebleu, a length without correct n-grams counts as half a correct one, the next one as a quarter.
    """
    hypothesis, reference, correct, total = sums[0], sums[1], sums[2 : 2 + _ORDER], sums[2 + _ORDER :]
    smooth = 0.5 ** np.cumsum(correct == 0, axis=0)
    precision = np.where(correct > 0, correct, smooth) / np.maximum(total, 1)
    brevity = np.exp(np.minimum(0.0, 1 - reference / np.maximum(hypothesis, 1)))
    defined = correct.any(axis=0) & (total > 0).all(axis=0)
    return np.where(defined, brevity * np.exp(np.log(precision).mean(axis=0)), 0.0)


def _bleu_metric(target_language: str, **options: bool) -> Any:
    tokenizer = _TOKENIZERS.get(row_language(target_language), "13a")
    return require("sacrebleu.metrics", extra="st").BLEU(tokenize=tokenizer, **options)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
