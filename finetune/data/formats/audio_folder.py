"""Reads folders of audio: each file with a .txt file of its words, or with subtitles or annotations beside it."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

from finetune.core.errors import DataError
from finetune.core.wording import count, verb
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.cells import cell_seconds
from finetune.data.formats import annotations
from finetune.data.formats.audio_names import AudioNames, is_audio
from finetune.data.formats.json_rows import check_rows
from finetune.data.formats.metadata_folder import check_splits
from finetune.data.formats.subtitles import parse_timed_text, without_speakers
from finetune.data.formats.tables import JSON, TABLES
from finetune.data.formats.unread_files import cure, most_probable, unread_beside, unread_in
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.text_lines import read_text

log = logging.getLogger(__name__)

_TIME = r"[\[(]?(?:\d+[:;])*\d+[.,:;]\d+[\])]?"
CLOCK = re.compile(r"\s*[\[(]?(?:\d+:)+\d+(?:[.,]\d+)?[\])]?(?:\s|$)")  # a line such as "[00:12] words"
# Such as "0.0\t2.16\twords" and "00:01.5 --> 00:03.2".
TWO_TIMES = re.compile(rf"\s*{_TIME}\s*(?:\t|-->|-|–|\s)\s*{_TIME}(?:\s|$)")
SBV = re.compile(r"\s*\d+(?::\d{2})+\.\d+,\d+(?::\d{2})+\.\d+\s*")  # 0:00:00.000,0:00:02.200 of YouTube
LRC = re.compile(r"\s*\[\d+:\d{2}(?:[.:]\d+)?\]")  # [00:12.50]words
NAMED = re.compile(r"(?:\S+\s+){1,3}\d+\.\d+\s+\d+(?:\.\d+)?\s")  # STM, CTM, and "sw2001A-0002 0.98 2.5 words"
_CLOCK = r"(?:\d+:)?\d{1,2}:[0-5]\d"
# A line such as "Speaker 1  0:12", "Mary (00:01:05):", "0:03" or "[00:01] - Mary" above the words, as Otter, Rev,
# YouTube and Happy Scribe write them.
HEADING = re.compile(
    rf"(?:.{{0,40}}(?:[(\[|]|\s\s|\t|[:,]\s|\w\s*\d+\s))?\s*(?P<time>{_CLOCK})(?:[.,]\d+)?"
    rf"(?:\s*[-–]+\s*{_CLOCK}(?:[.,]\d+)?)?[)\]]?(?::|\s+-\s.{{1,40}})?"
)
# A time in a line, such as "Ann: 0:12 words", "Ann (0:12) words" and "words #00:00:12-5#" of Rev, Sonix and f4.
STAMP = re.compile(rf".{{0,40}}?:\W{{1,6}}(?P<first>{_CLOCK})(?=\s+\S)|.*?[\[(#](?P<time>{_CLOCK})(?:[.,-]\d+)?[)\]#]")
LRS = re.compile(r"Text:\s*(?P<text>.+)\nConf:\s*\d.*", re.DOTALL)  # of LRS2 and LRS3, with times of words
TIMIT = re.compile(r"\s*\d+ \d{3,} (?P<text>.*\S)\s*")  # the first and last sample, then the words
HTK = re.compile(r"\s*\d+\s+\d+\s")  # a label of HTK, in units of 100 ns
TEXT = (".txt", ".TXT", ".lab", ".normalized.txt", ".original.txt")  # the preferred one first; the last two: LibriTTS
FEW = 20  # annotations whose audio is looked for in other folders
Owner = tuple[Path, str, int | None]  # the transcript of an audio file, its language and its channel
KINDS = [suffix for suffix in annotations.PARSERS if suffix != ".txt"]


def matches(path: Path) -> bool:
    """Whether a path is a folder."""
    return path.is_dir()


def read(folder: Path, media_dir: Path) -> Iterator[Row]:
    """The rows of a folder, with absolute paths of audio. If audio or transcript is missing, the audit reports the row.

    Raises:
        DataError: there is no audio, no transcript, or several splits.
    """
    check_splits(folder)
    links = _links(folder)
    _check(folder, links)
    if links:
        log.warning(f"{folder}: {links}")
    notes, owners = Counter[str](), dict[str, Owner]()
    yield from _of_annotations(folder, owners, notes)
    for place, name in _files(folder):
        if is_audio(name) and os.path.join(place.path, name) not in owners:
            if _has_preferred(place, name):
                notes["audio files are not read, because another one has the same name (.wav and .mp3)"] += 1
            else:
                yield from _of_text(place, name, notes)
        elif is_audio(name) and _text_beside(place, name):
            notes[".txt files are not read, because their audio has another transcript"] += 1
    audio_names = AudioNames()
    for place, name in _files(folder):
        stem = _stem_of_text(name)
        if stem is not None and stem not in place.audio:
            if (
                str(audio_names.find(stem, Path(place.path))) in owners
            ):  # L2-ARCTIC: transcript/a.txt, annotation/a.TextGrid
                notes[".txt files are not read, because their audio has another transcript"] += 1
                continue
            yield Row(str(folder / place.inner / name), {"audio_filepath": f"{place.path}/{stem}.wav", "text": None})
    annotations.log_notes(str(folder), notes)


@dataclass(frozen=True)
class _Place:
    """A directory: its absolute path, its path in the folder, its file names, and the stems of its audio files."""

    path: str
    inner: str
    names: frozenset[str]
    audio: frozenset[str]


def _files(folder: Path, inner: str = "") -> Iterator[tuple[_Place, str]]:
    """The files of a folder in the order of their paths, each with its directory. One directory is in memory."""
    path = os.path.join(os.path.abspath(folder), inner) if inner else os.path.abspath(folder)
    with os.scandir(path) as entries:
        shown = (entry for entry in entries if not entry.name.startswith("._"))  # what macOS adds on other disks
        kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in shown}
    names = frozenset(name for name, is_folder in kinds.items() if not is_folder)
    place = _Place(path, inner, names, frozenset(os.path.splitext(name)[0] for name in names if is_audio(name)))
    for name in sorted(kinds):
        if kinds[name]:
            yield from _files(folder, os.path.join(inner, name))
        else:
            yield place, name


def _links(folder: Path) -> str:
    """A note about the linked folders in a folder, which are not followed; "" if there are none."""
    links = sorted(
        path
        for inner, names, _ in os.walk(folder)
        for name in names
        if os.path.islink(path := os.path.join(inner, name))
    )
    if not links:
        return ""
    number = count(len(links), "linked folder")
    return (
        f"{number} {verb(len(links), 'is', 'are')} not followed, such as {links[0]}; give each as a corpus of its own"
    )


def _check(folder: Path, links: str) -> None:
    """Raises DataError if the folder has no audio, or no audio has a transcript."""
    first, number, has_transcript = "", 0, False
    for place, name in _files(folder):
        stem, suffix = os.path.splitext(name)
        if is_audio(name):
            first, number = first or os.path.join(place.inner, stem), number + 1
            has_transcript = has_transcript or any(f"{stem}{text}" in place.names for text in TEXT)
        has_transcript = has_transcript or (
            suffix.lower() in KINDS and (suffix.lower() != ".json" or annotations.matches(folder / place.inner / name))
        )
        if number and has_transcript:
            return
    tables = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (*JSON, *TABLES, ".parquet"))
    own_tables = [name for name in tables if not any((folder / name).with_suffix(s).exists() for s in AUDIO_SUFFIXES)]
    if tables := own_tables or ([] if number else tables):
        names = f"tables {', '.join(tables)}; give one of them, such as" if tables[1:] else f"table {tables[0]}; give"
        table = folder / most_probable(map(Path, tables))[0]
        if table.suffix.lower() == ".json":
            check_rows(table)
        raise DataError(f"{folder}: the folder has the {names} {table}")
    if not number and has_transcript and _has_audio_elsewhere(folder):
        return
    if not number:
        reason = links or f"suffixes: {', '.join(sorted(AUDIO_SUFFIXES))}"
        raise DataError(f"{folder}: no audio files in this folder ({reason})")
    raise DataError(
        f"{folder}: {count(number, 'audio file')}, but none has a transcript; add files such as {folder / first}.txt "
        f"or {folder / first}.srt, or a metadata.csv with the columns file_name and text{unread_in(folder)}"
    )


def _has_audio_elsewhere(folder: Path) -> bool:
    """Whether the audio of one of the first annotations is in a folder beside theirs, as wav/ beside stm/."""
    files = ((folder / place.inner / name) for place, name in _files(folder))
    names = AudioNames()
    for path in islice((path for path in files if path.suffix.lower() in KINDS), FEW):
        try:
            if any(known.exists for known in annotations.recordings(path, annotations.parse(path), names).values()):
                return True
        except (ValueError, DataError):  # reported when it is read
            continue
    return False


def _of_annotations(folder: Path, owners: dict[str, Owner], notes: Counter[str]) -> Iterator[Row]:
    """The rows of all subtitle and annotation files; adds the audio that has one to `owners`.

    If a recording, or a channel of it, has several files, the first kind of `annotations.PARSERS` is read.

    Raises:
        DataError: a recording has subtitles in several languages.
    """
    names = AudioNames()
    for kind in KINDS:
        for place, name in _files(folder):
            if os.path.splitext(name)[1].lower() != kind:
                continue
            path = folder / place.inner / name
            if kind == ".json" and not annotations.matches(path):
                continue
            if kind == ".json" and _text_beside(place, name):  # a person may have corrected the text
                notes["segments of .json files are not read, because their audio has a text file"] += 1
                continue
            try:
                annotation = annotations.parse(path)
            except (ValueError, DataError) as error:
                audio = names.find(path.stem, path.parent) or path.with_suffix(".wav")
                owners.setdefault(str(audio.absolute()), (path, "", None))
                fault = Finding("unreadable annotation", str(error).replace(str(path), path.name))
                yield Row(str(path), {"audio_filepath": str(audio.absolute()), "text": None}, fault)
                continue
            for row, recording in annotations.rows_of(path, annotation, names, notes):
                entry = (path, language := recording.language, channel := recording.channel)
                audio_path = str(row.values["audio_filepath"])
                owner, other, owned = owners.setdefault(audio_path, entry)
                if None not in (channel, owned):
                    owner, other, _ = owners.setdefault(f"{audio_path}::ch{channel}", entry)
                if owner == path:
                    yield row
                elif language and other and language != other and owner.suffix == path.suffix:
                    raise DataError(
                        f"{path.parent}: {Path(audio_path).name} has subtitles in several languages, {owner.name} and "
                        f"{path.name}; give the files of one, such as {path.parent}/*.{other}{path.suffix}"
                    )
                else:
                    notes[f"cues of {path.suffix} files are not read, because their audio has another transcript"] += 1


def _has_preferred(place: _Place, name: str) -> bool:
    """Whether the audio file is a copy of another one: the same name with a preferred suffix, and one .txt file."""
    stem, suffix = os.path.splitext(name)
    if is_audio(stem) and stem in place.names and _text_beside(place, name) is None:  # SA1.WAV.wav of TIMIT
        return True
    preferred = AUDIO_SUFFIXES[: AUDIO_SUFFIXES.index(suffix.lower())]
    return any(f"{stem}{other}" in place.names for each in preferred for other in (each, each.upper()))


def _text_beside(place: _Place, name: str) -> Path | None:
    """The .txt file of an audio file."""
    names = [os.path.splitext(name)[0] + suffix for suffix in TEXT]
    return next((Path(place.path, name) for name in names if name in place.names), None)


def _stem_of_text(name: str) -> str | None:
    """The name without suffix of the audio of a transcript; None for any other file."""
    suffix = max((suffix for suffix in TEXT if name.endswith(suffix)), key=len, default="")
    return name.removesuffix(suffix) if suffix else None


def _of_text(place: _Place, name: str, notes: Counter[str]) -> Iterator[Row]:
    """The row of an audio file with a .txt file, or the rows of its cues if the .txt file is subtitles or labels."""
    stem = os.path.splitext(name)[0]
    audio = os.path.join(place.path, name)
    if (transcript := _text_beside(place, name)) is None:
        if other := unread_beside(place.names, stem):
            kind = os.path.splitext(other)[1]
            notes[f"audio files have only a {kind} file, which is not read ({cure(other)})"] += 1
        yield Row(audio, {"audio_filepath": audio, "text": None})
        return
    try:
        text, fault = read_text(transcript), None
    except DataError as error:
        fault = Finding("unreadable annotation", str(error).replace(str(transcript), transcript.name))
        yield Row(str(transcript), {"audio_filepath": audio, "text": None}, fault)
        return
    if match := LRS.match(text):
        text = match["text"].partition("\n")[0]
        notes["confidences and times of words below a transcript (LRS) are removed"] += 1
    if transcript.suffix == ".lab" and HTK.match(text):
        fault = Finding("times in transcript", f"labels of HTK: {text[:60]!r}")
    elif has_times(text):
        try:
            for row, _ in annotations.rows_of(transcript, parse_timed_text(text), AudioNames(), notes):
                yield replace(row, values=row.values | {"audio_filepath": audio})
            return
        except ValueError as error:
            fault = Finding("times in transcript", f"not only subtitles or labels{error}: {text[:60]!r}")
    elif heading := heading_of(text) or table_line_of(text):
        fault = Finding("times in transcript", f"lines such as {heading!r} are not spoken")
    if {f"{stem}.PHN", f"{stem}.phn"} & place.names and (match := TIMIT.fullmatch(text)):
        text = match["text"]
        notes["numbers of samples before a transcript (TIMIT) are removed"] += 1
    text = text if fault else without_speakers(text, notes)
    yield Row(str(transcript), {"audio_filepath": audio, "text": text}, fault)


def has_times(text: str) -> bool:
    """Whether the lines of a transcript have times, as in subtitles and label files."""
    lines = [line for line in text.splitlines() if line.strip()]
    if any(TWO_TIMES.match(line) or SBV.fullmatch(line) for line in lines) or sum(map(bool, map(LRC.match, lines))) > 1:
        return True
    return len(lines) > 1 and (all(map(CLOCK.match, lines)) or all(map(NAMED.match, lines)))


def heading_of(text: str) -> str:
    """The first of the lines of a transcript that have a speaker or a time above the words; "" if there are none.

    There are at least two, each with a line of words below it, the first among the first two lines, in order of time.
    Or most lines have a time of the recording.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    stamps = [match for line in lines if (match := STAMP.match(line))]
    if 2 * len(stamps) > len(lines) > 1 and _in_order([match["first"] or match["time"] for match in stamps]):
        return stamps[0][0][:60].strip()
    headings = [(index, match["time"]) for index, line in enumerate(lines) if (match := HEADING.fullmatch(line))]
    if len(headings) < 2 or headings[0][0] > 1 or any(second[0] - first[0] < 2 for first, second in pairwise(headings)):
        return ""
    is_ordered = _in_order([time for _, time in headings])
    return lines[headings[0][0]][:60] if is_ordered and headings[-1][0] + 1 < len(lines) else ""


def _in_order(clocks: Sequence[str]) -> bool:
    times = [cell_seconds(clock) for clock in clocks]
    return all(first is not None and second is not None and first <= second for first, second in pairwise(times))


def table_line_of(text: str) -> str:
    """The first line of a table of segments: names of columns (CORAAL), or cells of which two are times (ELAN)."""
    lines = [line for line in text.splitlines() if line.strip()]
    cells = [line.split("\t") for line in lines]
    if len(cells) < 2 or not 3 <= len(cells[0]) <= len(cells[1]):
        return ""
    num_times = [sum(cell_seconds(cell) is not None for cell in row) for row in cells]
    num_words = [sum(map(bool, row)) - number for row, number in zip(cells, num_times, strict=True)]
    has_header = num_times[0] == 0 and num_times[1] > 1
    return lines[0][:60] if has_header or (min(num_times) > 1 and min(num_words) > 0) else ""
