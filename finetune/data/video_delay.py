"""How much later than its video the audio of a file begins: players wait, but samples count from the first one."""

from pathlib import Path

from finetune.core.errors import DataError
from finetune.data.audio_source import AudioSource, audio_source
from finetune.data.av_file import is_container, open_container

VIDEO = (".mpg", ".mpeg", ".ts", ".mts", ".m2ts")  # those that `is_container` does not know
HEAD = 16  # bytes for `is_container`
LEAST = 0.1  # seconds; encoders delay the audio by a few hundredths


def video_delay(path: str | Path | AudioSource) -> float:
    """Seconds by which the audio begins after the video; 0.0 if it is less than LEAST, or the file has no video."""
    try:
        source = audio_source(path)
        file = source.open()
        try:
            head = file.read(HEAD)
        finally:
            file.close()
        if not is_container(head) and Path(str(path)).suffix.lower() not in VIDEO:
            return 0.0
        container, audio = open_container(source, "cannot be opened")
    except (DataError, OSError):  # reported when the audio is read
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
