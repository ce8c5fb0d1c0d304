"""Reads subtitles and annotation files: each cue or interval is a segment of the audio beside them."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.languages import row_language
from finetune.data.audio_file import count_channels
from finetune.data.cells import cell_channel
from finetune.data.formats.audio_names import AudioNames
from finetune.data.formats.cues import Annotation, Cue, order_notes
from finetune.data.formats.elan import parse_elan
from finetune.data.formats.nist import parse_ctm, parse_stm
from finetune.data.formats.subtitles import parse_subtitles, parse_timed_text
from finetune.data.formats.textgrid import parse_textgrid
from finetune.data.formats.whisper import is_whisper, parse_whisper
from finetune.data.local_speakers import LOCAL
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.text_lines import read_text
from finetune.data.video_delay import video_delay

log = logging.getLogger(__name__)

PARSERS: dict[str, Callable[[str], Annotation]] = {  # of several files of one recording, the first kind is read
    ".textgrid": parse_textgrid,
    ".eaf": parse_elan,
    ".stm": parse_stm,
    ".vtt": parse_subtitles,
    ".srt": parse_subtitles,
    ".ctm": parse_ctm,
    ".json": parse_whisper,
    ".txt": parse_timed_text,
}
MAX_BYTES = 200_000_000
MAX_NOTES = 20  # lines of the log, for files with many tiers
OTHER_TAGS = ("sdh", "cc", "forced", "auto", "orig")  # talk.en.sdh.srt
CHANNEL_TAG = re.compile(r"ch(\d+)|(left|right)", re.IGNORECASE)  # call.ch0.srt, as `finetune transcribe` names it


def matches(path: Path) -> bool:
    """Whether a path is a subtitle or annotation file.

    A .txt file is one only if all of it is subtitles or labels, a .json file if it is one object with segments.
    """
    if path.suffix.lower() == ".json":
        return path.is_file() and is_whisper(path, MAX_BYTES)
    if path.suffix.lower() == ".txt" and path.is_file():
        try:
            parse(path)
        except (DataError, ValueError):
            return False
        return True
    return path.suffix.lower() in PARSERS and path.is_file()


def read(path: Path, media_dir: Path) -> Iterator[Row]:
    """The rows of one file, with absolute paths of audio.

    Raises:
        DataError: the file is damaged, or no audio belongs to it.
    """
    try:
        annotation = parse(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    names, notes = AudioNames(), Counter[str]()
    audio_of = recordings(path, annotation, names)
    if not any(recording.exists for recording in audio_of.values()):
        expected_names = [name or path.stem for name in audio_of]
        raise DataError(
            f"{path}: no audio file for it: {', '.join(expected_names[:3])} with a suffix such as .wav or .mp4, in "
            f"{path.parent.absolute()} or in a folder `audio` or `wav` there{_of_a_channel(path, names)}"
        )
    for row, _ in rows_of(path, annotation, names, notes):
        yield row
    log_notes(str(path), notes)


def parse(path: Path) -> Annotation:
    """The cues of a file.

    Raises:
        DataError: the file cannot be read.
        ValueError: it is damaged; the message has the position.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES / 1e6:g} MB")
    text = read_text(path)
    try:
        return PARSERS[path.suffix.lower()](text)
    except ValueError as error:
        raise ValueError(f"{path}{error}") from error


@dataclass(frozen=True)
class Recording:
    """The audio of a recording; the language and channel that the name of its transcript states; if it is mono."""

    audio: Path
    language: str = ""
    exists: bool = True
    channel: int | None = None

    @cached_property
    def is_mono(self) -> bool:
        try:
            return count_channels(self.audio) == 1
        except DataError:  # the audit reports the file
            return False


def recordings(path: Path, annotation: Annotation, names: AudioNames) -> dict[str, Recording]:
    """The audio of each recording that a file names ("" for the only one)."""
    stated = dict.fromkeys(cue.recording for cue in annotation.cues)
    audio_paths = {name: audio for name in stated if name and (audio := names.find(name, path.parent))}
    result = {name: Recording(audio) for name, audio in audio_paths.items()}
    for name in stated:
        if name not in result:
            other = _of_file(path, annotation, names) if len(stated) == 1 else None
            result[name] = other or Recording(path.parent / f"{name or path.stem}.wav", exists=False)
    return result


