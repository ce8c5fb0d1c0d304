"""Synthetic output of the CTC head: a recording in which each frame has one character, a blank or noise."""

import numpy as np

from finetune.core.options import SegmentOptions
from finetune.curation.posteriors import FLOOR, Posteriors
from finetune.curation.segment import Segmented, segment_posteriors
from finetune.curation.transcript_words import transcript_words
from finetune.model.ctc import IN_ALPHABET, NUM_LABELS, to_labels

PAUSE = "_" * 25  # half a second without sound
QUIET, LOUD = -80.0, -20.0  # dB


def frames_of(text: str) -> str:
    """One frame of a word's character, and one blank, in turn; a space is a frame with the label of the space."""
    return "".join(char + "_" for char in text)


def recording(path: str, sound: str = "") -> Posteriors:
    """Posteriors of a head that is certain of one label in each frame: `_` is the blank, `#` any label, all the same.

    Args:
        path: a character a frame.
        sound: the level of each frame: NUL is quiet, everything else loud; by default blanks are quiet if there are
            five of them together.
    """
    scores = np.full((len(path), NUM_LABELS), -FLOOR, np.float16)
    for frame, char in enumerate(path):
        if char == "#":
            scores[frame] = 0
        else:
            scores[frame, 0 if char == "_" else to_labels(char.translate(IN_ALPHABET))[0][0]] = 0
    speech = np.array([char not in "_ " for char in path], np.float16)
    quiet = np.array(
        [char == "_" for char in sound or path.replace("_____", "\0" * 5).replace("_", ".").replace("\0", "_")]
    )
    levels = np.where(quiet, QUIET, LOUD).astype(np.float16)
    return Posteriors(scores, speech, levels, {label: label for label in range(NUM_LABELS)})


def segmented(path: str, text: str, options: SegmentOptions | None = None, language: str = "en") -> Segmented:
    """The clips of a synthetic recording."""
    return segment_posteriors(recording(path), transcript_words(text, language), text, options or SegmentOptions())
