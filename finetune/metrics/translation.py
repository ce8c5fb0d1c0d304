"""BLEU and chrF of speech translation by sacreBLEU, each with its signature.

Scores are comparable only if their signatures are equal (Post, "A call for clarity in reporting BLEU scores",
WMT 2018, arXiv 1804.08771). Text is scored as written, without a normalizer.
"""

import unicodedata
from dataclasses import dataclass

from finetune.core.errors import DataError
from finetune.core.extras import require

# By target language; "13a" for others. Japanese is split into characters: its word tokenizer is another package.
_TOKENIZERS = {"ja": "char", "zh": "zh", "ko": "char"}


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
            f"{len(references)} references and {len(hypotheses)} hypotheses: give one "
            "reference and one hypothesis for each segment"
        )
    if empty_references := [number for number, text in enumerate(references, 1) if not text.strip()]:
        raise DataError(f"reference translations number {empty_references[:5]} are empty; remove these rows")
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
