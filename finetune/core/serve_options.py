"""Options of `finetune serve` and `bench-serve`: types, ranges and defaults."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from finetune.core.errors import RecipeError
from finetune.core.options import Range, check_options

API_KEYS = "FINETUNE_API_KEYS"  # environment variable: keys with commas between them


@dataclass(frozen=True)
class ServeOptions:
    """How a server listens, what it accepts, and when it gives up.

    Raises:
        RecipeError: a value out of range.
    """

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every network interface."""
    port: Annotated[int, Range(ge=0, le=65535)] = 8000
    """Port to listen on; 0 chooses a free one."""
    max_upload: Annotated[int, Range(ge=1)] = 200_000_000
    """Bytes of a request."""
    max_audio: Annotated[float, Range(gt=0)] = 4 * 3600.0
    """Seconds of audio in a request, after decoding."""
    max_requests: Annotated[int, Range(ge=1)] = 64
    """Requests that are uploaded, waiting or transcribed at a time; others get status 429."""
    deadline: Annotated[float, Range(gt=0)] = 600.0
    """Seconds after its upload in which a request must be finished."""
    upload_pause: Annotated[float, Range(gt=0)] = 20.0
    """Seconds without data after which an upload or a request line is given up."""
    upload_rate: Annotated[float, Range(ge=0)] = 4096.0
    """Lowest mean bytes per second of an upload that takes longer than `upload_pause`."""
    drain: Annotated[float, Range(ge=0)] = 30.0
    """Seconds that started requests have after SIGTERM."""
    batch_seconds: Annotated[float, Range(gt=0)] = 120.0
    """Padded audio in a batch. A request that arrives waits for the batch before it."""
    memory: Annotated[float, Range(gt=0)] = 0.8
    """Share of the free memory that models of adapters with whole parts can take."""
    allow_origin: tuple[str, ...] = ()
    """Origins of web pages, such as https://example.com, whose requests are accepted beside those of the own page."""
    api_keys: tuple[str, ...] = ()
    """Keys that a request can give; without any, no key is needed."""
    corrections: str = ""
    """Folder of corrected transcripts; empty refuses them."""
    log_text: bool = False
    """Whether transcripts are logged."""

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("allow_origin", "api_keys"):
            if not all(isinstance(item, str) and item.strip() for item in getattr(self, name)):
                raise RecipeError(f"{name}: must be strings that are not empty")


@dataclass(frozen=True)
class LoadOptions:
    """Options of the load that `finetune bench-serve` sends to a server.

    Raises:
        RecipeError: a value out of range.
    """

    requests: Annotated[int, Range(ge=1)] = 100
    """Requests at each rate."""
    warmup: Annotated[int, Range(ge=1)] = 2
    """Requests before the measurement, one after another; they are not counted."""
    clips: Annotated[int, Range(ge=1)] = 100
    """Different clips that are sent; of a larger source, this many are sampled."""
    timeout: Annotated[float, Range(gt=0)] = 120.0
    """Seconds after which a request has failed."""
    seed: Annotated[int, Range(ge=0)] = 0
    """Seed of the arrivals, of the choice of clips and of their changes."""
    repeat: bool = False
    """Whether a clip is sent again without a change."""

    def __post_init__(self) -> None:
        check_options(self)


def parse_adapters(items: Sequence[str]) -> dict[str, Path]:
    """Folders by name, from `NAME=DIR`. Raises RecipeError for another form, or a name that is given twice."""
    folders: dict[str, Path] = {}
    for item in items:
        name, sign, folder = (part.strip() for part in item.partition("="))
        if not (name and sign and folder):
            raise RecipeError(f"--adapter {item}: give NAME=DIR")
        if name in folders:
            raise RecipeError(f"--adapter {item}: the name {name} is given twice")
        folders[name] = Path(folder)
    return folders
