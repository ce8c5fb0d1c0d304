"""The requests of `soak_server.py`: clips alone and joined, several containers and formats, keywords, all models."""

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.audio_source import Content
from finetune.serving.bench_plan import Clip

CONTAINERS = ("WAV", "FLAC", "OGG", "MP3")
TIMES = {"timestamp_granularities[]": ["word", "segment"]}
FORMS: tuple[dict[str, str | list[str]], ...] = (
    {},
    {"stream": "true"},
    *({"response_format": name} for name in ("text", "srt", "vtt")),
    {"response_format": "verbose_json", **TIMES},
)
JOINED = 0.3  # share of the requests
WITH_KEYWORDS, MOST_KEYWORDS = 0.3, 5
PAUSE = 0.6  # seconds between joined clips


def soak_requests(
    clips: Sequence[Clip], models: Sequence[str], words: Sequence[str], longest: float, count: int, seed: int
) -> list[Clip]:
    """Different requests.

    Args:
        clips: their speech; a clip can occur in several.
        models: each request is for one of them.
        words: keywords.
        longest: seconds of joined clips, at most; a clip that is longer stays alone.
        count: number of requests.
        seed: of all choices.
    """
    rng = random.Random(f"soak {seed}")
    waves = [load_audio(Content(clip.name, clip.content)) for clip in clips]
    requests = []
    for number in range(count):
        clip = clips[number % len(clips)]
        if rng.random() < JOINED:
            wave = joined(waves, number % len(clips), rng.uniform(0, longest), rng)
        else:
            wave = waves[number % len(clips)]
        container = rng.choice(CONTAINERS)
        form = {"model": rng.choice(models), **rng.choice(FORMS)}
        if words and rng.random() < WITH_KEYWORDS:
            form["keywords[]"] = rng.sample(list(words), min(len(words), rng.randint(1, MOST_KEYWORDS)))
        name = f"{Path(clip.name).stem}.{container.lower()}"
        requests.append(
            replace(clip, name=name, content=encoded(wave, container), seconds=len(wave) / SAMPLE_RATE, form=form)
        )
    return requests


def joined(waves: Sequence[NDArray[np.float32]], first: int, seconds: float, rng: random.Random) -> NDArray[np.float32]:
    """A clip and random ones after it, with pauses, of at most `seconds`."""
    pause = np.zeros(round(PAUSE * SAMPLE_RATE), np.float32)
    whole = waves[first]
    while len(longer := np.concatenate([whole, pause, rng.choice(waves)])) <= seconds * SAMPLE_RATE:
        whole = longer
    return whole


def encoded(wave: NDArray[np.float32], container: str) -> bytes:
    """An audio file."""
    file = io.BytesIO()
    soundfile.write(file, wave.clip(-1, 1), SAMPLE_RATE, format=container)
    return file.getvalue()
