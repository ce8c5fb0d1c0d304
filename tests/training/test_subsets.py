"""Nested parts of a training manifest: contained in each other, by audio, by whole speakers, in any order of rows."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from finetune.data.manifest import Utterance
from finetune.data.utterance_table import as_table
from finetune.metrics.curve_results import Unit
from finetune.training.subsets import MIN_SPEAKERS, nested_parts, unit_for

CLIPS = [Utterance(f"clip-{n}", "a.wav", 1 + n % 3, "text", speaker=f"speaker-{n * 7 % 40}") for n in range(200)]
SHARES = [0.1, 0.25, 0.5, 1.0]


def ids(clips: list[Utterance], unit: Unit, seed: int = 1) -> list[set[str]]:
    return [{clips[row].id for row in rows} for rows in nested_parts(as_table(clips), SHARES, unit, seed)]


@pytest.mark.parametrize("unit", ["clips", "speakers"])
def test_parts_are_nested_have_their_share_of_the_audio_and_do_not_depend_on_the_order(unit: Unit) -> None:
    parts = ids(CLIPS, unit)
    assert all(small < large for small, large in itertools.pairwise(parts))
    assert parts[-1] == {clip.id for clip in CLIPS}
    total = sum(clip.duration for clip in CLIPS)
    for share, names in zip(SHARES, parts, strict=True):
        seconds = sum(clip.duration for clip in CLIPS if clip.id in names)
        assert share - (0.02 if unit == "clips" else 0.15) <= seconds / total <= share + 1e-9
    assert ids(CLIPS[::-1], unit) == parts
    assert ids(CLIPS, unit, seed=2)[:-1] != parts[:-1]
    shuffled = [replace(clip, text="other") for clip in CLIPS[100:] + CLIPS[:100]]
    assert ids(shuffled, unit) == parts


def test_parts_of_speakers_have_all_their_clips() -> None:
    for names in ids(CLIPS, "speakers"):
        speakers = {clip.speaker for clip in CLIPS if clip.id in names}
        assert names == {clip.id for clip in CLIPS if clip.speaker in speakers}


def test_the_smallest_part_has_a_speaker_and_rows_stay_in_order() -> None:
    parts = nested_parts(as_table(CLIPS), [0.001, 1.0], "speakers", 1)
    assert len(parts[0]) and len({CLIPS[row].speaker for row in parts[0]}) == 1
    assert all((np.diff(rows) > 0).all() for rows in parts)


def test_speakers_are_chosen_if_all_are_known_and_there_are_enough() -> None:
    many = [f"s{n}" for n in range(MIN_SPEAKERS)]
    assert unit_for(many) == "speakers"
    assert unit_for(many[1:]) == unit_for([*many, ""]) == "clips"
