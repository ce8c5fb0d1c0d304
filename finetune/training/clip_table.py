"""The clips of one or several epochs: every utterance, then what the epochs add: concatenated and repeated clips, and
clips without speech."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune.core.lazy_sequence import LazySequence
from finetune.data.manifest import Utterance, concatenated
from finetune.data.utterance_table import UtteranceTable
from finetune.training.plan import Groups, Indices, Seconds

NO_SPEECH = "no-speech"  # begins the ids of clips without speech


@dataclass(frozen=True)
class ClipTable(LazySequence[Utterance]):
    """Clips as utterances, made when they are asked for; worker processes share the arrays.

    Attributes:
        base: the utterances of train and replay; the first clips.
        added: the rows of `base` of each further clip.
        occurrences: for each further clip, how often these rows have occurred in its epoch, from 1.
        no_speech: seconds of the clips without speech, which are the last.
    """

    base: UtteranceTable
    added: Groups
    occurrences: Indices
    no_speech: Seconds = field(default_factory=lambda: np.zeros(0))

    def __len__(self) -> int:
        return len(self.base) + len(self.added) + len(self.no_speech)

    def item(self, index: int) -> Utterance:
        return self.combined(index, self.sources(index))

    def sources(self, index: int) -> tuple[Utterance, ...]:
        """The utterances of a clip; several if clips are concatenated, none if it is without speech."""
        number = index - len(self.base)
        if number >= len(self.added):
            return ()
        return tuple(self.base[row] for row in (self.added[number] if number >= 0 else (index,)))

    def row(self, index: int) -> int:
        """The row in `base` of a clip of one utterance."""
        number = index - len(self.base)
        return self.added[number][0] if number >= 0 else index

    def combined(self, index: int, sources: Sequence[Utterance]) -> Utterance:
        """A clip as one utterance; `sources` are its utterances."""
        number = index - len(self.base)
        if not sources:
            place = number - len(self.added)
            return Utterance(f"{NO_SPEECH}-{place + 1}", "", float(self.no_speech[place]), "")
        return concatenated(sources, int(self.occurrences[number])) if number >= 0 else sources[0]

    @property
    def durations(self) -> Seconds:
        """Seconds of each clip."""
        further = np.concatenate([self._added_durations(), self.no_speech])
        return np.concatenate([self.base.durations, further]) if len(further) else self.base.durations

    def _added_durations(self) -> NDArray[np.float64]:
        """Summed as Python sums the durations of utterances."""
        seconds, bounds = self.base.durations[self.added.members].tolist(), self.added.bounds.tolist()
        return np.fromiter((sum(seconds[start:end]) for start, end in pairwise(bounds)), np.float64, len(self.added))
