"""Which speakers and clips of a comparison are in the training data of a system."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

from finetune.core.model_limits import ADAPTATION
from finetune.core.run_dir import RunDir
from finetune.core.wording import count, verb
from finetune.data.manifest import Utterance, read_manifest
from finetune.data.splits import TRAINING_SPLITS
from finetune.evaluation.systems import System
from finetune.metrics.scorecard import Clip
from finetune.metrics.scores import Comparison


@dataclass(frozen=True)
class TrainingOverlap:
    """The speakers among the clips that a system was trained with, and the number of clips with training audio.

    A speaker is known by name, whatever its case and spaces, or by a clip with training audio.
    """

    speakers: frozenset[str]
    clips: int


def training_overlap(systems: Sequence[System], clips: Sequence[Utterance]) -> dict[str, TrainingOverlap]:
    """By name of a system, its overlap with the clips. Systems without a known run and without an overlap are absent.

    Args:
        systems: the systems; the run of an adapted model or of an export says what it was trained with.
        clips: the clips.

    Raises:
        DataError: a manifest of a run is damaged.
    """
    overlaps = {}
    for system in systems:
        manifests = [path for path in _manifests(system) if path.is_file()]
        rows = [row for path in manifests for row in read_manifest(path)]
        names, audio = {_name(row) for row in rows} - {""}, {key for row in rows for key in _audio(row)}
        shared = [not audio.isdisjoint(_audio(item)) for item in clips]
        speakers = {item.speaker for item, same in zip(clips, shared, strict=True) if same or _name(item) in names}
        overlap = TrainingOverlap(frozenset(speakers - {""}), sum(shared))
        if overlap.speakers or overlap.clips:
            overlaps[system.name] = overlap
    return overlaps


def _manifests(system: System) -> list[Path]:
    folder = Path(system.source)
    if system.kind == "run" and system.side == "adapted":
        run = RunDir(folder)
    elif system.kind == "model" and (folder / ADAPTATION).is_file():
        run = RunDir(folder.resolve().parent)
    else:
        return []
    return [run.manifest(split) for split in TRAINING_SPLITS]


def _audio(item: Utterance) -> set[tuple[str, float, int | None]]:
    """What identifies the audio of a clip: its place and, if known, a hash of its samples."""
    place = (item.audio_filepath, item.offset, item.channel)
    return {place, (item.audio_digest, 0.0, None)} if item.audio_digest else {place}


def _name(item: Utterance) -> str:
    return " ".join(normalize("NFKC", item.speaker).casefold().split())


def limited(test: Comparison, names: Sequence[str], overlaps: Mapping[str, TrainingOverlap]) -> Comparison:
    """The comparison; it holds for no other speakers if one of its systems was trained with speakers of the clips."""
    trained = any(name in overlaps and overlaps[name].speakers for name in names)
    return replace(test, scope="these speakers") if trained and test.scope == "other speakers" else test


def overlap_notes(
    systems: Sequence[System], overlaps: Mapping[str, TrainingOverlap], clips: Sequence[Clip]
) -> Iterator[str]:
    """Sentences on each overlap, with the systems that have it, and on trained models whose run is not there."""
    for system in systems:
        if (Path(system.source) / ADAPTATION).is_file() and not any(path.is_file() for path in _manifests(system)):
            yield f"{system.name}: its run is not beside it, so it is not known if it was trained with these speakers"
    speakers = len({clip.speaker for clip in clips} - {""})
    for overlap in dict.fromkeys(overlaps.values()):
        names = [name for name in overlaps if overlaps[name] == overlap]
        who, was, its = " and ".join(names), *(("was", "its") if len(names) == 1 else ("were", "their"))
        if overlap.clips:
            number = overlap.clips
            yield (
                f"{who}: {count(number, 'clip')} {verb(number, 'is', 'are')} in {its} training data: too good a score"
            )
        if overlap.speakers:
            yield (
                f"{who} {was} trained with {len(overlap.speakers)} of {count(speakers, 'speaker')}: {its} scores "
                "do not apply to new speakers"
            )
