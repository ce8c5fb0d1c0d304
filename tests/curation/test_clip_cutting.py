"""Clips contain only what the audio confirms, are cut at pauses, and nothing of the transcript is lost."""

import itertools

import numpy as np
import pytest
from curation_recording import PAUSE, frames_of, recording, segmented
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.options import SegmentOptions
from finetune.curation.clip_cutting import ABSENT, DOUBTFUL, LONG, NO_TEXT, SHORT, UNALIGNED
from finetune.curation.segment import Segmented, segment_posteriors
from finetune.curation.transcript_words import transcript_words

SHORT_CLIPS = SegmentOptions(min_duration=0.5, shortest=0.3, max_duration=20)
SENTENCE = frames_of("the quick brown fox")


def texts(result: Segmented) -> list[str]:
    return [clip.text for clip in result.clips]


def reasons(result: Segmented) -> list[tuple[str, str]]:
    return [(piece.text, piece.reason) for piece in result.aside]


def test_clips_are_joined_to_the_shortest_length_and_cut_at_the_longest_pauses() -> None:
    words = ["alpha", "bravo", "charlie", "delta", "golf", "hotel"]
    pauses = [30, 60, 30, 20, 90]  # frames
    path = PAUSE + "".join(
        frames_of(word) + "_" * pause for word, pause in itertools.zip_longest(words, pauses, fillvalue=25)
    )
    result = segmented(path, " ".join(words), SegmentOptions(min_duration=1, shortest=0.3, max_duration=2.4))
    assert texts(result) == ["alpha bravo", "charlie delta golf", "hotel"] and result.aside == []
    assert all(clip.score == 1 for clip in result.clips)


def test_a_clip_that_could_be_longer_ends_with_its_sentence() -> None:
    sentence = frames_of("yes we can go now")
    path = PAUSE + (sentence + "_" * 20) * 4
    options = SegmentOptions(min_duration=1, shortest=0.3, max_duration=5)
    result = segmented(path, "Yes, we can go now. " * 4, options)
    assert len(texts(result)) > 1 and all(text.endswith("now.") for text in texts(result))
    assert texts(segmented(path, "yes we can go now " * 4, options))[0] != "Yes, we can go now."


def test_clips_begin_and_end_in_the_pauses_near_the_words() -> None:
    path = PAUSE + SENTENCE + PAUSE
    (clip,) = segmented(path, "the quick brown fox", SHORT_CLIPS).clips
    assert (clip.start, clip.end) == (
        pytest.approx(0.5 - 0.1),
        pytest.approx(0.5 + len(SENTENCE) * 0.02 + 0.1, abs=0.021),
    )
    (close,) = segmented("__" + SENTENCE + "__", "the quick brown fox", SHORT_CLIPS).clips
    assert 0 < close.start < 0.04 and close.end <= (len(SENTENCE) + 4) * 0.02


def test_speech_without_text_is_cut_out_and_set_aside() -> None:
    path = PAUSE + SENTENCE + " " + frames_of("jumps over") + " " + frames_of("the lazy dog") + PAUSE
    result = segmented(path, "the quick brown fox the lazy dog", SHORT_CLIPS)
    assert texts(result) == ["the quick brown fox", "the lazy dog"]
    (piece,) = result.aside
    start = 0.5 + (len(SENTENCE) + 1) * 0.02
    assert (piece.text, piece.reason, piece.num_words, piece.position) == ("", NO_TEXT, 0, None)
    assert piece.start == pytest.approx(start) and piece.end == pytest.approx(start + 0.38)
    first, second = result.clips
    assert (first.end or 0) <= start + 0.01 and (second.start or 0) >= start + 0.36


def test_a_made_up_word_is_set_aside_and_the_clip_goes_on() -> None:
    result = segmented(PAUSE + SENTENCE + PAUSE, "the quick purple brown fox", SHORT_CLIPS)
    assert texts(result) == ["the quick brown fox"] and reasons(result) == [("purple", ABSENT)]


def test_a_clip_does_not_go_on_over_a_word_that_may_have_been_spoken() -> None:
    """The model is not sure between two words: the missing one could be there."""
    posteriors = recording(PAUSE + frames_of("the quick ") + "______" + frames_of("brown fox") + PAUSE)
    gap = slice(25 + 20, 25 + 24)
    posteriors.scores[gap] = -5.0
    posteriors.scores[gap, 0] = 0
    text = "the quick red brown fox"
    result = segment_posteriors(posteriors, transcript_words(text, "en"), text, SHORT_CLIPS)
    assert texts(result) == ["the quick", "brown fox"] and reasons(result) == [("red", ABSENT)]


def test_a_word_that_the_model_reads_otherwise_is_doubtful() -> None:
    path = PAUSE + frames_of("the quick ") + frames_of("brqzq") + " " + frames_of("fox ran away") + PAUSE
    result = segmented(path, "the quick brown fox ran away", SHORT_CLIPS)
    assert "brown" not in " ".join(texts(result))
    assert [text for text, _ in reasons(result)] == ["brown"] and texts(result) == ["the quick", "fox ran away"]


