"""Opens the corpora of a recipe: the rows of a source with the settings of its entry."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.core.config import CorpusEntry
from finetune.core.errors import DataError
from finetune.data.cells import cell_text
from finetune.data.corpora import preview_rows, read_corpus
from finetune.data.corpus import Corpus
from finetune.data.problems import Finding
from finetune.data.raw_rows import BLOCK_ROWS
from finetune.data.row import Row

FILLED = ("task", "language", "target_language", "text_style", "instruction")  # if a row has no value of its own


def read_entry(entry: CorpusEntry, media_dir: Path, audio_required: bool = True) -> Corpus:
    """The rows of a corpus of a recipe; the arguments and errors are those of `read_corpus`."""
    return with_settings(read_corpus(entry.path, media_dir, audio_required=audio_required), entry)


def preview_entry(entry: CorpusEntry, open_corpus: Callable[[str], Corpus | None] = preview_rows) -> Corpus | None:
    """The rows of a corpus that can be read without its audio; see `preview_rows`."""
    corpus = open_corpus(entry.path)
    return None if corpus is None else with_settings(corpus, entry)


def with_settings(corpus: Corpus, entry: CorpusEntry) -> Corpus:
    """The rows of a corpus with the settings of its entry.

    Raises:
        DataError: no row of the first block has `text_column`.
    """
    if not entry.model_fields_set - {"path"}:
        return corpus
    first = corpus.block(0)
    if entry.text_column and not any(entry.text_column in row.values for row in first):
        columns = ", ".join(dict.fromkeys(name for row in first for name in row.values))
        raise DataError(f"{entry.path}: text_column: no column {entry.text_column!r}; the columns are {columns}")
    return Corpus(EntryRows(corpus, entry), corpus.facts)


class EntryRows:
    """The rows of a corpus with the settings of an entry, for a `Corpus`."""

    def __init__(self, corpus: Corpus, entry: CorpusEntry) -> None:
        self._corpus, self._entry = corpus, entry
        self._chosen: Sequence[int] = range(len(corpus))
        self._set = {name: value for name in FILLED if (value := getattr(entry, name))}
        if entry.max_clips is not None and entry.max_clips < len(corpus):
            rng = random.Random(f"{entry.path}/max_clips")
            self._chosen = sorted(rng.sample(self._chosen, entry.max_clips))

    def __len__(self) -> int:
        return len(self._chosen)

    def block(self, number: int) -> list[Row]:
        chosen = self._chosen[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]
        return [self._with_settings(row) for row in self._rows(chosen)]

    def _rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        which, rows = -1, list[Row]()
        for number in numbers:
            if number // BLOCK_ROWS != which:
                which = number // BLOCK_ROWS
                rows = self._corpus.block(which)
            yield rows[number % BLOCK_ROWS]

    def _with_settings(self, row: Row) -> Row:
        entry, values = self._entry, dict(row.values)
        values |= {name: value for name, value in self._set.items() if not cell_text(values.get(name))}
        values |= {name: value for name, value in entry.tags.items() if not cell_text(values.get(name))}
        fault = row.fault
        if entry.text_column:
            values["text"] = values.pop(entry.text_column, None)
            if not isinstance(values["text"], str):
                fault = fault or Finding("empty transcript", f"the row has no text in column {entry.text_column!r}")
        if entry.weight != 1:
            values["sampling_weight"] = entry.weight
        return replace(row, values=values, fault=fault)
