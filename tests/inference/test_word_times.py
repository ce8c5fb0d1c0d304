"""Word times: in order, within the window, and at the frames of the characters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finetune.inference.segments import split_words
from finetune.inference.word_times import WORD_END, align, word_times
from finetune.model.ctc import KATAKANA, LATIN, NUM_LABELS


def log_probs(path: str, peak: float = 0.9) -> NDArray[np.float32]:
    """Log probabilities (T, 348) of a head that emits one character of `path` in each frame; `_` is the blank."""
    labels = [0 if char == "_" else ord(char) if ord(char) < LATIN else ord(char) - KATAKANA + LATIN for char in path]
    probs = np.full((len(path), NUM_LABELS), (1 - peak) / (NUM_LABELS - 1))
    probs[np.arange(len(path)), labels] = peak
    return np.log(probs).astype(np.float32)


@pytest.mark.parametrize(
    ("path", "text", "frames"),
    [
        ("__hh_i__ __yy_ou__", "hi you", [(2, 6), (11, 16)]),
        ("aab_b c", "abb c", [(0, 5), (6, 7)]),  # a repeated character needs a blank between
        ("_h_i_", "hi", [(1, 4)]),
        ("__hi__you__", "hi you", [(2, 4), (6, 9)]),  # no frame for the space
        ("_hi_you_", "«Hi, you!»", [(1, 3), (4, 7)]),
        ("_'t_is dogs'__", "'t is dogs'", [(1, 3), (4, 6), (7, 12)]),  # the head emits apostrophes
        ("_he_y ther_e__", "hey there", [(1, 5), (6, 12)]),
        ("__ク_スリ__", "クスリ", [(2, 3), (4, 5), (5, 6)]),
        ("__ク_スリ__", "くすり", [(2, 3), (4, 5), (5, 6)]),  # the head emits katakana for hiragana too
        ("_タ__ベル_", "食べる", [(0, 4), (4, 5), (5, 6)]),  # the first has no label and gets the remaining frames
        ("_a____b_", "a 薬 b", [(1, 2), (2, 6), (6, 7)]),
        ("__hi_ you__", "hi & you", [(2, 4), (4, 6), (6, 9)]),  # one space in the audio, two in the text
        ("______", "薬品", [(0, 3), (3, 6)]),
        ("ab", "far too long for it", [(0, 0), (0, 0), (0, 1), (1, 1), (1, 2)]),
        ("____", "", []),
        ("", "hi you", [(0, 0), (0, 0)]),
    ],
)
def test_words_are_aligned_with_their_frames(path: str, text: str, frames: list[tuple[int, int]]) -> None:
    assert align(log_probs(path).reshape(-1, NUM_LABELS), text).frames == frames


def test_words_without_frames_do_not_move_the_others() -> None:
    """The language model can correct, remove and add words of the CTC text."""
    frames = align(log_probs("__the__ _kat_ _sad__ ___down__"), "the cat sat right down").frames
    assert frames[0] == (2, 5) and frames[4] == (24, 28)
    assert 7 < frames[1][0] < frames[1][1] < 13 and 13 < frames[2][0] < frames[2][1] < 20


@settings(max_examples=60, deadline=None)
@given(text=st.text("ab é薬くス。 ", max_size=12), seed=st.integers(0, 1000), length=st.integers(0, 40))
def test_times_are_ordered_and_within_the_window(text: str, seed: int, length: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((length, NUM_LABELS)).astype(np.float32) * 4
    frames = align(scores, text).frames
    assert len(frames) == len(split_words(text))
    edges = [edge for pair in frames for edge in pair]
    assert edges == sorted(edges) and all(0 <= edge <= length for edge in edges)


def test_a_word_ends_after_its_last_character_and_before_the_next_word() -> None:
    (hi, you, end) = word_times(log_probs("__hi___ you__________end_"), "hi you end")
    assert hi == pytest.approx((0.04, 0.12)), "at most to the middle of the gap of 4 frames"
    assert you == pytest.approx((0.16, 0.22 + WORD_END)), "a pause follows"
    assert end == pytest.approx((0.42, 0.50)), "at most to the end of the window"
