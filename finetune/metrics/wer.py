"""Word and character error rates of a corpus, pooled over utterances, computed by jiwer.

Pooled means all errors divided by all reference words, so a long utterance has more weight. Empty texts are
kept: an empty hypothesis deletes every reference word, and each word of a hypothesis with an empty reference is an
insertion. The number of errors is jiwer's; substitutions, deletions and insertions are sclite's (`edit_path`). For a
corpus without reference words jiwer returns the number of insertions as the rate; here the rate is 0.0 without errors
and 1.0 with errors.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jiwer

from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.metrics.edit_path import edit_path
from finetune.metrics.multilingual import match_compounds
from finetune.metrics.normalizer import UNSPACED, joins_compounds, normalize

BATCH = 1000  # texts in one call of jiwer, which makes several copies of them
_STEPS = {"equal": "C", "substitute": "S", "delete": "D", "insert": "I"}  # of jiwer
Process = Callable[[list[str], list[str]], Any]  # jiwer's process_words or process_characters


@dataclass(frozen=True)
class WordErrors:
    """Error rates as fractions (0.05 is 5 %; insertions can make them larger than 1) and their counts."""

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
    """Errors divided by reference words (or characters); without reference words, 0.0 without errors, else 1.0."""
    return errors / reference_length if reference_length else float(errors > 0)


def score(references: list[str], hypotheses: list[str], preset: str) -> WordErrors:
    """Computes the error rates of a corpus on normalized text.

    Characters are those of the normalized text, including the spaces between words. Under a preset without spaces
    (`ja-cer@2`) every character is a word, so `wer` equals `cer`.

    Args:
        references: one text for each utterance; texts can be empty.
        hypotheses: hypotheses in the same order.
        preset: a name in `NORMALIZERS`, applied to both sides.

    Raises:
        DataError: there are no utterances, or the lists differ in length.
        RecipeError: the preset is unknown.
    """
    if not references and not hypotheses:
        raise DataError("there are no utterances to score; check that the manifest is not empty")
    refs, hyps = normalized(references, hypotheses, preset)
    char_errors, reference_chars = sum(character_distances(refs, hyps)), sum(map(len, refs))
    steps = Counter[str]()
    for path in word_paths([spaced(text, preset) for text in refs], [spaced(text, preset) for text in hyps]):
        steps.update(path)
    hits, substitutions, deletions, insertions = (steps[step] for step in "CSDI")
    reference_words = hits + substitutions + deletions
    return WordErrors(
        wer=error_rate(substitutions + deletions + insertions, reference_words),
        cer=error_rate(char_errors, reference_chars),
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        hits=hits,
        reference_words=reference_words,
        char_errors=char_errors,
        reference_chars=reference_chars,
    )


def word_paths(refs: list[str], hyps: list[str]) -> Iterator[str]:
    """Yields the alignment of each pair of texts, one letter for each step: C, S, D, I (see `edit_path`).

    The number of errors is jiwer's. Texts that are too long for `edit_path` have jiwer's alignment, too.
    """
    for chunks, ref, hyp in zip(_alignments(jiwer.process_words, refs, hyps), refs, hyps, strict=True):
        path = "".join(_STEPS[chunk.type] * _length(chunk) for chunk in chunks)
        errors = len(path) - path.count("C")
        yield (edit_path(ref, hyp, errors) or path) if errors else path


def _alignments(process: Process, refs: list[str], hyps: list[str]) -> Iterator[list[jiwer.AlignmentChunk]]:
    for start in range(0, len(refs), BATCH):
        yield from process(refs[start : start + BATCH], hyps[start : start + BATCH]).alignments


def _length(chunk: jiwer.AlignmentChunk) -> int:
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)


def errors_per_utterance(references: list[str], hypotheses: list[str], preset: str) -> list[tuple[int, int]]:
    """Returns (word errors, reference words) of each utterance; their sums are the counts of `score`.

    Raises:
        DataError: the lists differ in length.
        RecipeError: the preset is unknown.
    """
    refs, hyps = ([spaced(text, preset) for text in texts] for texts in normalized(references, hypotheses, preset))
    return list(
        zip(_errors(_alignments(jiwer.process_words, refs, hyps)), (len(text.split()) for text in refs), strict=True)
    )


def character_distances(first: list[str], second: list[str]) -> list[int]:
    """Character edits between the texts of each pair, without normalization."""
    return _errors(_alignments(jiwer.process_characters, first, second))


def _errors(rows: Iterable[list[jiwer.AlignmentChunk]]) -> list[int]:
    return [sum(_length(chunk) for chunk in chunks if chunk.type != "equal") for chunks in rows]


def changed_by_normalizer(texts: list[str], preset: str) -> list[int]:
    """Indices of texts that the preset empties, or shortens by more than half of their characters.

    Texts that are empty before are not included. Such texts are mostly punctuation, symbols or text in brackets: their
    scores are not meaningful, and a report should list them.

    Raises:
        RecipeError: the preset is unknown.
    """
    return [
        index for index, text in enumerate(texts) if 2 * len(normalize(text, preset)) < len(normalize(text, "none"))
    ]


def spaced(text: str, preset: str) -> str:
    """Puts a space between the characters of a normalized text if the preset has no spaces."""
    return " ".join(text) if preset in UNSPACED else text


def normalized(references: list[str], hypotheses: list[str], preset: str) -> tuple[list[str], list[str]]:
    """Normalizes references and hypotheses, and matches compounds if the preset does. Raises the errors of `score`."""
    if len(references) != len(hypotheses):
        raise DataError(
            f"{count(len(references), 'reference')} but {count(len(hypotheses), 'hypothesis', 'hypotheses')}; "
            "give one hypothesis for each reference, an empty text if nothing was recognized"
        )
    refs, hyps = ([normalize(text, preset) for text in texts] for texts in (references, hypotheses))
    return refs, list(map(match_compounds, refs, hyps)) if joins_compounds(preset) else hyps
