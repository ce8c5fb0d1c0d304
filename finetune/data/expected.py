"""The utterances of a corpus as it states them: durations from its columns or from headers; no audio is decoded."""

import math
from collections.abc import Sequence

import soundfile

from finetune.core.config import DataSection
from finetune.core.errors import DataError
from finetune.data.audio_file import open_audio
from finetune.data.byte_range import is_fetched, is_url
from finetune.data.cells import cell_keywords, cell_seconds, cell_text, clean_text
from finetune.data.corpora import preview_rows
from finetune.data.manifest import Utterance
from finetune.data.row import Row
from finetune.data.text_rules import TextRules

MAX_HEADERS = 2000  # files whose headers are read; with more files, the others get the mean duration
MAX_REMOTE = 50  # the same, if some are on another machine


def expected_utterances(data: DataSection, split: str) -> list[Utterance] | None:
    """The utterances of a split that `prepare` will probably keep; None if a corpus is opened only by `prepare`.

    Raises:
        DataError: a corpus cannot be read.
    """
    rows: list[Row] = []
    for source in getattr(data, split):
        if (rows_of_source := preview_rows(source)) is None:
            return None
        rows += rows_of_source
    utterances, rules = [], TextRules(data.text)
    for number, (row, duration) in enumerate(zip(rows, _durations(rows), strict=True), 1):
        item = Utterance(
            id=cell_text(row.values.get("id")) or f"{split}-{number} ({row.where})",
            audio_filepath=cell_text(row.values.get("audio_filepath")),
            duration=duration,
            text=clean_text(row.values.get("text")),
            language=cell_text(row.values.get("language")),
            keywords=tuple(cell_keywords(row.values.get("keywords"))),
        )
        if data.min_duration <= duration <= data.max_duration:
            utterances.append(rules(item))
    return utterances


def _durations(rows: Sequence[Row]) -> list[float]:
    """Seconds of each row; NaN if it is not known."""
    durations = [cell_seconds(row.values.get("duration")) for row in rows]
    unknown = [index for index, duration in enumerate(durations) if not duration or duration <= 0]
    remote = any(is_url(cell_text(rows[index].values.get("audio_filepath"))) for index in unknown)
    step = max(1, math.ceil(len(unknown) / (MAX_REMOTE if remote else MAX_HEADERS)))
    known = {index: seconds for index in unknown[::step] if (seconds := _seconds_of_file(rows[index])) > 0}
    mean = math.fsum(known.values()) / len(known) if known and step > 1 else math.nan
    measured = set(unknown[::step])
    return [
        duration if duration and duration > 0 else known.get(index, math.nan if index in measured else mean)
        for index, duration in enumerate(durations)
    ]


def _seconds_of_file(row: Row) -> float:
    """From the header, to the end of the file; 0 if it cannot be read."""
    path = cell_text(row.values.get("audio_filepath"))
    try:
        if is_fetched(path):
            with open_audio(path) as file:
                seconds = file.frames / file.samplerate
        else:
            seconds = float(soundfile.info(path).duration)
    except (OSError, RuntimeError, ValueError, TypeError, DataError):
        return 0.0
    return seconds - (cell_seconds(row.values.get("offset")) or 0.0)
