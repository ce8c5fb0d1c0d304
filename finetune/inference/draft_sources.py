"""Sources of draft tokens: the CTC head, expected phrases, and the text written so far."""

from collections.abc import Sequence

from torch import Tensor

from finetune.model.ctc import KATAKANA, best_path

NGRAM = 3  # written tokens that must occur earlier before their continuation is proposed


def ctc_drafts(logits: Tensor, counts: Sequence[int]) -> list[tuple[str, list[float]]]:
    """The greedy text of the CTC head for each clip, with the posterior of each character.

    The alphabet of the head has only katakana for Japanese. Text that is mostly katakana cannot be a draft and is
    replaced by an empty draft.

    Args:
        logits: (B, T, 348) CTC logits.
        counts: (B) real frames of each clip.
    """
    peaks, labels = logits.float().max(-1)
    posteriors = (peaks - logits.float().logsumexp(-1)).exp().cpu().numpy()
    rows = zip(labels.cpu().numpy(), posteriors, counts, strict=True)
    drafts = [best_path(row[:count], probs[:count]) for row, probs, count in rows]
    return [("", []) if _mostly_katakana(text) else (text, probs) for text, probs in drafts]


def _mostly_katakana(text: str) -> bool:
    return 2 * sum(ord(char) >= KATAKANA for char in text) > len(text.replace(" ", ""))


def prompt_lookup(written: Sequence[int], word_start: int, phrases: Sequence[Sequence[int]]) -> list[int]:
    """Proposes a continuation of `written` by prompt lookup, which copies from the context (as in arXiv 2304.04487).

    Args:
        written: token ids so far.
        word_start: index of the first token of the current word; `len(written)` if no word has begun.
        phrases: token ids of each expected phrase.

    Returns:
        The remaining tokens of the first phrase that starts with the current word. Otherwise the continuation of the
        latest earlier occurrence of the last `NGRAM` tokens. Otherwise an empty list.
    """
    word = list(written[word_start:])
    if word:
        for phrase in phrases:
            if len(phrase) > len(word) and list(phrase[: len(word)]) == word:
                return list(phrase[len(word) :])
    last = list(written[-NGRAM:])
    for start in range(len(written) - NGRAM - 1, -1, -1):
        if list(written[start : start + NGRAM]) == last:
            return list(written[start + NGRAM :])
    return []
