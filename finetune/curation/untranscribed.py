"""Untranscribed audio: a manifest, a folder or an audio file becomes clips; what cannot be used is set aside."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.core.data_config import DataSection
from finetune.core.errors import DataError
from finetune.data.audio import load_audio, stream_audio
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.audit import audit
from finetune.data.byte_range import is_url
from finetune.data.cells import cell_text, clean_text
from finetune.data.corpora import read_corpus
from finetune.data.formats import audio_folder
from finetune.data.formats.audio_names import is_audio
from finetune.data.formats.registry import find_format
from finetune.data.manifest import Utterance
from finetune.data.row import Row
from finetune.data.source_paths import expand, is_pattern
from finetune.inference.longform import speech_windows
from finetune.inference.vad import energy_vad

MIN_DURATION: float = DataSection.model_fields["min_duration"].default


@dataclass(frozen=True)
class SetAside:
    """A clip, or a row of the source, that is not used, with its machine transcripts if there are any."""

    id: str
    audio_filepath: str
    offset: float
    duration: float
    reason: str
    pred_text: str = ""
    pred_text_ctc: str = ""
    agreement: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Untranscribed:
    """The clips of a source.

    Attributes:
        clips: their texts are empty.
        aside: rows whose audio cannot be used.
        transcribed: number of rows that have a transcript already; they are left out.
    """

    clips: list[Utterance]
    aside: list[SetAside]
    transcribed: int


def count_reasons(aside: Iterable[SetAside]) -> dict[str, int]:
    """The number of clips that were set aside by reason, the most frequent first."""
    return dict(Counter(row.reason.split(":")[0] for row in aside).most_common())


def read_untranscribed(source: str, media: Path, max_duration: float) -> Untranscribed:
    """Reads untranscribed audio. Recordings of more than `max_duration` seconds are cut at pauses.

    Args:
        source: a manifest, a table or another corpus of `data.train` with or without texts, a folder of audio, an audio
            file, or a pattern of these.
        media: folder for audio that is embedded in a corpus.
        max_duration: longest clip in seconds.

    Raises:
        DataError: the source is missing or empty, has no audio, is of another format, or has transcripts in all rows.
    """
    every = list(_rows(source, media))
    rows = [row for row in every if not clean_text(row.values.get("text"))]
    if not rows:
        raise DataError(f"{source}: each row has a transcript already; remove the texts to replace them")
    bare = [replace(row, values=row.values | {"text": ""}) for row in rows]
    audited = audit(
        bare,
        min_duration=MIN_DURATION,
        max_duration=float("inf"),
        max_chars_per_second=float("inf"),
        special_tokens=(),
        wordless="keep",
    )
    paths = {row.where: cell_text(row.values.get("audio_filepath")) for row in rows}
    aside = [
        SetAside(problem.id, paths.get(problem.where, ""), 0.0, 0.0, f"{problem.kind}: {problem.detail}")
        for problem in audited.dropped
    ]
    clips = list[Utterance]()
    for item in audited.kept:
        if item.duration <= max_duration:
            clips.append(item)
            continue
        try:
            clips += _windows(item, max_duration)
        except DataError as error:
            aside.append(SetAside(item.id, item.audio_filepath, item.offset, item.duration, str(error)))
    return Untranscribed(clips, aside, len(every) - len(rows))


def _rows(source: str, media: Path) -> Iterator[Row]:
    """The rows of a source. A folder of audio gives whole files, also without transcripts beside them."""
    if is_pattern(source):
        for name in expand(source):
            yield from _rows(name, media)
        return
    path = Path(source).expanduser()
    if not is_url(source) and path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES:
        yield Row(source, {"audio_filepath": str(path.absolute())})
    elif not is_url(source) and path.is_dir() and _is_audio_folder(path):
        names = sorted(os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files)
        files = [os.path.abspath(name) for name in names if is_audio(name)]
        if not files:
            raise DataError(f"{source}: no audio files in this folder (suffixes: {', '.join(sorted(AUDIO_SUFFIXES))})")
        yield from (Row(name, {"audio_filepath": name}) for name in files)
    else:
        yield from read_corpus(source, media, text_required=False)


def _is_audio_folder(path: Path) -> bool:
    known = find_format(path)
    return known is None or known.matches is audio_folder.matches


def _windows(item: Utterance, max_duration: float) -> list[Utterance]:
    """The parts of a recording around speech. Raises DataError for audio that cannot be read."""
    is_complete_file = item.offset == 0
    blocks = (
        stream_audio(item.audio_filepath, item.channel)
        if is_complete_file
        else [load_audio(item.audio_filepath, item.offset, item.duration, item.channel)]
    )
    windows = speech_windows(energy_vad(blocks), max_duration)
    inside = [(start, min(end, item.duration)) for start, end in windows]  # a row can be the first part of a file
    return [
        replace(
            item,
            id=f"{item.id}-{number:05d}",
            offset=round(item.offset + start, 3),
            duration=round(end - start, 3),
            extra=item.extra | {"recording": item.id},
            audio_digest="",
        )
        for number, (start, end) in enumerate(inside, 1)
        if end - start >= MIN_DURATION
    ]
