"""chrF of a corpus (Popovic, WMT 2015) from counts that add up over segments; equal to sacrebleu's with its defaults.

It needs no package, so that training can select an adapter by it. The counts of a corpus, of a block of speakers or of
a resampled corpus are sums of the counts of its segments.
"""

import unicodedata
from collections import Counter

import numpy as np

from finetune.metrics.resampling import FloatArray

ORDER = 6  # longest character n-grams
BETA = 2  # weight of recall over precision
COUNTS = 3 * ORDER  # numbers of one segment


def chrf_counts(reference: str, hypothesis: str) -> list[int]:
    """For each length from 1 to `ORDER`: n-grams of the hypothesis, of the reference, and of both (`COUNTS` numbers).

    Spaces do not count. Text is compared as written, in Unicode NFC.
    """
    ref, hyp = ("".join(unicodedata.normalize("NFC", text).split()) for text in (reference, hypothesis))
    counts = []
    for size in range(1, ORDER + 1):
        ref_grams, hyp_grams = _ngrams(ref, size), _ngrams(hyp, size)
        # As in sacrebleu, n-grams that are longer than the reference are not compared.
        counts += [hyp_grams.total() if ref_grams else 0, ref_grams.total(), (ref_grams & hyp_grams).total()]
    return counts


def chrf(sums: FloatArray) -> FloatArray:
    """chrF from 0 to 1 of N corpora, from their summed counts (`COUNTS`, N): returns (N,).

    Precision and recall are means over the lengths that both sides have.
    """
    hyp, ref, both = sums[0::3], sums[1::3], sums[2::3]
    used = hyp > 0  # then the reference has some too, see `chrf_counts`
    lengths = np.maximum(used.sum(axis=0), 1)
    precision = np.where(used, both / np.maximum(hyp, 1), 0.0).sum(axis=0) / lengths
    recall = np.where(used, both / np.maximum(ref, 1), 0.0).sum(axis=0) / lengths
    denominator = BETA**2 * precision + recall
    return (1 + BETA**2) * precision * recall / np.where(denominator > 0, denominator, 1.0)


def chrf_error(counts: list[list[int]]) -> float:
    """1 - chrF of segments, from their `chrf_counts`; the error that corresponds to the WER of a transcription."""
    return 1.0 - float(chrf(np.array(counts, dtype=float).sum(axis=0)[:, None])[0])


def _ngrams(text: str, size: int) -> Counter[str]:
    return Counter(text[start : start + size] for start in range(len(text) - size + 1))
