"""Chooses among the texts that beam search found: by the language model, the CTC head, and keywords.

The CTC head gives a low score to texts in which the language model invented or left out words (the rescoring of hybrid
CTC/attention decoding, Watanabe et al. 2017, doi 10.1109/JSTSP.2017.2763455).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.inference.beam_search import Beam
from finetune.inference.ctc_score import ANY, CtcScorer, words_of
from finetune.inference.keyword_biasing import biased_texts, keyword_bonus

# Punctuation around a number that has no sound: `25.` is the number `25`, but `.5` is not `5`.
OPENING, CLOSING = "([“„«¿¡", ".,;:!?…)]”»"
# Single quotation marks, which an apostrophe looks like: `'yes'`, but not `dogs'`. The CTC alphabet has no others.
QUOTED = re.compile(r"(?<!\w)['‘’‚‛](?=\w)([^'‘’‚‛]*(?:\w['’]\w[^'‘’‚‛]*)*)['‘’‛](?!\w)")


@dataclass(frozen=True)
class Choice:
    """The best text of a clip.

    Attributes:
        beam: the tokens from which it comes.
        text: with the keywords that the CTC head hears.
        without_keywords: the best text without keywords; None if there are none.
    """

    beam: Beam
    text: str
    without_keywords: str | None = None


def choose(
    beams: Sequence[Beam],
    texts: Sequence[str],
    log_probs: NDArray[np.float32] | None,
    ctc_weight: float,
    keywords: tuple[str, ...] = (),
) -> Choice:
    """The text with the highest sum of log probabilities for each token.

    Keywords are written into each text before, and their bonus is a part of the log probability by the CTC head.

    Args:
        beams: the most probable first.
        texts: those of the beams.
        log_probs: (T, 348) log probabilities of the CTC head for the clip's real frames; None if it cannot write the
            text. Then the language model chooses alone, and keywords are not used.
        ctc_weight: factor of the log probability of a text by the CTC head.
        keywords: expected words and phrases.
    """
    if log_probs is None:
        return Choice(beams[0], texts[0])
    scorer = CtcScorer(log_probs)
    plain = _best(beams, texts, scorer, ctc_weight, [0.0] * len(texts))
    if not keywords:
        return Choice(beams[plain], texts[plain])
    written = biased_texts(log_probs, texts, keywords)
    best = _best(beams, written, scorer, ctc_weight, [keyword_bonus(text, keywords) for text in written])
    return Choice(beams[best], written[best], texts[plain])


def _best(
    beams: Sequence[Beam], texts: Sequence[str], scorer: CtcScorer, ctc_weight: float, bonuses: Sequence[float]
) -> int:
    """The index of the best text.

    Words that are not spelled as they sound, such as `25`, tell nothing to the CTC head. So it chooses among the texts
    that have the same ones as the text that is best without it; punctuation around them does not matter. An empty text
    has none: the best one with words says which ones the others must have.
    """
    if not ctc_weight:
        return 0
    words = [words_of(QUOTED.sub(r"\1", text)) for text in texts]
    unspelled = [[_bare(word) for word in row if scorer.labels_of(word) == [ANY]] for row in words]
    best = next((index for index, row in enumerate(words) if row), 0)
    chosen = [index for index, row in enumerate(unspelled) if row == unspelled[best] or not words[index]]
    scores = scorer.scores([words[index] for index in chosen])
    totals = [
        beams[index].mean(ctc_weight * (score + bonuses[index])) for index, score in zip(chosen, scores, strict=True)
    ]
    return chosen[int(np.argmax(totals))]  # the first one if the frames are too few for any


def _bare(word: str) -> str:
    return word.lstrip(OPENING).rstrip(CLOSING).lower()
