"""Windows of long audio: speech is in exactly one window, no window is too long, and cuts are in pauses."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.inference.longform import min_gap, speech_windows
from finetune.inference.vad import Activity

FRAME = 0.02
SPEECH, UNCERTAIN, SILENCE = 2, 1, 0


def activity(*parts: tuple[int, float], frame: float = FRAME) -> Activity:
    """A recording with sections (kind, seconds)."""
    kinds = np.concatenate([np.full(round(seconds / frame), kind) for kind, seconds in parts])
    return Activity(len(kinds) * frame, frame, kinds.astype(np.float32), kinds == SPEECH, kinds == SILENCE)


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.sampled_from([SPEECH, UNCERTAIN, SILENCE]), st.floats(0.04, 40)), min_size=1, max_size=12
    ),
    longest=st.sampled_from([3.0, 10.0, 30.0]),
    frame=st.sampled_from([0.02, 0.032]),
)
@example(parts=[(SILENCE, 1.0), (SPEECH, 3.0), (SPEECH, 1.3125), (SILENCE, 1.0)], longest=3.0, frame=0.032)
@example(
    parts=[(SPEECH, 1.0), (SILENCE, 1.0), (UNCERTAIN, 0.04), (SILENCE, 0.3), (UNCERTAIN, 0.04), (SILENCE, 1.0)],
    longest=3.0,
    frame=0.02,
)
def test_each_frame_that_is_not_silent_is_in_one_window(
    parts: list[tuple[int, float]], longest: float, frame: float
) -> None:
    recording = activity(*parts, frame=frame)
    windows = speech_windows(recording, longest)
    assert all(0 < end - start <= longest + 1e-9 for start, end in windows)
    assert all(one[1] <= two[0] + 1e-9 for one, two in pairwise(windows))
    assert not windows or (windows[0][0] >= 0 and windows[-1][1] <= recording.duration + 1e-9)
    middles = (np.flatnonzero(~recording.silent) + 0.5) * frame
    counts = [int(((start < middles) & (middles < end)).sum()) for start, end in windows]
    assert sum(counts) == len(middles), "a frame is in no window or in two"
    assert all(counts), "a window contains only silence"


def test_short_file_is_one_window() -> None:
    assert speech_windows(activity((SPEECH, 2.0), (SILENCE, 3.0), (SPEECH, 2.0)), 30.0) == [(0.0, pytest.approx(7.0))]


def test_a_recording_as_long_as_a_window_is_one_window() -> None:
    recording = activity((SPEECH, 1.0), (SILENCE, 1.0), (SPEECH, 1.0))
    assert speech_windows(recording, recording.duration) == [(0.0, recording.duration)]


@pytest.mark.parametrize("seconds", [0.02, 5.0, 29.0, 300.0])
def test_silence_has_no_window(seconds: float) -> None:
    assert speech_windows(activity((SILENCE, seconds)), 30.0) == []


def test_long_pauses_separate_windows() -> None:
    windows = speech_windows(
        activity((SPEECH, 10.0), (SILENCE, 0.3), (SPEECH, 10.0), (SILENCE, 8.0), (SPEECH, 5.0)), 30.0
    )
    assert windows == [(0.0, pytest.approx(20.4)), (pytest.approx(28.2), pytest.approx(33.3))]


@pytest.mark.parametrize(
    ("pause", "windows"),
    [
        (0.5, [(0.0, 10.1), (10.4, 35.5)]),
        (0.48, [(0.0, 25.18), (25.18, 35.48)]),  # one run of speech, cut at its quietest frame
    ],
)
def test_pause_of_half_a_second_separates_windows_and_a_shorter_one_does_not(
    pause: float, windows: list[tuple[float, float]]
) -> None:
    recording = activity((SPEECH, 10.0), (SILENCE, pause), (SPEECH, 25.0))
    recording.scores[1257:1262] -= 1.0  # its middle is at 25.18 s
    assert speech_windows(recording, 30.0) == [(pytest.approx(start), pytest.approx(end)) for start, end in windows]


@pytest.mark.parametrize(("max_window", "shortest"), [(3.0, 0.25), (6.0, 0.25), (9.0, 0.375), (12.0, 0.5), (30.0, 0.5)])
def test_shorter_pauses_separate_the_windows_of_a_model_of_short_speech(max_window: float, shortest: float) -> None:
    assert min_gap(max_window) == pytest.approx(shortest)
    frames = round(shortest / FRAME)
    for gap, count in ((frames - 1, 1), (frames, 2)):
        recording = activity((SPEECH, 1.0), (SILENCE, gap * FRAME), (SPEECH, 1.0), (SILENCE, max_window))
        windows = speech_windows(recording, max_window)
        assert len(windows) == count
    (first, second) = windows
    assert first[1] <= second[0] and first[1] == pytest.approx(1.0 + min(0.1, frames * FRAME / 2), abs=FRAME)


def test_speech_of_the_maximum_length_is_not_cut() -> None:
    assert speech_windows(activity((SPEECH, 29.9), (SILENCE, 5.0)), 30.0) == [(0.0, pytest.approx(30.0))]


def test_long_speech_is_cut_in_the_longest_pause_of_the_second_half() -> None:
    recording = activity(
        (SPEECH, 4.0),
        (UNCERTAIN, 0.4),
        (SPEECH, 13.6),
        (UNCERTAIN, 0.2),
        (SPEECH, 6.8),
        (UNCERTAIN, 0.1),
        (SPEECH, 20.0),
    )
    assert speech_windows(recording, 30.0) == [(0.0, pytest.approx(18.1)), (pytest.approx(18.1), pytest.approx(45.1))]


def test_speech_without_pauses_is_cut_at_the_quietest_frame_near_the_limit() -> None:
    recording = activity((SPEECH, 50.0))
    recording.scores[1400:1410] -= 1.0
    (first, second) = speech_windows(recording, 30.0)
    assert first[1] == second[0] == pytest.approx(28.1, abs=0.1)


def test_soft_edges_belong_to_the_speech() -> None:
    windows = speech_windows(
        activity((SILENCE, 30.0), (UNCERTAIN, 0.1), (SPEECH, 1.0), (UNCERTAIN, 0.1), (SILENCE, 30.0)), 30.0
    )
    assert windows == [(pytest.approx(29.9), pytest.approx(31.3))]


def test_isolated_uncertain_frames_have_their_own_window() -> None:
    windows = speech_windows(
        activity((SPEECH, 20.0), (SILENCE, 3.0), (UNCERTAIN, 0.1), (SILENCE, 3.0), (SPEECH, 20.0)), 30.0
    )
    assert windows[1] == (pytest.approx(22.8, abs=0.03), pytest.approx(23.3, abs=0.03))


def test_uncertain_frames_with_a_short_gap_share_a_window() -> None:
    near = [(SPEECH, 20.0), (SILENCE, 3.0), (UNCERTAIN, 0.1), (SILENCE, 0.4), (UNCERTAIN, 0.1), (SILENCE, 3.0)]
    windows = speech_windows(activity(*near, (SPEECH, 20.0)), 30.0)
    assert windows[1] == (pytest.approx(23.0, abs=0.03), pytest.approx(23.6, abs=0.03)) and len(windows) == 3


def test_a_day_of_audio_is_split() -> None:
    recording = activity(*[(SPEECH, 7.0), (SILENCE, 5.0)] * (24 * 300))
    windows = speech_windows(recording, 30.0)
    assert recording.duration == pytest.approx(86_400) and len(windows) == 24 * 300
    assert windows[-1] == (pytest.approx(86_387.9), pytest.approx(86_395.1))
