"""Windows over long audio: nothing spoken is lost or heard twice, none is too long, all end in pauses."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.inference.longform import cut
from finetune.inference.vad import Activity

FRAME = 0.02
SPEECH, UNSURE, SILENCE = 2, 1, 0


def activity(*parts: tuple[int, float], frame: float = FRAME) -> Activity:
    """Parts of (kind, seconds) one after another."""
    kinds = np.concatenate([np.full(round(seconds / frame), kind) for kind, seconds in parts])
    return Activity(len(kinds) * frame, frame, kinds.astype(np.float32), kinds == SPEECH, kinds == SILENCE)


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.tuples(st.sampled_from([SPEECH, UNSURE, SILENCE]), st.floats(0.04, 40)), min_size=1, max_size=12),
    longest=st.sampled_from([3.0, 10.0, 30.0]),
    frame=st.sampled_from([0.02, 0.032]),
)
@example(parts=[(SILENCE, 1.0), (SPEECH, 3.0), (SPEECH, 1.3125), (SILENCE, 1.0)], longest=3.0, frame=0.032)
def test_all_that_is_not_silent_is_in_one_window_and_none_is_too_long(
    parts: list[tuple[int, float]], longest: float, frame: float
) -> None:
    found = activity(*parts, frame=frame)
    windows = cut(found, longest)
    assert all(0 < end - start <= longest + 1e-9 for start, end in windows)
    assert all(one[1] <= two[0] + 1e-9 for one, two in pairwise(windows))
    assert not windows or (windows[0][0] >= 0 and windows[-1][1] <= found.duration + 1e-9)
    middles = (np.flatnonzero(~found.silent) + 0.5) * frame
    counts = [int(((start < middles) & (middles < end)).sum()) for start, end in windows]
    assert sum(counts) == len(middles), "something is in no window"
    assert all(counts), "a window of silence"


def test_a_file_that_is_short_enough_is_one_window() -> None:
    assert cut(activity((SPEECH, 2.0), (SILENCE, 3.0), (SPEECH, 2.0)), 30.0) == [(0.0, pytest.approx(7.0))]


@pytest.mark.parametrize("seconds", [0.02, 5.0, 29.0, 300.0])
def test_silence_has_no_window(seconds: float) -> None:
    assert cut(activity((SILENCE, seconds)), 30.0) == []


def test_long_pauses_part_and_short_ones_do_not() -> None:
    windows = cut(activity((SPEECH, 10.0), (SILENCE, 0.3), (SPEECH, 10.0), (SILENCE, 8.0), (SPEECH, 5.0)), 30.0)
    assert windows == [(0.0, pytest.approx(20.4)), (pytest.approx(28.2), pytest.approx(33.3))]


@pytest.mark.parametrize(
    ("pause", "windows"),
    [
        (0.5, [(0.0, 10.1), (10.4, 35.5)]),
        (0.48, [(0.0, 25.18), (25.18, 35.48)]),  # one talk, cut where it is quietest
    ],
)
def test_a_pause_of_half_a_second_parts_and_a_frame_less_does_not(
    pause: float, windows: list[tuple[float, float]]
) -> None:
    found = activity((SPEECH, 10.0), (SILENCE, pause), (SPEECH, 25.0))
    found.level[1257:1262] -= 1.0  # its middle is at 25.18 s
    assert cut(found, 30.0) == [(pytest.approx(start), pytest.approx(end)) for start, end in windows]


def test_a_stretch_as_long_as_a_window_may_be_is_not_cut() -> None:
    assert cut(activity((SPEECH, 29.9), (SILENCE, 5.0)), 30.0) == [(0.0, pytest.approx(30.0))]


def test_too_long_a_stretch_is_cut_in_the_longest_pause_of_its_second_half() -> None:
    found = activity(
        (SPEECH, 4.0), (UNSURE, 0.4), (SPEECH, 13.6), (UNSURE, 0.2), (SPEECH, 6.8), (UNSURE, 0.1), (SPEECH, 20.0)
    )
    assert cut(found, 30.0) == [(0.0, pytest.approx(18.1)), (pytest.approx(18.1), pytest.approx(45.1))]


def test_where_nobody_pauses_the_quietest_place_near_the_limit_is_taken() -> None:
    found = activity((SPEECH, 50.0))
    found.level[1400:1410] -= 1.0
    (first, second) = cut(found, 30.0)
    assert first[1] == second[0] == pytest.approx(28.1, abs=0.1)


def test_a_soft_beginning_and_end_stay_with_their_word() -> None:
    windows = cut(activity((SILENCE, 30.0), (UNSURE, 0.1), (SPEECH, 1.0), (UNSURE, 0.1), (SILENCE, 30.0)), 30.0)
    assert windows == [(pytest.approx(29.9), pytest.approx(31.3))]


def test_what_may_be_speech_far_from_any_has_a_window_of_its_own() -> None:
    windows = cut(activity((SPEECH, 20.0), (SILENCE, 3.0), (UNSURE, 0.1), (SILENCE, 3.0), (SPEECH, 20.0)), 30.0)
    assert windows[1] == (pytest.approx(22.8, abs=0.03), pytest.approx(23.3, abs=0.03))


def test_a_day_of_audio_is_cut_in_a_moment() -> None:
    found = activity(*[(SPEECH, 7.0), (SILENCE, 5.0)] * (24 * 300))
    windows = cut(found, 30.0)
    assert found.duration == pytest.approx(86_400) and len(windows) == 24 * 300
    assert windows[-1] == (pytest.approx(86_387.9), pytest.approx(86_395.1))
