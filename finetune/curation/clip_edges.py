"""Finds where the audio of a clip begins and ends, from its characters, the sound level and the speech beside it."""

import numpy as np
from numpy.typing import NDArray

from finetune.curation.posteriors import Posteriors
from finetune.curation.star_alignment import WordFrames
from finetune.data.features import FRAME_SECONDS

# Measured with scripts/bench_segment.py. Frames have 20 ms.
QUIET_DB, QUIET_FRAMES = 33.0, 4  # a word ends where the level falls by this much below its own, for these frames
BEFORE, AFTER = 8, 18  # frames within which that is searched, before and after the characters of a word
LEAD, TAIL = 1.5, 4.5  # frames from the characters of a word to its edges, where the level does not fall
OWN_SPEECH = 2.0  # frames with a character between a word and its edge that are still of this word
MIN_SPEECH = 0.3  # a frame counts as speech with its probability of a character, and not at all below this one
EXTRA_SPEECH = 0.9  # frames with a character between two words; more is speech that the text does not have


def clip_start(posteriors: Posteriors, word: WordFrames, limit: int, padding: float) -> float:
    """Seconds where a clip begins: in the pause before its first word.

    Args:
        word: the first word.
        limit: frame where the word before it ends.
        padding: seconds of the pause to keep; at most half of it is kept.
    """
    gap = slice(limit, word.start)
    frames = _edge(
        posteriors.levels[gap][::-1], posteriors.speech[gap][::-1], _peak(posteriors, word), BEFORE, LEAD, padding
    )
    return (word.start - frames) * FRAME_SECONDS


def clip_end(posteriors: Posteriors, word: WordFrames, limit: int, padding: float) -> float:
    """Seconds where a clip ends: in the pause after its last word; `limit` is the frame where the next word starts."""
    gap = slice(word.end, limit)
    frames = _edge(posteriors.levels[gap], posteriors.speech[gap], _peak(posteriors, word), AFTER, TAIL, padding)
    return (word.end + frames) * FRAME_SECONDS


def speech_frames(speech: NDArray[np.float16]) -> NDArray[np.float64]:
    """How much each frame (T,) counts as speech; the faint probabilities of a long pause do not add up."""
    return np.where(speech >= MIN_SPEECH, speech, 0).astype(np.float64)


def _peak(posteriors: Posteriors, word: WordFrames) -> float:
    return float(posteriors.levels[word.start : word.end].max())


def _edge(
    levels: NDArray[np.float16], speech: NDArray[np.float16], peak: float, reach: int, default: float, padding: float
) -> float:
    """Frames from a word to the edge of its clip, in a gap (G,) whose frames are in order of their distance."""
    loud, frames = levels >= peak - QUIET_DB, speech_frames(speech)
    own = next(
        (k for k in range(min(reach, len(levels) - QUIET_FRAMES + 1)) if not loud[k : k + QUIET_FRAMES].any()), None
    )
    if own is not None and frames[:own].sum() > OWN_SPEECH:
        own = None
    begin, limit = own or 0, len(frames)
    if frames[begin:].sum() > EXTRA_SPEECH:
        limit = begin + int((frames[begin:] > 0).argmax())
    edge = min(default, limit / 2) if own is None else own
    return min(edge + padding / FRAME_SECONDS, (edge + limit) / 2)
