"""The load of `finetune bench-serve`: the clips that are sent, and when."""

import io
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import soundfile

from finetune.core.errors import DataError
from finetune.core.files import read_bytes
from finetune.data.audio import inspect_audio
from finetune.data.manifest import Utterance, stream_manifest
from finetune.evaluation.endpoint import wav_bytes

T = TypeVar("T")
MANIFEST_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Clip:
    """The bytes of an audio file as they are sent, its name and its length in seconds."""

    name: str
    content: bytes
    seconds: float


@dataclass(frozen=True)
class Arrival:
    """A request: when it is sent, in seconds after the start, and the number of its clip."""

    at: float
    clip: int


def load_clips(sources: Sequence[Path], limit: int, seed: int) -> list[Clip]:
    """Reads at most `limit` clips; of more, a random sample.

    Args:
        sources: audio files, which are sent as they are, and manifests (`.jsonl`), whose segments are sent as WAV files
            of 16 kHz and 16 bits.
        limit: most clips.
        seed: seed of the sample.

    Raises:
        DataError: a file cannot be read, or a manifest is empty.
    """
    rng = random.Random(f"clips {seed}")
    files = [path for path in sources if path.suffix != MANIFEST_SUFFIX]
    rows = (row for path in sources if path.suffix == MANIFEST_SUFFIX for row in stream_manifest(path))
    candidates: list[Path | Utterance] = [*files, *_sample(rows, limit, rng)]
    chosen = _sample(candidates, limit, rng)
    return [_file(item) if isinstance(item, Path) else _segment(item) for item in chosen]


def poisson_arrivals(rate: float, requests: int, clips: int, seed: int) -> list[Arrival]:
    """Arrivals of a Poisson process: the times between them are exponential, and independent of the answers.

    Args:
        rate: mean number of requests a second.
        requests: number of arrivals.
        clips: number of clips; each request sends one of them, chosen at random.
        seed: the clips of a seed are the same at each rate, and the times differ by the factor between the rates.
    """
    rng = random.Random(f"arrivals {seed}")
    at, arrivals = 0.0, []
    for _ in range(requests):
        at += rng.expovariate(1.0) / rate
        arrivals.append(Arrival(at, rng.randrange(clips)))
    return arrivals


def _file(path: Path) -> Clip:
    try:
        content = read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return Clip(path.name, content, inspect_audio(path).duration)


def _segment(row: Utterance) -> Clip:
    content = wav_bytes(row)
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        return Clip(f"{row.id}.wav", content, file.frames / file.samplerate)


def _sample(items: Iterable[T], limit: int, rng: random.Random) -> list[T]:
    """At most `limit` items in their order, each with the same probability; holds no more than these."""
    kept: dict[int, tuple[int, T]] = {}
    for number, item in enumerate(items):
        place = number if number < limit else rng.randrange(number + 1)
        if place < limit:
            kept[place] = (number, item)
    return [item for _, item in sorted(kept.values(), key=lambda pair: pair[0])]
