"""Leaks that rows state: the same file, segment, sentence or speaker in a training split and in a scored one.

Copies of the same samples under another name are found by `prepare`, which decodes the audio.
"""

import math
import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from finetune.core.data_config import DataSection
from finetune.data.cells import cell_seconds, cell_text
from finetune.data.corpora import has_audio_file
from finetune.data.leaks import find_leaks, is_refused
from finetune.data.manifest import Utterance
from finetune.data.problems import Problem
from finetune.data.row import Row
from finetune.planning.split_facts import stated_utterance

MAX_MATCHES = 50_000  # rows of a training split that are compared in full
_ASCII = {ord(char): None for char in string.punctuation + string.whitespace} | {
    ord(char): char.lower() for char in string.ascii_uppercase
}


@dataclass(frozen=True)
class LeakCount:
    """What a scored split has in common with another split.

    Attributes:
        kind: see `find_leaks`; without "also in".
        source: the other split.
        scored: the scored split.
        clips: clips of the scored split; for a speaker, the number of speakers.
        example: one of them.
        refused: whether `prepare` stops for it.
    """

    kind: str
    source: str
    scored: str
    clips: int
    example: str
    refused: bool


@dataclass
class LeakFinder:
    """Finds leaks of one split into scored splits while its rows are read.

    Args:
        source: name of the split that is read.
        scored: the clips of each scored split.
        data: the section of the recipe.
        matches: the clips so far; only those with a file, a sentence or a speaker of a scored split are kept.
    """

    source: str
    scored: Mapping[str, Sequence[Utterance]]
    data: DataSection
    matches: list[Utterance] = field(default_factory=list)

    def __post_init__(self) -> None:
        clips = [clip for items in self.scored.values() for clip in items]
        self.files = {clip.audio_filepath for clip in clips}
        self.sentences = {key for clip in clips if (key := coarse_key(clip.text))}
        self.speakers = {clip.speaker for clip in clips if clip.speaker}

    def add(self, row: Row) -> None:
        """Looks at a row."""
        values = row.values
        text, speaker = values.get("text"), values.get("speaker")
        shared_file = values.get("audio_filepath") in self.files and has_audio_file(row)
        new_speaker = speaker in self.speakers if isinstance(speaker, str) else cell_text(speaker) in self.speakers
        key = coarse_key(text) if isinstance(text, str) else ""
        if (shared_file or new_speaker or key in self.sentences) and len(self.matches) < MAX_MATCHES:
            seconds = cell_seconds(values.get("duration")) or math.inf  # to the end of the file
            if self.data.min_duration <= seconds and (seconds <= self.data.max_duration or seconds == math.inf):
                self.matches.append(stated_utterance(row, seconds, row.where))
                self.sentences.discard(key)  # one clip of each sentence and speaker is enough
                self.speakers.discard(self.matches[-1].speaker)

    def counts(self) -> list[LeakCount]:
        """The leaks by kind and scored split."""
        leak_counts = []
        for name, clips in self.scored.items():
            leaks = find_leaks(self.matches, clips, self.source)
            kinds = dict.fromkeys(leak.kind for leak in leaks)
            leak_counts += [self._count(name, [leak for leak in leaks if leak.kind == kind]) for kind in kinds]
        return leak_counts

    def _count(self, scored: str, leaks: list[Problem]) -> LeakCount:
        kind, first = leaks[0].kind.partition(" also in ")[0], leaks[0]
        return LeakCount(kind, self.source, scored, len(leaks), f"{first.id}: {first.detail}", is_refused(first))


def refused_audio(leaks: Iterable[LeakCount]) -> str:
    """The parts of the message of `prepare` about leaks of audio from train and replay; "" without one."""
    copies: dict[tuple[str, str], int] = {}
    for leak in leaks:
        if leak.refused and leak.source != "valid":
            key = leak.scored, leak.source
            copies[key] = copies.get(key, 0) + leak.clips
    return "; ".join(
        f"data.{scored}: the audio of {count} of its utterances is also in data.{source}"
        for (scored, source), count in copies.items()
    )


def coarse_key(text: str) -> str:
    """A key that two texts share if `find_leaks` takes them for the same sentence; other texts can share it too."""
    if text.isascii():
        return text.translate(_ASCII)
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return "".join(char for char in folded if char.isalnum())
