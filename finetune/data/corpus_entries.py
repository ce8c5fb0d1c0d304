"""Opens the corpora of a recipe: the rows of a source with the settings of its entry."""

import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.core.data_config import CorpusEntry
from finetune.core.errors import DataError
from finetune.core.wording import all_of
from finetune.data.cells import cell_text, shown
from finetune.data.columns import known_columns
from finetune.data.corpora import preview_rows, read_corpus
from finetune.data.corpus import Corpus
from finetune.data.manifest import KEYS
from finetune.data.problems import Finding
from finetune.data.raw_rows import BLOCK_ROWS
from finetune.data.row import Row
from finetune.data.row_result import stated_id

log = logging.getLogger(__name__)

FILLED = ("task", "language", "target_language", "text_style", "instruction")  # if a row has no value of its own


def read_entry(entry: CorpusEntry, media_dir: Path) -> Corpus:
    """The rows of a corpus of a recipe; the arguments and errors are those of `read_corpus`."""
    return with_settings(read_corpus(entry.path, media_dir, text_required=not entry.text_column), entry)


def read_entries(entries: Sequence[CorpusEntry], media_dir: Path) -> list[tuple[str, Corpus]]:
    """The path and the rows of each corpus of a split, with unique ids, see `with_number`. Logs `split_notes`."""
    corpora = list[tuple[str, Corpus]]()
    for entry, number in zip(entries, use_numbers(entries), strict=True):
        corpus = read_entry(entry, media_dir)
        for note in split_notes(corpus):
            log.warning(f"{entry.path}: {note}")
        corpora.append((entry.path, with_number(corpus, number)))
    return corpora


def split_notes(corpus: Corpus) -> Iterator[str]:
    """A note for each column that states several splits: a recipe uses all rows."""
    columns = dict[str, set[str]]()
    for column, split in corpus.facts.splits:
        columns.setdefault(column, set()).add(split)
    for column, splits in sorted(columns.items()):
        if len(names := sorted(splits - {""})) > 1:
            divided = (
                ", or start with `finetune init`, which divides by it" if {"train", ""} & splits == {"train"} else ""
            )
            yield (
                f"column {column!r} states {all_of(names)}, but recipes do not use it, so this entry has all rows; "
                f"give a file for each split{divided}"
            )


def preview_entry(entry: CorpusEntry, open_corpus: Callable[..., Corpus | None] = preview_rows) -> Corpus | None:
    """The rows of a corpus that can be read without its audio; see `preview_rows`."""
    corpus = open_corpus(entry.path, False) if entry.text_column else open_corpus(entry.path)
    return None if corpus is None else with_settings(corpus, entry)


def use_numbers(entries: Sequence[CorpusEntry]) -> list[int]:
    """For each corpus of a split, how often its path has occurred so far: 1 for the first time."""
    counts = Counter[str]()
    numbers = []
    for entry in entries:
        name = os.path.normpath(entry.path)
        counts[name] += 1
        numbers.append(counts[name])
    return numbers


def with_number(corpus: Corpus, number: int) -> Corpus:
    """The rows of a corpus that a split uses a second time, such as for another task: `#2` is added to their ids."""
    return corpus if number == 1 else Corpus(NumberedRows(corpus, number), corpus.facts)


def with_settings(corpus: Corpus, entry: CorpusEntry) -> Corpus:
    """The rows of a corpus with the settings of its entry.

    Raises:
        DataError: no row of the first block has `text_column`, or a tag has the name of a key of the manifest.
    """
    if reserved := sorted({*entry.tags} & ({*KEYS} - {"speaker"})):
        raise DataError(f"{entry.path}: tags: {reserved[0]!r} is not a name for a tag; it has a meaning in each row")
    if not entry.model_fields_set - {"path"}:
        return corpus
    first, column = corpus.block(0), entry.text_column
    if column and not any(column in row.values for row in first):
        columns = dict.fromkeys(name for row in first for name in row.values)
        if known_columns([column]).get(column) != "text" or "text" not in columns:
            raise DataError(f"{entry.path}: text_column: no column {column!r}; the columns are {', '.join(columns)}")
        column = "text"  # as the column is now named
    return Corpus(EntryRows(corpus, entry, column), corpus.facts)


class NumberedRows:
    """The rows of a corpus with a number added to their ids, for a `Corpus`."""

    def __init__(self, corpus: Corpus, number: int) -> None:
        self._corpus, self._number = corpus, number

    def __len__(self) -> int:
        return len(self._corpus)

    def block(self, number: int) -> list[Row]:
        return [self._numbered(row) for row in self._corpus.block(number)]

    def _numbered(self, row: Row) -> Row:
        name = stated_id(row)
        return replace(row, values={**row.values, "id": f"{name}#{self._number}"}) if name else row


class EntryRows:
    """The rows of a corpus with the settings of an entry, for a `Corpus`."""

    def __init__(self, corpus: Corpus, entry: CorpusEntry, text_column: str) -> None:
        self._corpus, self._entry, self._text_column = corpus, entry, text_column
        self._chosen: Sequence[int] = range(len(corpus))
        self._set = {name: value for name in FILLED if (value := getattr(entry, name))}
        if entry.max_clips is not None and entry.max_clips < len(corpus):
            self._chosen = sorted(random.Random("max_clips").sample(self._chosen, entry.max_clips))

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
        if self._text_column:
            values["text"] = values.pop(self._text_column, None)
            if not isinstance(value := values["text"], str):
                detail = f"the row has no text in column {entry.text_column!r}"
                detail += f", but {shown(value)}" if isinstance(value, list | dict | bytes) else ""
                fault = fault or Finding("empty transcript", detail)
        if entry.weight != 1 and not cell_text(values.get("sampling_weight")):
            values["sampling_weight"] = entry.weight
        return replace(row, values=values, fault=fault)
