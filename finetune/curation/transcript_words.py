"""The words of a transcript as written, each with the CTC labels of its spoken form."""

from dataclasses import dataclass

from finetune.core.languages import row_language
from finetune.data.number_words import numbers_to_words
from finetune.inference.segments import split_words
from finetune.model.ctc import ctc_labels

SPACE = ord(" ")  # a label
SPOKEN_SIGNS = frozenset("&%@+=€$£¥")  # spoken also where they stand alone; other signs are punctuation


@dataclass(frozen=True)
class TranscriptWord:
    """A word, from `start` to `end` in the transcript, with punctuation.

    `labels` is empty for a word without a character of the CTC alphabet, such as a Chinese one.
    """

    start: int
    end: int
    labels: tuple[int, ...]


def transcript_words(text: str, language: str) -> list[TranscriptWord]:
    """The words of a transcript; punctuation that stands alone belongs to the word before it.

    Numbers are spelled out in the language, as far as docs/data.md says for `data.text.numbers`.

    Args:
        text: the transcript.
        language: code or name of its language.
    """
    code, words = row_language(language), list[TranscriptWord]()
    for start, end in split_words(text):
        word = text[start:end]
        if not any(char.isalnum() or char in SPOKEN_SIGNS for char in word) and words:
            words[-1] = TranscriptWord(words[-1].start, end, words[-1].labels)
            continue
        spoken = numbers_to_words(word, code).text if any(map(str.isnumeric, word)) else word
        parts = [labels for part in spoken.replace("\u2019", "'").split() if (labels := ctc_labels(part))]
        labels = [label for number, part in enumerate(parts) for label in ([SPACE, *part] if number else part)]
        words.append(TranscriptWord(start, end, tuple(labels)))
    return words
