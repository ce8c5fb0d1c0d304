"""Looks at the headers of a corpus's audio files, without decoding them."""

from collections.abc import Iterable, Iterator

from finetune.core.wording import count
from finetune.data.byte_range import is_url
from finetune.data.channels import num_channels
from finetune.data.row import Row

MAX_FILES = 500  # of a corpus
MAX_REMOTE = 20  # the same, if some are on another machine


def preview_channels(rows: Iterable[Row]) -> Iterator[str]:
    """A line if files have several channels and their rows do not say which; at most MAX_FILES files are opened."""
    without = [row.values.get("audio_filepath") for row in rows if row.values.get("channel") in (None, "")]
    paths = list(dict.fromkeys(path for path in without if isinstance(path, str)))
    remote = any(is_url(path) for path in paths[:MAX_FILES])
    files = paths[: MAX_REMOTE if remote else MAX_FILES]
    several = [(path, channels) for path in files if (channels := num_channels(path) or 0) > 1]
    if several:
        path, channels = several[0]
        yield (
            f"       {len(several)} of {count(len(files), 'audio file')} have several channels, which are averaged, "
            f"such as {path} ({channels}); if a transcript belongs to one channel, give its number (from 0) in a "
            "column `channel`"
        )
