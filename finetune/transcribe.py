"""Audio files to text, JSON or subtitles with a base or exported model."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import Utterance
from finetune.decoding.longform import Segment, cut, srt
from finetune.decoding.recognize import DecodeOptions, recognize
from finetune.errors import DataError
from finetune.model.granite import load_model


@dataclass(frozen=True)
class Transcript:
    """What was heard in one file. `seconds` is computing time, `acceptance` the share of draft tokens kept."""

    path: str
    text: str
    duration: float
    seconds: float
    segments: tuple[Segment, ...]
    acceptance: float | None
    truncated: bool


def transcribe(paths: list[str], model: str, options: DecodeOptions, max_window: float, keywords: tuple[str, ...] = (),
               failed: Callable[[str, DataError], None] | None = None) -> Iterator[Transcript]:
    """Transcripts in the order of `paths`, each as soon as it is ready.

    Args:
        paths: audio files; one longer than `max_window` seconds is cut at pauses.
        model: folder in hub layout, or hub name.
        keywords: words to expect, put into the prompt.
        failed: called for a file that cannot be read, which is then left out; without it the error is raised.

    Raises:
        ModelError: the model cannot be loaded.
    """
    loaded = load_model(model, "auto", "cuda" if torch.cuda.is_available() else "cpu")
    for path in paths:
        try:
            wave = load_audio(path)
        except DataError as error:
            if failed is None:
                raise
            failed(path, error)
            continue
        windows = cut(wave, SAMPLE_RATE, max_window)
        pieces = [Utterance(f"{path}@{start:.2f}", path, end - start, "", offset=start, keywords=keywords)
                  for start, end in windows]
        heard = recognize(loaded, pieces, options)
        drafted = sum(item.drafted for item in heard)
        yield Transcript(
            path, " ".join(item.text for item in heard if item.text), len(wave) / SAMPLE_RATE,
            sum(item.seconds for item in heard),
            tuple(Segment(start, end, item.text) for (start, end), item in zip(windows, heard, strict=True)),
            sum(item.accepted for item in heard) / drafted if drafted else None,
            any(item.truncated for item in heard))


def render_transcript(transcript: Transcript, form: str) -> str:
    """`text`, `json` or `srt`."""
    if form == "srt":
        return srt(transcript.segments)
    if form == "text":
        return transcript.text
    content: dict[str, Any] = {
        "audio_filepath": transcript.path, "duration": round(transcript.duration, 3), "text": transcript.text,
        "segments": [{"id": number, "start": round(s.start, 3), "end": round(s.end, 3), "text": s.text}
                     for number, s in enumerate(transcript.segments)],
        "truncated": transcript.truncated}
    return json.dumps(content, ensure_ascii=False)


def output_path(path: str, form: str, folder: Path) -> Path:
    """Where a transcript goes when it is written to a folder."""
    return folder / f"{Path(path).stem}.{ {'text': 'txt'}.get(form, form) }"
