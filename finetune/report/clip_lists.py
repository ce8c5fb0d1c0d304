"""Selects the clips of a report, and embeds their audio in the page up to a limit."""

import base64
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.data.audio_state import has_bytes
from finetune.data.byte_range import is_fetched
from finetune.data.snippet import mp3
from finetune.metrics.alignment import align
from finetune.metrics.result_rows import SuspiciousReference, UtteranceResult
from finetune.metrics.word_changes import columns
from finetune.report.clip_errors import clip_errors, gain
from finetune.report.clips import ClipView, Player, cells, direction
from finetune.report.wording import percent

log = logging.getLogger(__name__)

SHOWN = 25  # clips in each list
EMBEDDED_BYTES = 4_000_000  # of audio in a page; the audio of further clips is linked
EMBEDDED_SECONDS = 30.0  # the audio of longer clips is linked
Row = UtteranceResult | SuspiciousReference


def clip_lists(
    all_rows: Sequence[UtteranceResult],
    suspicious: Sequence[SuspiciousReference],
    preset: str,
    folder: Path,
    embedded_bytes: int,
) -> dict[str, list[ClipView]]:
    """The clips of test with the largest gain, the largest loss, most errors, words but no speech, or a suspicious
    reference; and the clips of all sets that are written in another language. Errors are those of `clip_errors`.

    Args:
        all_rows: rows of `utterances.jsonl`; a list contains each sentence once.
        suspicious: rows of `suspicious.jsonl`, in the order of the file.
        preset: normalizer of the aligned words.
        folder: folder of the page; links to audio are relative to it.
        embedded_bytes: limit of embedded audio in the page.
    """
    audio = _Audio(folder, embedded_bytes)
    return {
        name: [_view(f"{name}-{number}", row, preset, audio) for number, row in enumerate(selected, 1)]
        for name, selected in choose_clips(all_rows, suspicious).items()
    }


def choose_clips(
    all_rows: Sequence[UtteranceResult], suspicious: Sequence[SuspiciousReference]
) -> dict[str, Sequence[Row]]:
    """The rows of each list of `clip_lists`."""
    rows = [row for row in all_rows if row.set == "test"]
    by_gain = sorted(rows, key=gain, reverse=True)
    by_errors = sorted(rows, key=lambda row: -clip_errors(row)[1])
    return {
        "fixed": _distinct(row for row in by_gain if gain(row) > 0),
        "broken": _distinct(row for row in reversed(by_gain) if gain(row) < 0),
        "worst": _distinct(row for row in by_errors if clip_errors(row)[1]),
        "unspoken": [row for row in by_errors if {"unspoken"} & {*row.flags, *row.flags_base}][:SHOWN],
        "language": _distinct(row for row in all_rows if row.written_language),
        "suspicious": suspicious[:SHOWN],
    }


def _distinct(rows: Iterable[UtteranceResult]) -> list[UtteranceResult]:
    """The first row of each sentence, up to `SHOWN`."""
    sentences: dict[str, UtteranceResult] = {}
    for row in rows:
        sentences.setdefault(row.text or row.id, row)  # clips with empty references are different clips
    return list(sentences.values())[:SHOWN]


def _view(anchor: str, row: Row, preset: str, audio: "_Audio") -> ClipView:
    base, adapted = (align([row.text], [text], preset)[0] for text in (row.pred_text_base, row.pred_text))
    texts = [("reference", row.text), ("base", row.pred_text_base), ("adapted", row.pred_text)]
    facts, flags = [f"{row.duration:.1f} s"], list[str]()
    if isinstance(row, SuspiciousReference):
        texts.append(("CTC draft", row.pred_text_ctc))
        facts.append(f"suspicion {row.suspicion:.2f}")
    else:
        flags = row.flags
        facts += [row.speaker] if row.speaker else []
        if row.written_language:
            expected = row.target_language or row.language
            facts.append(f"{row.set}: {expected} asked for, {row.written_language} written")
        facts.append(_errors(row))
    return ClipView(
        id=row.id,
        anchor=anchor,
        facts=facts,
        direction=direction(row.text),
        columns=[cells(column) for column in columns(base, adapted)],
        texts=texts,
        flags=flags,
        player=audio.player(row, anchor),
    )


def _errors(row: UtteranceResult) -> str:
    if row.target_language:
        base, adapted = (percent(1 - error) for error in clip_errors(row))
        return f"chrF {base} → {adapted}"
    return f"errors {row.errors_base} → {row.errors} in {count(row.words, 'word')}"


class _Audio:
    """Players of a page; the audio of each clip is embedded once."""

    def __init__(self, folder: Path, embedded_bytes: int) -> None:
        self.folder, self.bytes_left = folder.resolve(), embedded_bytes
        self.anchors: dict[tuple[str, float, int | None], str] = {}

    def player(self, row: Row, anchor: str) -> Player | None:
        """The player of a clip; None if the audio is missing or unreadable."""
        path, start, seconds, channel = row.audio_filepath, row.offset, row.duration, row.channel
        if earlier := self.anchors.get((path, start, channel)):
            return Player("", earlier)
        if not has_bytes(path):
            return None
        if seconds > EMBEDDED_SECONDS or not self.bytes_left:
            if is_fetched(path):  # a browser cannot open it
                return None
            source = f"{quote(os.fsencode(os.path.relpath(path, self.folder)))}#t={start:g},{start + seconds:g}"
        else:
            try:
                sound = mp3(path, start, seconds, channel)
            except DataError as error:
                log.warning("the report has no audio for clip %s: %s", row.id, error)
                return None
            self.bytes_left = max(0, self.bytes_left - len(sound))
            source = f"data:audio/mpeg;base64,{base64.b64encode(sound).decode()}"
        self.anchors[path, start, channel] = anchor
        return Player(source)
