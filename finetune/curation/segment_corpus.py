"""Segments the recordings of a corpus and writes the clips, what was set aside, and a summary."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import soundfile

from finetune.core.array_job import Shard
from finetune.core.errors import DataError
from finetune.core.files import write_json
from finetune.core.options import SegmentOptions
from finetune.core.progress import task
from finetune.core.wording import count
from finetune.curation.recordings import Recording
from finetune.curation.segment import Piece, Segmented, segment_audio
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.manifest import Utterance, write_manifest
from finetune.metrics.sclite import write_rows
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)

UNREADABLE = "audio cannot be read"


@dataclass(frozen=True)
class SegmentFiles:
    """Where the results are written; clips stay parts of their recordings without a folder for `audio`."""

    clips: Path
    set_aside: Path
    summary: Path
    audio: Path | None

    @classmethod
    def of(cls, folder: Path, shard: Shard | None = None, cut: bool = False) -> "SegmentFiles":
        """The files in a folder; those of a part of an array job have its number in their names."""
        end = "" if shard is None else f"-{shard.number:05d}-of-{shard.count:05d}"
        clips, set_aside, summary = (folder / f"{name}{end}" for name in ("clips", "set_aside", "summary"))
        audio = folder / "audio" if cut else None
        return cls(clips.with_suffix(".jsonl"), set_aside.with_suffix(".jsonl"), summary.with_suffix(".json"), audio)


@dataclass(frozen=True)
class SegmentSummary:
    """Totals; times are in seconds.

    Attributes:
        unusable: recordings without readable audio or without words.
        short_clips: clips shorter than `SegmentOptions.min_duration`.
        set_aside_words: number of words by reason.
        seconds_without_text: sound like speech that the text does not have.
    """

    recordings: int
    unusable: int
    seconds: float
    clips: int
    clip_seconds: float
    short_clips: int
    words: int
    clip_words: int
    set_aside_words: dict[str, int]
    seconds_without_text: float


def segment_recordings(
    model: SpeechModel,
    recordings: Sequence[Recording],
    options: SegmentOptions,
    files: SegmentFiles,
    keep_below: float = 0.0,
) -> SegmentSummary:
    """Segments every recording and writes the files. A recording that cannot be read is set aside as a whole.

    Recordings of at most `keep_below` seconds are not segmented: they are in the clips as they are.
    """
    clips, aside, results = list[Utterance](), list[dict[str, object]](), list[Segmented]()
    for number, recording in enumerate(recordings, 1):
        if short := _short(recording, keep_below):
            clips.append(short)
            continue
        name = f"{recording.utterance.id} ({number} of {len(recordings)})"
        result = _segment(model, recording, options, name)
        rows = [_clip_row(recording.utterance, piece, n) for n, piece in enumerate(result.clips, 1)]
        clips += [_cut(row, files.audio) for row in rows] if files.audio else rows
        aside += [_aside_row(recording.utterance, piece) for piece in result.aside]
        results.append(result)
        log.info("%s: %s, %.1f of %.1f s", name, count(len(rows), "clip"), _total_seconds(result.clips), result.seconds)
    summary = _summarize(results, options)
    write_manifest(files.clips, clips)
    write_rows(files.set_aside, aside)
    write_json(files.summary, asdict(summary) | {"model": model.source, "options": asdict(options)})
    return summary


def _segment(model: SpeechModel, recording: Recording, options: SegmentOptions, name: str) -> Segmented:
    item, reason = recording.utterance, recording.fault
    if item.is_translation:
        reason = reason or "a translation: segments align speech with its transcript"
    if not reason:
        try:
            with task(name, recording.seconds()):
                return segment_audio(model, recording.blocks(), item.text, item.language, options)
        except DataError as error:
            reason = f"{UNREADABLE}: {error}"
    log.warning("%s: %s", name, reason)
    return Segmented([], [Piece(None, None, item.text, None, 0, len(item.text.split()), reason)], 0.0)


def _short(recording: Recording, keep_below: float) -> Utterance | None:
    """The row of a recording that is not too long, with its duration; None for others and for unusable ones."""
    if recording.fault or not keep_below:
        return None
    try:
        seconds = recording.seconds()
    except DataError:
        return None
    return replace(recording.utterance, duration=seconds) if seconds <= keep_below else None


def _clip_row(item: Utterance, piece: Piece, number: int) -> Utterance:
    return replace(
        item,
        id=f"{item.id}-{number:05d}",
        offset=round(item.offset + (piece.start or 0.0), 3),
        duration=round(_seconds(piece), 3),
        text=piece.text,
        extra=item.extra | {"recording": item.id, "score": piece.score, "position": piece.position},
        audio_digest="",
    )


def _cut(item: Utterance, folder: Path) -> Utterance:
    """Writes a clip as a FLAC file of 16 kHz and returns its row."""
    folder.mkdir(parents=True, exist_ok=True)
    name = item.id.replace("/", "_")
    if name != item.id:  # another id can have the _
        name += f"-{hashlib.sha256(item.id.encode()).hexdigest()[:8]}"
    path, wave = folder / f"{name}.flac", load_utterance(item)
    soundfile.write(path, wave.clip(-1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return replace(
        item, audio_filepath=str(path.absolute()), offset=0.0, duration=len(wave) / SAMPLE_RATE, channel=None
    )


def _aside_row(item: Utterance, piece: Piece) -> dict[str, object]:
    known = piece.start is not None
    return {
        "recording": item.id,
        "audio_filepath": item.audio_filepath,
        "offset": round(item.offset + (piece.start or 0.0), 3) if known else None,
        "duration": round(_seconds(piece), 3) if known else None,
        "text": piece.text,
        "reason": piece.reason,
        "score": piece.score,
        "position": piece.position,
    }


def _seconds(piece: Piece) -> float:
    return (piece.end or 0.0) - (piece.start or 0.0)


def _total_seconds(pieces: Sequence[Piece]) -> float:
    return sum(map(_seconds, pieces))


def _summarize(results: Sequence[Segmented], options: SegmentOptions) -> SegmentSummary:
    clips = [clip for result in results for clip in result.clips]
    aside = [piece for result in results for piece in result.aside]
    reasons = Counter[str]()
    for piece in aside:
        reasons[piece.reason.split(":")[0]] += piece.num_words
    clip_words = sum(clip.num_words for clip in clips)
    return SegmentSummary(
        recordings=len(results),
        unusable=sum(not result.seconds for result in results),
        seconds=round(sum(result.seconds for result in results), 2),
        clips=len(clips),
        clip_seconds=round(_total_seconds(clips), 2),
        short_clips=sum(_seconds(clip) < options.min_duration for clip in clips),
        words=clip_words + reasons.total(),
        clip_words=clip_words,
        set_aside_words={reason: count for reason, count in reasons.most_common() if count},
        seconds_without_text=round(_total_seconds([piece for piece in aside if not piece.num_words]), 2),
    )
