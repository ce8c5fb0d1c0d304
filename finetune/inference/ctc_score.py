"""How probable a text of a window is by the CTC head, over all alignments (Graves et al., ICML 2006)."""

from collections.abc import Callable, Sequence
from unicodedata import category, normalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from finetune.inference.segments import split_words
from finetune.model.ctc import BLANK, NUM_LABELS, ctc_labels, is_spelled

SPACE = ord(" ")
ANY = NUM_LABELS  # a label that fits any sound, for words whose characters do not tell how they sound
DIGITS = [ord(digit) for digit in "0123456789"]
SIGNS = "%&@#"  # that are spoken as words, as are all signs of these Unicode categories
SIGN_CATEGORIES = ("Sc", "Sm", "So")
UNKNOWN = -10.0  # log probability that a letter reaches in no frame of a window, if the head was not trained on it
ACCENTED = {code: ord(normalize("NFD", chr(code))[0]) for code in range(0xE0, 0x100) if normalize("NFD", chr(code))[1:]}
SILENT = {"'": (BLANK,), "-": (BLANK, SPACE)}  # what the CTC head can write instead of a sign that has no sound


class CtcScorer:
    """Scores texts of one window.

    Attributes:
        log_probs: (T, 349) log probabilities of the frames; the last label is `ANY`.
    """

    def __init__(self, log_probs: NDArray[np.float32]) -> None:
        """Args: log_probs: (T, 348) log probabilities of the CTC head for the window's real frames."""
        self.log_probs = np.column_stack([log_probs, log_probs.max(1)])
        self._digits = bool(np.isin(log_probs.argmax(1), DIGITS).any())  # whether the head writes numbers with digits

    def labels_of(self, word: str) -> list[int]:
        """CTC labels of a word; `ANY` for one that is not heard as it is written, such as `25` or `50%`.

        Empty for signs without a sound, such as a dash between words.
        """
        letters, digits = any(map(str.isalnum, word)), any(map(str.isnumeric, word)) and not self._digits
        if digits or any(char in SIGNS or category(char) in SIGN_CATEGORIES for char in word):
            return [ANY]
        if letters and not is_spelled(word):
            return [ANY]
        return ctc_labels(word) if letters else []

    def scores(
        self, texts: Sequence[Sequence[str]], spans: Sequence[tuple[int, int]] | None = None
    ) -> NDArray[np.float64]:
        """Log probabilities of texts, each summed over all its alignments; -inf if there are too few frames.

        Args:
            texts: (N) lists of words.
            spans: (N) first frame of each text, and the frame after its last one; by default all frames.
        """
        spans = spans or [(0, len(self.log_probs))] * len(texts)
        labels = [torch.tensor(phrase_labels(words, self.labels_of), dtype=torch.long) for words in texts]
        parts = [torch.from_numpy(self.log_probs[start:end]) for start, end in spans]
        losses = F.ctc_loss(
            torch.nn.utils.rnn.pad_sequence(parts),
            torch.nn.utils.rnn.pad_sequence(labels, batch_first=True),
            torch.tensor([len(part) for part in parts]),
            torch.tensor([len(row) for row in labels]),
            blank=BLANK,
            reduction="none",
        )
        return -losses.double().numpy()


def with_silent_signs(log_probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The log probabilities, where a keyword can have signs that the head does not write.

    The head writes a word that it does not know without hyphens and apostrophes, such as `cotrimoxazole` for
    `co-trimoxazole`. One that was not trained on a letter with an accent writes the letter without it.
    """
    log_probs = log_probs.copy()
    for sign, others in SILENT.items():
        log_probs[:, ord(sign)] = log_probs[:, [ord(sign), *others]].max(1)
    for label, letter in ACCENTED.items():
        if log_probs[:, label].max(initial=-np.inf) < UNKNOWN:
            log_probs[:, label] = log_probs[:, letter]
    return log_probs


def words_of(text: str) -> list[str]:
    """The words of a text, as they are aligned with the audio."""
    return [text[start:end] for start, end in split_words(text)]


def phrase_labels(words: Sequence[str], labels_of: Callable[[str], list[int]] = ctc_labels) -> list[int]:
    """CTC labels of words, with a space between them; a word without any character of the CTC alphabet is left out."""
    labels = list[int]()
    for word in words:
        if found := labels_of(word):
            labels += [SPACE, *found] if labels else found
    return labels
