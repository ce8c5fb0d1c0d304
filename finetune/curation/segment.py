"""Cuts a long recording with a plain transcript into clips, by forced alignment with the CTC head of the model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from finetune.core.options import SegmentOptions
from finetune.curation.aligned_words import AlignedWord
from finetune.curation.clip_cutting import Clip, ClipCutter, SetAside, runs
from finetune.curation.posteriors import Posteriors, read_posteriors
from finetune.curation.star_alignment import WordFrames, align
from finetune.curation.transcript_words import TranscriptWord, transcript_words
from finetune.data.features import FRAME_SECONDS
from finetune.inference.segments import join_texts
from finetune.model.granite import SpeechModel


@dataclass(frozen=True)
class Piece:
    """A part of a recording and its words as the transcript has them.

    Attributes:
        start, end: seconds; None for words without a place.
        position: number of the first word in the transcript, from 0; None for speech without text.
        reason: why it is no clip; "" for a clip.
    """

    start: float | None
    end: float | None
    text: str
    score: float | None
    position: int | None
    num_words: int
    reason: str


@dataclass(frozen=True)
class Segmented:
    """The clips of a recording, and everything else of its transcript, with reasons."""

    clips: list[Piece]
    aside: list[Piece]
    seconds: float


def segment_audio(
    model: SpeechModel, blocks: Iterable[NDArray[np.float32]], text: str, language: str, options: SegmentOptions
) -> Segmented:
    """Finds clips whose text is certain.

    Args:
        blocks: consecutive samples (n,) of the recording, mono, 16 kHz.
        text: its transcript.
        language: of the text; "" is `options.language`.
    """
    words = transcript_words(text, language or options.language)
    posteriors = read_posteriors(model, blocks, {label for word in words for label in word.labels})
    return segment_posteriors(posteriors, words, text, options)


def segment_posteriors(
    posteriors: Posteriors, words: Sequence[TranscriptWord], text: str, options: SegmentOptions
) -> Segmented:
    """`segment_audio` from the scores of the CTC head."""
    aligned = [
        AlignedWord(text[word.start : word.end], word.labels, place)
        for word, place in zip(words, _places(posteriors, words), strict=True)
    ]
    clips, aside = ClipCutter(posteriors, aligned, options).cut()
    return Segmented(
        [_piece(clip, words, text, "") for clip in clips],
        [_piece(item, words, text, item.reason) for item in aside],
        len(posteriors.speech) * FRAME_SECONDS,
    )


def _piece(item: Clip | SetAside, words: Sequence[TranscriptWord], text: str, reason: str) -> Piece:
    """A clip, or what is set aside, with its words as they are written; a word that was set aside leaves no gap."""
    parts = list[str]()
    for run in runs(item.words):
        parts.append(text[words[run[0]].start : words[run[-1]].end])
    position = item.words[0] if item.words else None
    return Piece(item.start, item.end, join_texts(parts), item.score, position, len(item.words), reason)


def _places(posteriors: Posteriors, words: Sequence[TranscriptWord]) -> list[WordFrames | None]:
    """The place of each word; None for words without labels."""
    labelled = [number for number, word in enumerate(words) if word.labels]
    places: list[WordFrames | None] = [None] * len(words)
    if labelled:
        wild = [right - left > 1 for left, right in pairwise([-1, *labelled, len(words)])]
        aligned = align(posteriors, [words[number].labels for number in labelled], wild)
        for number, place in zip(labelled, aligned, strict=True):
            places[number] = place
    return places
