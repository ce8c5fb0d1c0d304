"""Where drafts come from: the CTC head, expected words, the text itself. Each source is a function."""

from collections.abc import Sequence

from torch import Tensor

from finetune.model.ctc import KATAKANA, best_path

NGRAM = 3  # written tokens that must stand earlier too before what followed there is offered


def ctc_texts(logits: Tensor, counts: Sequence[int]) -> list[tuple[str, list[float]]]:
    """The CTC head's greedy text of each clip over its real frames, and each character's chance; (B, T, 348), (B).

    The head has the sounds of Japanese and not its script: a text that is mostly katakana is no draft, and empty.
    """
    peaks, labels = logits.float().max(-1)
    posteriors = (peaks - logits.float().logsumexp(-1)).exp().cpu().numpy()
    rows = zip(labels.cpu().numpy(), posteriors, counts, strict=True)
    found = [best_path(row[:count], probs[:count]) for row, probs, count in rows]
    return [("", []) if _phonetic(text) else (text, probs) for text, probs in found]


def _phonetic(text: str) -> bool:
    return 2 * sum(ord(char) >= KATAKANA for char in text) > len(text.replace(" ", ""))


def look_up(written: Sequence[int], begun: int, phrases: Sequence[Sequence[int]]) -> list[int]:
    """What may follow `written`, from prompt look-up (arXiv 2304.04487 copies from the context in this way).

    Args:
        written: token ids so far; those from `begun` on are of the current word.
        phrases: token ids of expected words, as written behind a space.

    Returns:
        The rest of the first phrase that the current word begins; else what followed the last `NGRAM` tokens where
        they stood before; else nothing.
    """
    word = list(written[begun:])
    if word:
        for phrase in phrases:
            if len(phrase) > len(word) and list(phrase[: len(word)]) == word:
                return list(phrase[len(word) :])
    last = list(written[-NGRAM:])
    for start in range(len(written) - NGRAM - 1, -1, -1):
        if list(written[start : start + NGRAM]) == last:
            return list(written[start + NGRAM :])
    return []
