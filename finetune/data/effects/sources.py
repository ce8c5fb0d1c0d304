"""The entries of `augment.noise` and `augment.rooms`, generated sounds and recordings, and their check before a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.core.config import AugmentSection
from finetune.core.errors import DataError, FinetuneError
from finetune.core.extras import require
from finetune.data.effects.codecs import check_codecs
from finetune.data.effects.generated import GENERATED
from finetune.data.effects.recordings import Recording, check_recordings, find_recordings, state_of

BABBLE = "babble"
SIMULATED = "simulated"
NAMES = {"noise": (*GENERATED, BABBLE), "rooms": (SIMULATED,)}


@dataclass(frozen=True)
class Source:
    """An entry: the name of a generated sound, or a path with its recordings."""

    name: str
    recordings: tuple[Recording, ...] = ()


@dataclass(frozen=True)
class Sources:
    """The entries of `augment.noise` and `augment.rooms`."""

    noise: tuple[Source, ...]
    rooms: tuple[Source, ...]


def open_sources(settings: AugmentSection) -> Sources:
    """Finds the recordings of all entries, without opening them. Raises DataError if an entry has none."""
    return Sources(_sources("noise", settings.noise), _sources("rooms", settings.rooms))


def _sources(key: str, entries: Sequence[str]) -> tuple[Source, ...]:
    return tuple(_source(key, entry) for entry in entries)


def _source(key: str, entry: str) -> Source:
    names = NAMES[key]
    return Source(entry, () if entry in names else tuple(find_recordings(entry, f"augment.{key}", names)))


def check_augmentation(settings: AugmentSection) -> None:
    """Checks what augmentation needs, without torch: recordings that can be opened, codecs, the extra `rooms`.

    Raises:
        DataError: something is missing; the message has each problem.
    """
    problems = list[str]()
    for key in NAMES:
        for entry in getattr(settings, key):
            try:
                source = _source(key, entry)
                if source.recordings:
                    check_recordings(source.recordings, entry, f"augment.{key}")
            except FinetuneError as error:
                problems.append(str(error))
    try:
        check_codecs(settings.codecs)
    except DataError as error:
        problems.append(str(error))
    try:
        if SIMULATED in settings.rooms:
            require("pyroomacoustics", extra="rooms")
    except FinetuneError as error:
        problems.append(f"augment.rooms: {SIMULATED}: {error}")
    if problems:
        raise DataError("\n".join(problems))


def recordings_state(settings: AugmentSection) -> str:
    """A hash of the names and sizes of all recordings; "" if there are none.

    A checkpoint has it, because a clip gets the same noise after a resume only if they are the same.
    """
    sources = open_sources(settings)
    recordings = [item for source in (*sources.noise, *sources.rooms) for item in source.recordings]
    return state_of(recordings) if recordings else ""
