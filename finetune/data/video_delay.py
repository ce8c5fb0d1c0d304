"""How much later than its video the audio of a file begins: players wait, but samples count from the first one."""

from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.audio_source import audio_source
from finetune.data.av_file import open_container

VIDEO = (".mp4", ".m4v", ".mkv", ".mov", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv")
LEAST = 0.1  # seconds; encoders delay the audio by a few hundredths


def video_delay(path: Path) -> float:
    """Seconds by which the audio begins after the video; 0.0 if it is less than LEAST, or the file has no video."""
    if path.suffix.lower() not in VIDEO or not path.is_file():
        return 0.0
    try:
        container, audio = open_container(audio_source(path), "cannot be opened")
    except DataError:  # the audit reports the file
        return 0.0
    with container:
        starts = [
            float(stream.start_time * stream.time_base)
            for stream in container.streams.video
            if stream.start_time is not None and stream.time_base is not None
        ]
        if not starts or audio.start_time is None or audio.time_base is None:
            return 0.0
        delay = float(audio.start_time * audio.time_base) - min(starts)
    return delay if delay >= LEAST else 0.0
