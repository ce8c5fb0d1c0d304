"""Converts the rows of a source to rows with the manifest's keys, in a pass over all rows and then block by block."""

import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.audio_paths import AudioFinder, elsewhere, is_searched
from finetune.data.canary_rows import ANSWER, SPOKEN, with_translation
from finetune.data.cells import cell_text, shown
from finetune.data.channels import check_numbering
from finetune.data.columns import known_columns, renamed, split_audio
from finetune.data.corpus import Corpus, CorpusFacts
from finetune.data.raw_rows import BLOCK_ROWS, RawRows, StoredRows
from finetune.data.row import Row
from finetune.data.segment_rows import Segments, find_segments
from finetune.data.survey import Survey, survey

log = logging.getLogger(__name__)

LONGEST_PATH = 4096  # characters; no system has longer ones
BASE64 = ("UklGR", "T2dnU", "ZkxhQ", "SUQz")  # the first characters of WAV, Ogg, FLAC, and MP3 with a tag


def to_manifest_keys(
    rows: Iterable[Row],
    source: str,
    folder: Path,
    audio_required: bool = True,
    exact: bool = False,
    text_required: bool = True,
) -> Corpus:
    """Rows with the manifest's keys, absolute audio paths, and segments as offset and duration in seconds.

    Args:
        rows: rows with the columns of the source; unless they are `RawRows`, they are iterated once and stored.
        source: the source, for messages.
        folder: where relative paths start, before the current directory.
        audio_required: it is an error if no audio file exists.
        exact: the rows have the manifest's keys, and their other columns have no meaning.
        text_required: it is an error if there is no column for the text.

    Raises:
        DataError: there are no rows; a column is missing or cannot be understood; no audio file exists.
    """
    raw = rows if isinstance(rows, RawRows) else StoredRows(rows)
    finder = AudioFinder(folder)
    facts = survey(raw, source, finder, exact, text_required)
    if number := facts.num_repeated_ids():
        facts.keys = _without_ids(facts, number, len(raw))
    if note := facts.speakers.note():
        log.warning(f"{source}: {note}")
    for note in facts.reviews.notes():
        log.warning(f"{source}: {note}")
    if audio_required and facts.num_missing == len(raw):
        raise _without_audio(facts, len(raw), folder)
    converted, segments = ConvertedRows(raw, finder, facts.keys, bytes(facts.candidates)), None
    if not facts.is_manifest:
        if facts.parts:
            log.warning(f"{source}: {facts.parts}")
        if other := _other_texts(facts):
            log.info(
                f"{source}: column {facts.name_of('text')!r} is the text, and not {other}; rename them to change it"
            )
        if ANSWER in facts.columns.names and "target_language" in (*facts.columns.names, *facts.keys.values()):
            log.info(f"{source}: the text of a translation is its {ANSWER!r}, and its 'text' is {SPOKEN!r}, as in NeMo")
        view = Corpus(converted)
        if facts.has_channels and not facts.has_channel_0:
            check_numbering(view, source)
        segments = find_segments(view, facts.times.with_values(), facts.files, source)
        converted = ConvertedRows(raw, finder, facts.keys, bytes(facts.candidates), segments)
    num_faults, first_fault = facts.num_faults, facts.first_fault
    if segments and segments.faults is not None:
        num_faults, first_fault = len(segments.faults), int(segments.faults[0]) if len(segments.faults) else 0
    return Corpus(
        converted, CorpusFacts(facts.num_missing, num_faults, first_fault, facts.has_keywords, frozenset(facts.splits))
    )


class ConvertedRows:
    """Rows with the manifest's keys, for a `Corpus`.

    Args:
        rows: the rows of the source.
        finder: finds the audio files.
        keys: the key of each column that gets another name.
        candidates: for each row the number of the candidate that is its audio.
        segments: converts the columns with times; None leaves them.
    """

    def __init__(
        self,
        rows: RawRows,
        finder: AudioFinder,
        keys: dict[str, str],
        candidates: bytes,
        segments: Segments | None = None,
    ) -> None:
        self._rows, self._finder, self._keys, self._candidates = rows, finder, keys, candidates
        self._segments = segments

    def __len__(self) -> int:
        return len(self._rows)

    def block(self, number: int) -> list[Row]:
        path_of, first = lru_cache(BLOCK_ROWS)(self._finder.path), number * BLOCK_ROWS
        rows = []
        for index, row in enumerate(self._rows.block(number), first):
            values = renamed(row.values, self._keys) if self._keys else row.values
            name, inner = split_audio(values.get("audio_filepath"))
            path = name if isinstance(name, str) else None
            if is_searched(name):
                path = path_of(name, self._candidates[index])
            if self._segments is not None and ANSWER in values:
                values = with_translation(values)
            row = Row(
                row.where,
                (inner | values | {"audio_filepath": path}) if inner else {**values, "audio_filepath": path},
                row.fault,
            )
            rows.append(row if self._segments is None else self._segments.convert(index, row))
        return rows


def _other_texts(facts: Survey) -> str:
    """The other columns that could be the text by their names, if the first row has another text there."""
    text = cell_text(facts.first.values.get("text"))
    names = [
        name
        for name in facts.columns.names
        if "text" in known_columns([name]).values() and name != facts.name_of("text")
    ]
    values = {name: facts.first.values.get(facts.keys.get(name, name)) for name in names}
    return " or ".join(
        repr(name) for name, value in values.items() if isinstance(value, str) and value.strip() not in ("", text)
    )


def _without_ids(facts: Survey, number: int, total: int) -> dict[str, str]:
    """The keys of the columns if the column of ids is none, and says so."""
    name = facts.name_of("id")
    log.warning(
        f"{facts.source}: in column {name!r}, {number} of {total} rows have the value of another clip, so it is no id; "
        "ids are made from the file names"
    )
    return {key: value for key, value in facts.keys.items() if key != name} | (
        {"id": "id_original"} if name == "id" else {}
    )


def _without_audio(facts: Survey, count: int, folder: Path) -> DataError:
    first = facts.first
    if first.fault:
        return DataError(f"{first.where}: {first.fault.detail}")
    name = cell_text(first.values.get("audio_filepath"))
    if name.startswith("data:audio") or (len(name) > LONGEST_PATH and name.startswith(BASE64)):
        form = "data:audio/..." if name.startswith("data:audio") else "base64"
        return DataError(f"{facts.source}: audio inside the rows ({form}) is not read; write files, and their paths")
    names = " and ".join(facts.tried) or shown(first.values.get("audio_filepath"))
    candidate = elsewhere(facts.tried[0], folder) if facts.tried else ""
    what = "has this name, and paths start at the folder of the table"
    if Path(candidate).suffix != Path(facts.tried[0] if facts.tried else "").suffix:
        what = "has another suffix"
    hint = f": {shown(candidate)} {what}" if candidate else ""
    return DataError(
        f"{facts.source}: 0 of {count} audio files exist; tried {names} for {first.where}; correct the paths{hint}"
    )