def test_words_that_stand_alone_are_set_aside_if_they_are_short() -> None:
    path = PAUSE + SENTENCE + frames_of(" zzzz cat zzzz ") + SENTENCE + PAUSE
    result = segmented(path, "the quick brown fox cat the quick brown fox", SHORT_CLIPS)
    assert texts(result) == ["the quick brown fox"] * 2
    assert ("cat", SHORT) in reasons(result)


def test_few_characters_are_no_evidence() -> None:
    options = SegmentOptions(min_duration=0.5, shortest=0.1, max_duration=20)
    assert texts(segmented(PAUSE + frames_of("cats") + PAUSE, "cats", options)) == ["cats"]
    result = segmented(PAUSE + frames_of("cat") + PAUSE, "cat", options)
    assert (texts(result), reasons(result)) == ([], [("cat", DOUBTFUL)])


def test_a_piece_without_a_cut_can_be_too_long() -> None:
    path = PAUSE + frames_of("ab ") + "_" * 80 + frames_of(" cd") + PAUSE
    options = SegmentOptions(min_duration=0.4, shortest=0.1, max_duration=1)
    assert reasons(segmented(path, "ab 薬 cd", options)) == [("ab 薬 cd", LONG)]


def test_words_without_labels_stay_between_aligned_ones_and_lower_the_score() -> None:
    path = PAUSE + frames_of("アリガト") + frames_of("qqq") + frames_of("ゴザイマス") + PAUSE
    result = segmented(path, "ありがと薬ございます", SHORT_CLIPS, "ja")
    (clip,) = result.clips
    assert clip.text == "ありがと薬ございます" and clip.score == pytest.approx(0.9)
    alone = segmented(PAUSE + SENTENCE + PAUSE, "薬 the quick brown fox", SHORT_CLIPS)
    assert texts(alone) == ["the quick brown fox"] and reasons(alone) == [("薬", UNALIGNED)]


def test_numbers_are_aligned_as_words_and_kept_as_written() -> None:
    path = PAUSE + frames_of("take twenty five drops now") + PAUSE
    assert texts(segmented(path, "Take 25 drops, now!", SHORT_CLIPS)) == ["Take 25 drops, now!"]


def test_audio_without_the_text_gives_no_clip() -> None:
    silence = segmented("_" * 500, "the quick brown fox", SHORT_CLIPS)
    assert silence.clips == [] and reasons(silence) == [("the quick brown fox", ABSENT)]
    other = segmented(
        PAUSE + frames_of("un deux trois quatre cinq six") + PAUSE, "the lazy dog jumps over", SHORT_CLIPS
    )
    assert other.clips == [] and sum(piece.num_words for piece in other.aside) == 5
    noise = segmented("#" * 500, "the quick brown fox jumps over the lazy dog", SHORT_CLIPS)
    assert len(noise.clips) <= 1  # every text agrees with a model that excludes nothing


WORDS = ["alpha", "bravo", "it", "a", "25", "薬", "café", "«no»", "-", "delta"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(["both", "text", "audio"])), max_size=14))
def test_each_word_is_in_exactly_one_piece_in_order(script: list[tuple[str, str]]) -> None:
    text = " ".join(word for word, where in script if where != "audio")
    spoken = " ".join(word.strip("«»-25薬") for word, where in script if where != "text")
    result = segmented(PAUSE + frames_of(spoken) + PAUSE, text, SHORT_CLIPS)
    pieces = [*result.clips, *(piece for piece in result.aside if piece.num_words)]
    in_pieces = " ".join(piece.text for piece in pieces).replace("薬薬", "薬 薬").replace("薬薬", "薬 薬")
    assert sorted(in_pieces.split()) == sorted(text.split())  # Chinese words are joined without a space
    assert sum(piece.num_words for piece in pieces) <= len(text.split())
    edges = [edge for clip in result.clips for edge in (clip.start or 0.0, clip.end or 0.0)]
    assert edges == sorted(edges) and all(0 <= edge <= result.seconds for edge in edges)
    for clip in result.clips:
        assert 0.3 <= (clip.end or 0) - (clip.start or 0) <= 20 and 0 < (clip.score or 0) <= 1
    assert [clip.position for clip in result.clips] == sorted(clip.position or 0 for clip in result.clips)
    assert np.isfinite(edges).all()


def test_a_word_below_the_lowest_score_is_set_aside() -> None:
    path, text = PAUSE + frames_of("the quick brxwn fox ran away") + PAUSE, "the quick brown fox ran away"
    assert texts(segmented(path, text, SHORT_CLIPS)) == [text]
    strict = SegmentOptions(min_duration=0.5, shortest=0.3, max_duration=20, min_score=0.2)
    assert ("brown", DOUBTFUL) in reasons(segmented(path, text, strict))


def test_a_word_in_silence_is_absent_although_it_costs_less_than_to_skip_it() -> None:
    posteriors = recording(PAUSE + SENTENCE + PAUSE + SENTENCE + PAUSE)
    start = len(PAUSE + SENTENCE)
    posteriors.scores[start : start + len(PAUSE), [ord(char) for char in "zyvw"]] = -2.0
    text = "the quick brown fox zyvw the quick brown fox"
    result = segment_posteriors(posteriors, transcript_words(text, "en"), text, SHORT_CLIPS)
    assert ("zyvw", ABSENT) in reasons(result) and "zyvw" not in " ".join(texts(result))
