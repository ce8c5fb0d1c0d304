"""Reads data directories of Kaldi: wav.scp, text and optionally segments, utt2spk and other files with one key a line.

The files are joined by their ids on disk, so they can have any order and size. Audio is named by paths only: commands
(`sph2pipe ... |`) are not run.
"""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.wording import count, verb
from finetune.data.audio_file import count_channels
from finetune.data.audio_paths import is_file
from finetune.data.cells import cell_number, shown
from finetune.data.formats.folders import FileFinder, is_known_folder, subfolders_with
from finetune.data.formats.lines import text_lines
from finetune.data.key_tables import KeyTables
from finetune.data.problems import Finding
from finetune.data.row import Row

log = logging.getLogger(__name__)

TABLES = ("wav.scp", "segments", "reco2file_and_channel", "utt2spk", "utt2lang", "utt2dur", "spk2gender")
ARCHIVE = re.compile(r".+:\d+(\[[\d:,]*\])?")  # FILE:BYTE or FILE:BYTE[FIRST:LAST]
SIDES = "ABCDEFGH"
BLANKS = " \t\v\f"
BLANK = re.compile(f"[{BLANKS}]+")


def matches(path: Path) -> bool:
    """Whether a folder, or the wav.scp in it, is a data directory, also an incomplete one."""
    if path.name == "wav.scp" and path.is_file():
        return True
    names = {name for name in ("wav.scp", "text", "segments", "utt2spk", "feats.scp") if is_file(path / name)}
    is_directory = "wav.scp" in names or len(names & {"text", "segments", "utt2spk", "feats.scp"}) > 1
    is_parent = path.is_dir() and not names and bool(subfolders_with(path, "wav.scp"))
    return (is_directory or is_parent) and not is_known_folder(path)


