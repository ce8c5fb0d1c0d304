"""BLEU and chrF of speech translation by sacreBLEU, each with the signature that says how it was counted.

A score without its signature compares with nothing (Post, "A call for clarity in reporting BLEU scores",
WMT 2018, arXiv 1804.08771). Text is scored as written: no normalizer.
"""

import unicodedata
from dataclasses import dataclass

from finetune.core.errors import DataError
from finetune.core.extras import require

# By target language; "13a" elsewhere. Japanese in characters: its word tokenizer is one more package, and never mixed.
_TOKENIZERS = {"ja": "char", "zh": "zh", "ko": "char"}


@dataclass(frozen=True)
class TranslationScores:
    """Corpus scores from 0 to 100. `empty_hypotheses` were scored as they are: nothing was translated."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str
    empty_hypotheses: int


def translation_scores(references: list[str], hypotheses: list[str], target_language: str) -> TranslationScores:
    """BLEU (Papineni et al., ACL 2002) and chrF (Popovic, WMT 2015) of a corpus with one reference each.

    Args:
        references: translations, one a segment.
        hypotheses: in the same order; an empty one counts as it stands.
        target_language: code such as `ja` or `de-DE`; chooses BLEU's tokenizer.

    Raises:
        DataError: no segments, lists of unequal length, or an empty reference, against which nothing can be scored.
        MissingExtraError: sacrebleu is not installed.
    """
    if not references or len(references) != len(hypotheses):
        raise DataError(
            f"{len(references)} references and {len(hypotheses)} hypotheses: a translation needs one of "
            "each for every segment"
        )
    if empty := [number for number, text in enumerate(references, 1) if not text.strip()]:
        raise DataError(f"the reference translations number {empty[:5]} are empty; remove these rows")
    metrics = require("sacrebleu.metrics", extra="st")
    tokenizer = _TOKENIZERS.get(target_language.split("-")[0].lower(), "13a")
    bleu, chrf = metrics.BLEU(tokenize=tokenizer), metrics.CHRF()
    refs, hyps = ([unicodedata.normalize("NFC", text) for text in texts] for texts in (references, hypotheses))
    bleu_score, chrf_score = bleu.corpus_score(hyps, [refs]), chrf.corpus_score(hyps, [refs])
    return TranslationScores(
        bleu_score.score,
        str(bleu.get_signature()),
        chrf_score.score,
        str(chrf.get_signature()),
        sum(not text.strip() for text in hypotheses),
    )
