"""Sources of draft tokens: a CTC head, expected phrases, and the text written so far."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.model.bpe_head import PooledLabels
from finetune.model.conformer import frame_mask
from finetune.model.ctc import BLANK, KATAKANA, best_path, entropy
from finetune.model.granite import EncodedAudio, SpeechModel

NGRAM = 3  # written tokens that must occur earlier before their continuation is proposed
LONGEST_CHARACTER = 4  # bytes in UTF-8, so a character has at most as many tokens
INCOMPLETE = "\ufffd"  # what a part of a character decodes to


@dataclass(frozen=True)
class CtcText:
    """The greedy text of a CTC head for one clip.

    Attributes:
        text: the text; empty if it cannot be a draft.
        probs: posterior of each character.
        entropy: the highest entropy of a frame in nats; 0 if it was not computed.
    """

    text: str
    probs: list[float]
    entropy: float = 0.0


def draft_texts(model: SpeechModel, audio: EncodedAudio, with_entropy: bool = False) -> list[CtcText]:
    """The draft text of each clip: from the head of tokens if the model has one, else from the head of characters."""
    counts = audio.num_frames.tolist()
    if model.bpe_head is not None and audio.speech is not None:
        labels = model.bpe_head.label(model.last_layer(audio.states), audio.speech, audio.num_frames)
        return bpe_drafts(labels, model.tokenizer)
    logits = model.ctc_logits(audio.states)
    drafts = ctc_drafts(logits, counts)
    if not with_entropy:
        return [CtcText(text, probs) for text, probs in drafts]
    mask = frame_mask(audio.num_frames, logits.shape[1])
    highest = entropy(logits).masked_fill(~mask, 0.0).amax(1).tolist()
    return [CtcText(text, probs, value) for (text, probs), value in zip(drafts, highest, strict=True)]


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


def bpe_drafts(batch: PooledLabels, tokenizer: Tokenizer) -> list[CtcText]:
    """The greedy text of the head of tokens for each clip. A character gets the lowest posterior of its tokens."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    counts, table = batch.counts.tolist(), [column.cpu().numpy() for column in (batch.labels, batch.posteriors)]
    highest = [float(row[:count].max()) if count else 0.0 for row, count in zip(batch.entropies, counts, strict=True)]
    drafts = []
    for labels, posteriors, count, value in zip(*table, counts, highest, strict=True):
        path = _collapse(labels[:count], posteriors[:count])
        kept = [(token, prob) for token, prob in path if token not in special]
        drafts.append(CtcText(*_characters(kept, tokenizer), value))
    return drafts


def _collapse(labels: NDArray[np.int64], posteriors: NDArray[np.float32]) -> list[tuple[int, float]]:
    """The tokens of a path of labels, which are one higher, each with its highest posterior."""
    if not len(labels):
        return []
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    highest = np.maximum.reduceat(posteriors, starts).tolist()
    return [(label - 1, prob) for label, prob in zip(labels[starts].tolist(), highest, strict=True) if label != BLANK]


def _characters(path: list[tuple[int, float]], tokenizer: Tokenizer) -> tuple[str, list[float]]:
    """The text of some tokens without outer spaces, and the probability of each character.

    A character can have several tokens. Tokens that do not complete one are left out.
    """
    text, probs, pending = "", list[float](), list[tuple[int, float]]()
    for number, item in enumerate(path, start=1):
        pending.append(item)
        while pending:
            decoded = str(tokenizer.decode([token for token, _ in pending]))
            if INCOMPLETE not in decoded:
                text += decoded
                probs += [min(prob for _, prob in pending)] * len(decoded)
                pending = []
            elif len(pending) >= LONGEST_CHARACTER or number == len(path):
                pending.pop(0)  # it can no longer become a character
            else:
                break
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    return text[start:end], probs[start:end]


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
