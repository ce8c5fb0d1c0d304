"""Clips of an epoch as utterances that are made when they are asked for."""

import pytest
from support import clip_table

from finetune.data.manifest import Utterance, concatenated
from finetune.training.clip_table import ClipTable
from finetune.training.plan import Groups

ITEMS = [Utterance(f"u{n}", f"{n}.wav", 0.1 + n / 3, f"text {n}", keywords=("a", f"b{n}")) for n in range(5)]


def test_clips_are_the_utterances_then_the_concatenated_ones() -> None:
    base = clip_table([], ITEMS).base
    groups = Groups.of([(2, 0), (1,), (3, 4, 1), (2, 0)])
    clips = ClipTable(base, groups, times := groups.sizes.astype("int32"))
    added = [tuple(ITEMS[row] for row in group) for group in groups]
    assert [clips.sources(index) for index in range(9)] == [*((item,) for item in ITEMS), *added]
    expected = [concatenated(sources, time) for sources, time in zip(added, times.tolist(), strict=True)]
    assert list(clips) == [*ITEMS, *expected] and len(clips) == 9
    assert clips[5].id == "u2+u0#2" and clips[6].id == "u1" and clips[-2].id == "u3+u4+u1#3"
    assert clips.durations.tolist() == [item.duration for item in clips]
    assert clips[4:6] == [ITEMS[4], expected[0]]
    with pytest.raises(IndexError):
        clips[9]
