"""The page of `finetune serve` with a stand-in for its API, and a recording with known words."""

import mimetypes
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from conftest import embedded
from transcription_server import Answer, Request, TranscriptionServer

import finetune.serving
from finetune.data.audio import SAMPLE_RATE, load_utterance

PAGE = Path(finetune.serving.__file__).parent / "page"
MODELS = [("granite", None), ("medical", "granite"), ("other", None)]
LANGUAGES = {"en": "English", "fr": "French", "es": "Spanish"}
PAUSE = 0.5  # seconds between clips


def recording(path: Path, clips: int = 4) -> dict[str, Any]:
    """Writes embedded clips, one after another, and returns them as a `verbose_json` answer: one segment each."""
    waves, words, segments, at = [], [], [], 0.0
    for number, clip in enumerate(embedded("test", 40)[-clips:]):
        wave = load_utterance(clip)
        seconds, spoken = len(wave) / SAMPLE_RATE, clip.text.split()
        edges = at + 0.15 + (seconds - 0.3) * np.cumsum([0, *map(len, spoken)]) / sum(map(len, spoken))
        words += [
            {"word": word, "start": round(a, 3), "end": round(b - 0.03, 3)}
            for word, a, b in zip(spoken, edges[:-1], edges[1:], strict=True)
        ]
        segments.append({"id": number, "start": round(at, 3), "end": round(at + seconds, 3), "text": clip.text})
        waves += [wave, np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)]
        at += seconds + PAUSE
    soundfile.write(path, np.concatenate(waves), SAMPLE_RATE)
    text = " ".join(segment["text"] for segment in segments)
    return {"task": "transcribe", "duration": round(at, 3), "text": text, "words": words, "segments": segments}


def page_server(answer: dict[str, Any]) -> TranscriptionServer:
    """A server with the page; `answer` is what it answers to transcriptions."""

    def respond(request: Request) -> Answer:
        return Answer(body={"saved": 1, "replaced": 0} if request.path == "/v1/corrections" else answer)

    server = TranscriptionServer(respond)
    for path in PAGE.iterdir():
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        server.pages[f"/{path.name}"] = Answer(body=path.read_bytes(), content_type=kind)
    server.pages["/"] = server.pages["/index.html"]
    server.pages["/v1/models"] = Answer(body={"data": [{"id": name, "parent": parent} for name, parent in MODELS]})
    server.pages["/v1/server"] = Answer(
        body={
            "corrections": True,
            "languages": LANGUAGES,
            "translation_targets": LANGUAGES,
            "max_upload": 25_000_000,
            "max_audio": 7200,
        }
    )
    return server
