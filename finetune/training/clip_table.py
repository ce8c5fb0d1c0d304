"""The clips of one or several epochs: every utterance, then the concatenated and repeated clips that the epochs add."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
from numpy.typing import NDArray

from finetune.data.manifest import Utterance, concatenated
from finetune.data.utterance_table import UtteranceTable
from finetune.training.plan import Groups, Indices, Seconds


@dataclass(frozen=True)
class ClipTable(Sequence[Utterance]):
    """Clips as utterances, made when they are asked for; worker processes share the arrays.

    Attributes:
        base: the utterances of train and replay; the first clips.
        added: the rows of `base` of each further clip.
        occurrences: for each further clip, how often these rows have occurred in its epoch, from 1.
    """

    base: UtteranceTable
    added: Groups
    occurrences: Indices

    def __len__(self) -> int:
        return len(self.base) + len(self.added)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...

    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]  # raises IndexError, and counts from the end
        return self.combined(number, self.sources(number))

    def sources(self, index: int) -> tuple[Utterance, ...]:
        """The utterances of a clip; several if clips are concatenated."""
        number = index - len(self.base)
        return tuple(self.base[row] for row in (self.added[number] if number >= 0 else (index,)))

    def combined(self, index: int, sources: Sequence[Utterance]) -> Utterance:
        """A clip as one utterance; `sources` are its utterances."""
        number = index - len(self.base)
        return concatenated(sources, int(self.occurrences[number])) if number >= 0 else sources[0]

    @property
    def durations(self) -> Seconds:
        """Seconds of each clip."""
        added = self._added_durations()
        return np.concatenate([self.base.durations, added]) if len(added) else self.base.durations

    def _added_durations(self) -> NDArray[np.float64]:
        """Summed as Python sums the durations of utterances."""
        seconds, bounds = self.base.durations[self.added.members].tolist(), self.added.bounds.tolist()
        return np.fromiter((sum(seconds[start:end]) for start, end in pairwise(bounds)), np.float64, len(self.added))
