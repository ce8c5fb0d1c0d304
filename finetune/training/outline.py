"""The sizes of all epochs of a training, which are stored because they need the plans of all epochs."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune.core.files import read_json, write_json
from finetune.training.stored import open_or_build


@dataclass(frozen=True)
class Outline:
    """The sizes of all epochs.

    Attributes:
        steps: optimizer steps of each epoch.
        batches: micro-batches of each epoch.
        clips: clips of each epoch; concatenated utterances are one clip.
        seconds: of audio of each epoch, without speed perturbation.
        longest: seconds of the longest clip of an epoch, without speed perturbation.
        positions: of the clip that needs the most language model positions.
        padding: fraction of the first epoch's padded audio that is padding.
    """

    steps: list[int]
    batches: list[int]
    clips: list[int]
    seconds: list[float]
    longest: float
    positions: int
    padding: float


def stored_outline(path: Path, key: str, make: Callable[[], Outline]) -> Outline:
    """The outline in a file, which is made if it is missing, damaged or of another key."""

    def opened(path: Path) -> Outline | None:
        try:
            content = read_json(path)
            return Outline(**content["outline"]) if content["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def build(path: Path) -> None:
        write_json(path, {"key": key, "outline": asdict(make())})

    return open_or_build(path, opened, build) or make()