def _of_file(path: Path, annotation: Annotation, names: AudioNames) -> Recording | None:
    """The audio with the name of the transcript, also without a language or channel, or that the file states."""
    stem, tags = path.stem, list[str]()
    while stem:
        if audio := names.find(stem, path.parent):
            channels = [match[1] or match[2] for match in map(CHANNEL_TAG.fullmatch, tags) if match]
            language = next((tag for tag in tags if row_language(tag)), "")
            return Recording(audio, language, channel=cell_channel(channels[0]) if channels else None)
        stem, _, tag = stem.rpartition(".")
        if not (row_language(tag) or tag.lower() in OTHER_TAGS or CHANNEL_TAG.fullmatch(tag)):
            break
        tags.insert(0, tag)
    return next((Recording(audio) for name in annotation.media if (audio := names.find(name, path.parent))), None)


def _of_a_channel(path: Path, names: AudioNames) -> str:
    """What to do if the name of a transcript begins with that of a recording, as call.agent.vtt beside call.wav."""
    parts = re.split(r"([._ -])", path.stem)
    for end in range(len(parts) - 2, 0, -2):
        stem = "".join(parts[:end])
        if audio := names.find(stem, path.parent):
            name = f"{stem}.ch0{path.suffix}"
            return f"; if it is the transcript of one channel of {audio.name}, name it {name} (or ch1 for the second)"
    return ""


def rows_of(
    path: Path, annotation: Annotation, names: AudioNames, notes: Counter[str]
) -> Iterator[tuple[Row, Recording]]:
    """A row for each cue of a file, and its recording; adds to `notes` what was left out."""
    notes.update(annotation.notes)
    notes.update(order_notes(annotation.cues))
    known = recordings(path, annotation, names)
    for recording in known.values():
        if delay := video_delay(recording.audio):
            log.warning(
                f"{path}: the audio of {recording.audio.name} begins {delay:.2f} s after its video, and times count "
                f"from the audio; if those of the transcript count from the video, subtract {delay:.2f} s"
            )
    missing = any(not recording.exists for recording in known.values()) and _of_a_channel(path, names)
    for cue in annotation.cues:
        recording = known[cue.recording]
        if cue.channel is None:
            cue = replace(cue, channel=recording.channel)
        if cue.channel and recording.is_mono:
            notes["channels of files with one channel have no effect"] += 1
            cue = replace(cue, channel=None)
        row = _row(path, cue, recording)
        if missing and not recording.exists:
            row = replace(row, fault=Finding("missing audio", f"{recording.audio.name}: no such file{missing}"))
        yield row, recording


def log_notes(source: str, notes: Counter[str]) -> None:
    """Says what was left out, with its number."""
    for note, number in notes.most_common(MAX_NOTES):
        if number:
            log.info("%s: %s: %d", source, note, number)
    if len(+notes) > MAX_NOTES:
        log.info("%s: and %d more notes", source, len(+notes) - MAX_NOTES)


def _row(path: Path, cue: Cue, recording: Recording) -> Row:
    fault = None
    if cue.end <= cue.start or cue.start < 0:
        fault = Finding("contradictory segment", f"it ends at {cue.end:g} s and starts at {cue.start:g} s")
    values: dict[str, object] = {
        "audio_filepath": os.path.abspath(recording.audio),
        "offset": cue.start,
        "duration": round(cue.end - cue.start, 6),
        "text": cue.text,
    }
    if cue.speaker:
        values["speaker"] = f"{recording.audio.stem}-{cue.speaker}" if LOCAL.fullmatch(cue.speaker) else cue.speaker
    if cue.channel is not None:
        values["channel"] = cue.channel
    if recording.language:
        values["language"] = recording.language
    return Row(f"{path}{cue.where}", values | cue.extra, fault)
