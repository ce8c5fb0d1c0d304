"""The load of `finetune bench-serve`: the clips that are sent, and when."""

import io
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import soundfile

from finetune.core.errors import DataError
from finetune.core.files import read_bytes
from finetune.data.audio import inspect_audio
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.cells import cell_text
from finetune.data.corpora import read_corpus
from finetune.data.manifest import Utterance, id_of_place
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.row_audio import inspect_row
from finetune.evaluation.endpoint import wav_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Clip:
    """The bytes of an audio file as they are sent, its name, its length in seconds, fields beside those of the load."""

    name: str
    content: bytes
    seconds: float
    form: Mapping[str, str | list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Arrival:
    """A request: when it is sent, in seconds after the start, and the number of its clip."""

    at: float
    clip: int


def load_clips(sources: Sequence[Path], limit: int, seed: int) -> list[Clip]:
    """Reads at most `limit` clips; of more, a random sample.

    Args:
        sources: audio files, which are sent as they are, and corpora, such as manifests, whose segments are sent as WAV
            files of 16 kHz and 16 bits.
        limit: most clips.
        seed: seed of the sample.

    Raises:
        DataError: a source cannot be read, or the audio of a clip cannot be used.
    """
    rng = random.Random(f"clips {seed}")
    with tempfile.TemporaryDirectory() as media:  # audio that is embedded in a corpus
        chosen = _sample(_candidates(sources, Path(media)), limit, rng)
        return [_file(item) if isinstance(item, Path) else _segment(item) for item in chosen]


def poisson_arrivals(rate: float, requests: int, clips: int, seed: int) -> list[Arrival]:
    """Arrivals of a Poisson process: the times between them are exponential, and independent of the answers.

    Args:
        rate: mean number of requests a second.
        requests: number of arrivals.
        clips: number of clips; requests send all of them in a random order, then all of them in another one.
        seed: the clips of a seed are the same at each rate, and the times differ by the factor between the rates.
    """
    rng = random.Random(f"arrivals {seed}")
    at, arrivals, order = 0.0, list[Arrival](), list[int]()
    for _ in range(requests):
        at += rng.expovariate(1.0) / rate
        order = order or rng.sample(range(clips), clips)
        arrivals.append(Arrival(at, order.pop()))
    return arrivals


def _file(path: Path) -> Clip:
    try:
        content = read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return Clip(path.name, content, inspect_audio(path).duration)


def _candidates(sources: Sequence[Path], media: Path) -> Iterator[Path | Row]:
    for path in sources:
        if path.suffix.lower() in AUDIO_SUFFIXES:
            yield path
        else:
            yield from read_corpus(str(path), media, text_required=False)


def _segment(row: Row) -> Clip:
    audio = inspect_row(row)
    if isinstance(audio, Finding):
        raise DataError(f"{row.where}: {audio.kind}: {audio.detail}")
    path = cell_text(row.values["audio_filepath"])
    clip = Utterance(
        id_of_place(path, audio.offset), path, audio.info.duration, "", audio.offset, channel=audio.channel
    )
    content = wav_bytes(clip)
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        return Clip(f"{clip.id}.wav", content, file.frames / file.samplerate)


def _sample(items: Iterable[T], limit: int, rng: random.Random) -> list[T]:
    """At most `limit` items in their order, each with the same probability; holds no more than these."""
    kept: dict[int, tuple[int, T]] = {}
    for number, item in enumerate(items):
        place = number if number < limit else rng.randrange(number + 1)
        if place < limit:
            kept[place] = (number, item)
    return [item for _, item in sorted(kept.values(), key=lambda pair: pair[0])]
