"""Decodes the part of a file that a row is, and compares it with the times that the row states."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.data.audio import AudioInfo, inspect_audio
from finetune.data.audio_readers import TOLERANCE
from finetune.data.cells import cell_channel, cell_seconds, cell_text, no_number, shown
from finetune.data.manifest import VERSION_KEY
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.video_delay import shifts

Inspect = Callable[[str, float, float | None, int | None, float], AudioInfo]


@dataclass(frozen=True)
class RowAudio:
    """The part of a file that a row is, and its properties. `already_cut`: the file as a whole is the segment."""

    offset: float
    channel: int | None
    info: AudioInfo
    already_cut: bool = False


def inspect_row(row: Row, max_duration: float = math.inf, inspect: Inspect = inspect_audio) -> RowAudio | Finding:
    """Decodes the row's audio, unless it has more than `max_duration` seconds. Returns a Finding if it is unusable.

    Args:
        row: a row of a corpus.
        max_duration: in seconds.
        inspect: `inspect_audio`, or a function with the same arguments, results and errors that remembers.
    """
    if row.fault is not None:
        return row.fault
    path = cell_text(row.values.get("audio_filepath"))
    if not path:
        return Finding("missing audio", "the row has no path of an audio file")
    stated_offset, stated = row.values.get("offset"), row.values.get("duration")
    offset = 0.0 if no_number(stated_offset) else cell_seconds(stated_offset)
    if offset is None or offset < 0:
        return Finding("invalid offset", f"offset is {shown(stated_offset)}")
    duration = None if no_number(stated) else cell_seconds(stated)
    if not no_number(stated) and (duration is None or duration <= 0):
        return Finding("invalid duration", f"duration is {shown(stated)}")
    is_segment = not no_number(stated_offset)
    try:
        channel = cell_channel(row.values.get("channel"))
    except ValueError as error:
        return _without_channel(row, str(error), max_duration, inspect)
    try:
        info = inspect(path, offset, duration if is_segment else None, channel, max_duration)
    except DataError as error:
        inspect_file = partial(inspect, path, 0.0, None, channel, max_duration)
        return (is_segment and _outside(offset, duration, channel, inspect_file)) or _unreadable(error)
    if not is_segment and duration is not None and _differs(duration, info.duration):
        return Finding("wrong duration", f"stated {shown(stated)} s, but the file has {info.duration:.2f} s")
    return RowAudio(offset, channel, info)


def _unreadable(error: DataError) -> Finding:
    text = str(error)
    detail = text if len(text) <= 500 else f"{text[:250]} ... {text[-250:]}"  # with a path of any length
    if "does not exist; the file has" in text:
        return Finding("invalid channel", detail)
    if "too short: " in text:
        return Finding("audio too short", detail)
    return Finding("missing audio" if "no such file" in text else "unreadable audio", detail)


def _without_channel(row: Row, reason: str, max_duration: float, inspect: Inspect) -> RowAudio | Finding:
    """The row's audio if the file has one channel, so that the column has another meaning, such as "phone"."""
    if isinstance(row.values.get("channel"), list | tuple | dict):
        return Finding("invalid channel", reason)
    if no_number(row.values.get("offset")):
        bare = replace(row, values={key: value for key, value in row.values.items() if key != "channel"})
    else:
        bare = replace(row, values=row.values | {"channel": None})
    audio = inspect_row(bare, max_duration, inspect)
    if isinstance(audio, RowAudio) and audio.info.channels > 1:
        return Finding("invalid channel", f"{reason}; the file has {count(audio.info.channels, 'channel')}")
    return audio


def _differs(stated: float, measured: float) -> bool:
    """Whether a stated duration belongs to other audio: more than rounding, padding of a codec and 2 % explain."""
    rounding = 1.0 if stated == int(stated) else 0.3
    return abs(stated - measured) > rounding + 0.02 * measured


def _outside(
    offset: float, duration: float | None, channel: int | None, inspect_file: Callable[[], AudioInfo]
) -> RowAudio | Finding | None:
    """The whole file if it is already cut to the segment; a Finding if the segment is outside; None otherwise."""
    try:
        info = inspect_file()
    except DataError:
        return None
    end = offset + (duration or 0.0)
    if end <= info.duration + TOLERANCE and offset < info.duration:
        return None
    if duration is not None and abs(duration - info.duration) <= TOLERANCE + 0.01 * info.duration:
        return RowAudio(0.0, channel, info, already_cut=True)
    return Finding("segment outside the audio", f"{offset:g} to {end:g} s, but the file has {info.duration:.2f} s")


def time_warnings(row: Row, audio: RowAudio) -> list[Finding]:
    """Warnings about the times of a usable row, and about samples that differ from those of a manifest."""
    findings, measured = list[Finding](), audio.info.duration
    if audio.already_cut:
        findings.append(
            Finding("audio already cut", f"the file has {measured:.2f} s; its times lie in another recording")
        )
    stated = cell_seconds(row.values.get("duration"))
    if stated is not None and abs(stated - measured) > TOLERANCE + 0.01 * measured:
        findings.append(Finding("duration corrected", f"stated {stated:g} s, measured {measured:.2f} s"))
    digest = row.values.get("audio_digest") if VERSION_KEY in row.values else None
    if digest and digest != audio.info.digest:
        findings.append(Finding("audio changed", "the samples are not those for which the manifest was written"))
    if not (no_number(row.values.get("offset")) or VERSION_KEY in row.values or audio.already_cut):
        findings += shifts(cell_text(row.values.get("audio_filepath")), audio.offset + measured)
    return findings


def stated_audio(row: Row) -> RowAudio:
    """The audio of a row as its values state it. Nothing is read."""
    try:
        channel = cell_channel(row.values.get("channel"))
    except ValueError:
        channel = None
    info = AudioInfo(cell_seconds(row.values.get("duration")) or 0.0, 0, False, "")
    return RowAudio(cell_seconds(row.values.get("offset")) or 0.0, channel, info)