def read(path: Path, media_dir: Path) -> Iterator[Row]:
    """One row for each line of `text`, then a fault for each utterance that has no text.

    Raises:
        DataError: wav.scp or text is missing or cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    for name in ("wav.scp", "text"):
        if is_file(folder / name):
            continue
        if name == "wav.scp" and not is_file(folder / "text") and (subfolders := subfolders_with(folder, name)):
            names = ", ".join(each.name for each in subfolders[:10])
            raise DataError(
                f"{folder}: the Kaldi directories are its subfolders {names}; give one, such as {subfolders[0]}"
            )
        raise DataError(f"{folder / name} is missing; a Kaldi directory has wav.scp and text")
    tables = KeyTables()
    try:
        for name in TABLES:
            tables.load(_table(name), _pairs(folder / name) if is_file(folder / name) else ())
        tables.load_list("text", _pairs(folder / "text"))
        yield from _Directory(folder, tables).rows()
    finally:
        tables.close()


def _table(name: str) -> str:
    return name.replace(".", "_")


def _pairs(path: Path) -> Iterator[tuple[str, int, str]]:
    """The id, the line number and the rest of each line; in files of several fields, one space is between them."""
    has_fields = path.name not in ("text", "wav.scp")
    for number, line in text_lines(path):
        line = line.strip(BLANKS)
        if line:
            end = BLANK.search(line)
            value = line[end.end() :] if end else ""
            yield line[: end.start()] if end else line, number, BLANK.sub(" ", value) if has_fields else value


@dataclass(frozen=True)
class _Joined:
    """The lines of one utterance in the files of a directory: number, value, and number of a contradicting line."""

    key: str
    recording: str | None
    segment: tuple[int | None, str | None, int | None]
    wav: tuple[int | None, str | None, int | None]
    side: str | None
    duration: str | None
    speaker: str | None
    language: str | None
    gender: str | None


class _Directory:
    """The rows of one data directory."""

    def __init__(self, folder: Path, tables: KeyTables) -> None:
        self.folder, self.tables = folder, tables
        self.has_segments = is_file(folder / "segments")
        self.files = FileFinder(folder)
        self.has_speakers = self._any("utt2spk", "key <> value")  # else each is its own, so they are not known
        self.from_zero = self._any("reco2file_and_channel", "value LIKE '% 0'")

    def _any(self, table: str, condition: str) -> bool:
        return bool(next(self.tables.query(f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {condition})"))[0])

    def rows(self) -> Iterator[Row]:
        path = str(self.folder / "text")
        for line, text, joined in self._select("SELECT line, key, value FROM text"):
            row = self._row(joined, f"{path}:{line}", text)
            if not text and row.fault is None:
                detail = "the line has an id and no words; fix it, or remove it with utils/fix_data_dir.sh of Kaldi"
                row = Row(row.where, row.values, Finding("empty transcript", detail))
            yield row
        name = "segments" if self.has_segments else "wav.scp"
        without = f"SELECT line, key, NULL AS value FROM {_table(name)} WHERE key NOT IN (SELECT key FROM text)"
        for line, _, joined in self._select(without):
            row = self._row(joined, f"{self.folder / name}:{line}", None)
            detail = f"text has no line with the id {joined.key!r}"
            yield Row(row.where, row.values, row.fault or Finding("empty transcript", detail))
        if self.has_segments:
            unused = "key NOT IN (SELECT substr(value, 1, instr(value || ' ', ' ') - 1) FROM segments)"
            (number,) = next(self.tables.query(f"SELECT count(*) FROM wav_scp WHERE {unused}"))
            if number:
                log.info(
                    f"{self.folder}: {count(number, 'recording')} of wav.scp "
                    f"{verb(number, 'has no line in segments and is', 'have no line in segments and are')} not used"
                )

    def _select(self, utterances: str) -> Iterator[tuple[int, str | None, _Joined]]:
        """Utterances with what all files say about them."""
        recording = "substr(s.value, 1, instr(s.value || ' ', ' ') - 1)" if self.has_segments else "u.key"
        columns, joins = list[str](), list[str]()
        for name, alias, key, parts in (
            ("segments", "s", "u.key", "line value other"),
            ("wav.scp", "w", recording, "line value other"),
            ("reco2file_and_channel", "r", recording, "value"),
            ("utt2dur", "d", "u.key", "value"),
            ("utt2spk", "p", "u.key", "value"),
            ("utt2lang", "l", "u.key", "value"),
            ("spk2gender", "g", "p.value", "value"),
        ):
            exists = is_file(self.folder / name)
            columns += [f"{alias}.{part}" if exists else "NULL" for part in parts.split()]
            if exists:
                joins.append(f"LEFT JOIN {_table(name)} {alias} ON {alias}.key = {key}")
        statement = (
            f"SELECT u.line, u.value, u.key, {recording}, {', '.join(columns)} "
            f"FROM ({utterances}) u {' '.join(joins)} ORDER BY u.line"
        )
        for line, value, key, reco, *rest in self.tables.query(statement):
            yield line, value, _Joined(key, reco, (*rest[:3],), (*rest[3:6],), *rest[6:])

    def _row(self, joined: _Joined, where: str, text: str | None) -> Row:
        values: dict[str, object] = {"id": joined.key, "audio_filepath": None, "text": text or None}
        speaker = joined.speaker if self.has_speakers else None
        columns = {"speaker": speaker, "language": joined.language, "gender": joined.gender}
        values |= {key: value for key, value in columns.items() if value}
        audio = self._audio(joined)
        times = _times(joined, self.has_segments) if isinstance(audio, str) else audio
        if isinstance(audio, str):
            values["audio_filepath"] = audio
        if isinstance(times, Finding):
            return Row(where, values, times)
        if joined.side and isinstance(audio, str):
            file, channel = self._channel(joined.side, audio)
            if isinstance(channel, Finding):
                return Row(where, values, channel)
            values |= {"recording": file} | ({} if channel is None else {"channel": channel})
        elif self.has_segments:
            values["recording"] = joined.recording
        return Row(where, values | times)

    def _audio(self, joined: _Joined) -> str | Finding:
        """The path of the recording of an utterance, or why it cannot be used."""
        lines = [("segments", *joined.segment), ("wav.scp", *joined.wav)]
        if self.has_segments and joined.segment[0] is None:
            return Finding("missing audio", f"segments has no line with the id {joined.key!r}")
        for name, line, _, other in lines:
            if other is not None:
                detail = f"{name}:{line} and {name}:{other} differ for the same id; remove one of them"
                return Finding("duplicate id", detail)
        line, path, _ = joined.wav
        if line is None:
            return Finding("missing audio", f"wav.scp has no line with the id {joined.recording!r}")
        where = f"wav.scp:{line}"
        if not path or path == "-":
            return Finding("missing audio", f"{where}: the line has no path")
        if path.endswith("|") or path.startswith("|"):
            advice = "commands are not run; write the path of an audio file, converted with the command if it must be"
            return Finding("unreadable audio", f"{where}: {shown(path)} is a command: {advice}")
        file = self.files.find(path)
        if file is None and ARCHIVE.fullmatch(path):
            advice = "extract it with wav-copy of Kaldi, and write the paths of the files"
            return Finding("unreadable audio", f"{where}: {shown(path)} is a part of a Kaldi archive; {advice}")
        return file or path

    def _channel(self, value: str, path: str) -> tuple[str, int | Finding | None]:
        """The name of the recording and the channel of a line of reco2file_and_channel."""
        name, _, side = value.rpartition(" ")
        if side.upper() in SIDES and len(side) == 1:
            channel = SIDES.index(side.upper())
        elif side.isdecimal() and (self.from_zero or side != "0"):
            channel = int(side) - (not self.from_zero)
        else:
            detail = f"reco2file_and_channel has {shown(value)}; write the name of the file and A or B"
            return name, Finding("invalid channel", detail)
        return name, None if channel and _num_channels(path) == 1 else channel


@lru_cache(1024)
def _num_channels(path: str) -> int | None:
    try:
        return count_channels(path)
    except DataError:  # the audit reports the file
        return None


def _times(joined: _Joined, has_segments: bool) -> dict[str, object] | Finding:
    """Offset and duration of an utterance; of a whole recording, the duration that utt2dur states."""
    if not has_segments:
        return {"duration": joined.duration} if joined.duration else {}
    line, value, _ = joined.segment
    cells = (value or "").split()
    times = [cell_number(cell) for cell in cells[1:3]]
    start, end = times if len(times) == 2 else (None, None)
    if start is None or end is None or start < 0 or len(cells) > 4 or not math.isfinite(end):
        detail = f"segments:{line} is {shown(value)}; write the recording, the start and the end in seconds"
        return Finding("invalid offset", detail)
    channel = {"channel": cells[3]} if len(cells) == 4 else {}
    if end == -1:  # the end of the recording
        return {"offset": start, **channel}
    if end <= start:
        detail = f"segments:{line}: the end at {end:g} s is not after the start at {start:g} s"
        return Finding("contradictory segment", detail)
    return {"offset": start, "duration": round(end - start, 9), **channel}
