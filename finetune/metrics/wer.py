"""Word and character error rates of a corpus, pooled over its utterances, counted by jiwer.

Pooled: all errors over all reference words, so a long utterance weighs more than a short one. Empty
texts are kept: an empty hypothesis deletes every reference word, and each word said where the
reference is empty is an insertion. jiwer reports the count of insertions as the rate of a corpus
without reference words; here it is 0.0 without errors and 1.0 with, so that a rate stays a rate.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jiwer

from finetune.core.errors import DataError
from finetune.metrics.normalizer import UNSPACED, normalize

AT_ONCE = 1000  # texts that jiwer gets together: it keeps several copies of them
Process = Callable[[list[str], list[str]], Any]  # jiwer's process_words or process_characters


@dataclass(frozen=True)
class WordErrors:
    """Error rates as fractions (0.05 is 5 %; insertions can lift them over 1) and the counts behind them."""

    wer: float
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    hits: int
    reference_words: int
    char_errors: int
    reference_chars: int


def error_rate(errors: int, reference_length: int) -> float:
    """Errors over reference words (or characters); without any of these 0.0 if there are no errors, else 1.0."""
    return errors / reference_length if reference_length else float(errors > 0)


def score(references: list[str], hypotheses: list[str], preset: str) -> WordErrors:
    """Corpus error rates of normalized text.

    Characters are those of the normalized text, the spaces between words included. Under a preset
    without spaces (`ja-cer@1`) every character is a word, so `wer` is the `cer`.

    Args:
        references: what was said, one text an utterance; may be empty.
        hypotheses: what was recognized, in the same order.
        preset: a name in `NORMALIZERS`, applied to both sides.

    Raises:
        DataError: nothing to score, or lists of unequal length.
        RecipeError: unknown preset.
    """
    if not references and not hypotheses:
        raise DataError("there are no utterances to score; check that the manifest is not empty")
    refs, hyps = normalized(references, hypotheses, preset)
    same, *edits = _counts(jiwer.process_characters, refs, hyps)
    hits, substitutions, deletions, insertions = _counts(
        jiwer.process_words, [spaced(text, preset) for text in refs], [spaced(text, preset) for text in hyps]
    )
    reference_words, reference_chars = hits + substitutions + deletions, same + edits[0] + edits[1]
    return WordErrors(
        wer=error_rate(substitutions + deletions + insertions, reference_words),
        cer=error_rate(sum(edits), reference_chars),
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        hits=hits,
        reference_words=reference_words,
        char_errors=sum(edits),
        reference_chars=reference_chars,
    )


def _counts(process: Process, refs: list[str], hyps: list[str]) -> list[int]:
    """Hits, substitutions, deletions and insertions of all texts."""
    counts = [0, 0, 0, 0]
    for start in range(0, len(refs), AT_ONCE):
        found = process(refs[start : start + AT_ONCE], hyps[start : start + AT_ONCE])
        counts = [
            count + more
            for count, more in zip(
                counts, (found.hits, found.substitutions, found.deletions, found.insertions), strict=True
            )
        ]
    return counts


def alignments(process: Process, refs: list[str], hyps: list[str]) -> Iterator[list[jiwer.AlignmentChunk]]:
    """The alignment of each pair of texts, in order."""
    for start in range(0, len(refs), AT_ONCE):
        yield from process(refs[start : start + AT_ONCE], hyps[start : start + AT_ONCE]).alignments


def errors_per_utterance(references: list[str], hypotheses: list[str], preset: str) -> list[tuple[int, int]]:
    """(word errors, reference words) of each utterance; they sum to the counts of `score`.

    Raises:
        DataError: lists of unequal length.
        RecipeError: unknown preset.
    """
    refs, hyps = ([spaced(text, preset) for text in texts] for texts in normalized(references, hypotheses, preset))
    return list(
        zip(_errors(alignments(jiwer.process_words, refs, hyps)), (len(text.split()) for text in refs), strict=True)
    )


def character_distances(first: list[str], second: list[str]) -> list[int]:
    """Edits between the characters of each pair of texts, as they are."""
    return _errors(alignments(jiwer.process_characters, first, second))


def _errors(found: Iterable[list[jiwer.AlignmentChunk]]) -> list[int]:
    return [
        sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        for chunks in found
    ]


def changed_by_normalizer(texts: list[str], preset: str) -> list[int]:
    """Indices of texts that the preset empties, or shortens by more than half of their characters.

    A text that was empty before is not among them. Such texts are mostly punctuation or symbols, or stand in
    brackets: their score says little about what was said, and a report should name them.

    Raises:
        RecipeError: unknown preset.
    """
    return [
        index for index, text in enumerate(texts) if 2 * len(normalize(text, preset)) < len(normalize(text, "none"))
    ]


def spaced(text: str, preset: str) -> str:
    """Normalized text with a space between what counts as words: characters, under a preset without spaces."""
    return " ".join(text) if preset in UNSPACED else text


def normalized(references: list[str], hypotheses: list[str], preset: str) -> tuple[list[str], list[str]]:
    if len(references) != len(hypotheses):
        raise DataError(
            f"{len(references)} references but {len(hypotheses)} hypotheses: give one hypothesis for each "
            "reference, an empty text where nothing was recognized"
        )
    return [normalize(text, preset) for text in references], [normalize(text, preset) for text in hypotheses]
