"""Writes Lhotse cuts: a gzip-compressed JSON Lines file with one cut and one supervision for each utterance.

Source of the fields: the documentation of Lhotse, "Cuts" and "Recordings". A clip that averages several channels is a
MultiCut, any other a MonoCut.
"""

import gzip
import io
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from finetune.core.files import write_lines
from finetune.data.audio_file import open_audio
from finetune.data.manifest import Utterance, json_line
from finetune.data.writers.task_columns import task_columns


def write_cuts(path: Path, utterances: Iterable[Utterance]) -> None:
    """Writes the cuts atomically.

    Raises:
        DataError: an audio file cannot be opened, or an utterance cannot be written as JSON.
    """
    write_lines(path, _compressed(json_line(_cut(item), item.id) for item in utterances))


def _compressed(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a gzip file without a time, so that the same lines give the same bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as archive:
        for line in lines:
            archive.write(line)
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _cut(item: Utterance) -> dict[str, object]:
    rate, num_samples, channels = _properties(item.audio_filepath)
    channel: int | list[int] = (
        item.channel if item.channel is not None else (0 if channels == 1 else [*range(channels)])
    )
    recording = {
        "id": item.audio_filepath,
        "sources": [{"type": "file", "channels": [*range(channels)], "source": item.audio_filepath}],
        "sampling_rate": rate,
        "num_samples": num_samples,
        "duration": num_samples / rate,
        "channel_ids": [*range(channels)],
    }
    custom = item.extra | task_columns(item) | ({"keywords": list(item.keywords)} if item.keywords else {})
    supervision = {
        "id": item.id,
        "recording_id": item.audio_filepath,
        "start": 0.0,
        "duration": item.duration,
        "channel": channel,
        "text": item.text,
        **({"language": item.language} if item.language else {}),
        **({"speaker": item.speaker} if item.speaker else {}),
        **({"custom": custom} if custom else {}),
    }
    return {
        "id": item.id,
        "start": item.offset,
        "duration": item.duration,
        "channel": channel,
        "supervisions": [supervision],
        "recording": recording,
        "type": "MultiCut" if isinstance(channel, list) else "MonoCut",
    }


@lru_cache(1024)
def _properties(path: str) -> tuple[int, int, int]:
    """Sampling rate in Hz, number of samples and number of channels of a file."""
    with open_audio(path) as file:
        return file.samplerate, file.frames, file.channels
