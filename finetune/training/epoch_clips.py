"""The clips of an epoch: its rows of train and replay, how they are concatenated, and clips without speech."""

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from finetune.core.config import Recipe
from finetune.data.manifest import PROMPT_COLUMNS
from finetune.data.utterance_table import UtteranceTable
from finetune.training.encoded_text import row_blocks
from finetune.training.plan import (
    Groups,
    Indices,
    Seconds,
    concat_utterances,
    no_speech_durations,
    occurrences,
    sample_replay,
    sample_weighted,
)


@dataclass(frozen=True)
class EpochClips:
    """The clips of an epoch.

    Attributes:
        singles: rows that are clips.
        added: the rows of each concatenated or repeated clip.
        occurrences: how often the rows of each of these have occurred in the epoch, from 1.
        no_speech: seconds of the clips without speech.
    """

    singles: Indices
    added: Groups
    occurrences: Indices
    no_speech: Seconds


def epoch_clips(
    recipe: Recipe, base: UtteranceTable, counts: tuple[int, int], kinds: ArrayLike, epoch: int
) -> EpochClips:
    """Selects the clips of an epoch; the same for the same recipe and data.

    Args:
        recipe: the recipe.
        base: the utterances of train and replay.
        counts: how many of these are of train and of replay.
        kinds: from `kinds_of`; needed for `augment.concat` only.
        epoch: from 0.
    """
    augment, seed = recipe.augment, recipe.seed
    chosen = sample_replay(*counts, recipe.data.replay_weight, seed, epoch)
    if (base.weights != 1).any():
        chosen = sample_weighted(chosen, base.weights, seed, epoch)
    # With the cache nothing is augmented, and only sampled keywords differ between the occurrences of a clip. The order
    # is that without the cache.
    if recipe.machine.cache_encoder and not recipe.keywords.sampled:
        first = occurrences(Groups(chosen, np.arange(len(chosen) + 1))) == 1
        ordered = np.concatenate([chosen[first], chosen[~first]])
        return EpochClips(ordered, Groups.of([]), np.zeros(0, np.int32), np.zeros(0))
    longest = recipe.data.max_duration
    groups = concat_utterances(chosen, base.durations, kinds, augment.concat, longest, seed, epoch)
    times = occurrences(groups)
    single = (groups.sizes == 1) & (times == 1)
    silent = no_speech_durations(base.durations, chosen, len(groups), augment.no_speech, seed, epoch)
    singles = groups.members[groups.bounds[:-1][single]]
    return EpochClips(singles, groups.select(np.flatnonzero(~single)), times[~single], silent)


def kinds_of(base: UtteranceTable) -> Indices:
    """A number for the language and the prompt of each row. Only rows of one kind can be concatenated."""
    names = ("language", *PROMPT_COLUMNS) if base.has_prompts else ("language",)
    blocks = ([base.pick(name, numbers) for name in names] for numbers in row_blocks(len(base)))
    rows = chain.from_iterable(zip(*columns, strict=True) for columns in blocks)
    codes: dict[tuple[str, ...], int] = {}
    return np.fromiter((codes.setdefault(row, len(codes)) for row in rows), np.int32, len(base))
