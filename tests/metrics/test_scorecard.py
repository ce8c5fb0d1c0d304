"""All scores of one set together: they do not depend on order, are plain values, and take seconds for many clips."""

import json
import random
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from finetune.core.errors import DataError
from finetune.metrics.scorecard import Clip, ScoringOptions, SystemOutput, comparison, group_tables, scorecard

WORDS = [f"word{number}" for number in range(300)]
SETTING = ScoringOptions("basic@1", 200, 1, tuple(WORDS[:20]), frozenset(WORDS[:10]), {word: 3 for word in WORDS[:150]})


def clips(count: int, seed: int) -> list[Clip]:
    rng = random.Random(seed)
    return [
        Clip(
            f"u{number}",
            " ".join(rng.choices(WORDS, k=10)),
            rng.uniform(2, 12),
            f"s{number % 20}",
            f"{number}.wav",
            "write what is said",
            columns={"accent": f"a{number % 3}"},
            measures={"duration": rng.uniform(0.5, 30)},
        )
        for number in range(count)
    ]


def hear(said: list[Clip], rate: float, seed: int) -> list[SystemOutput]:
    rng = random.Random(seed)
    return [
        SystemOutput(
            " ".join(rng.choice(WORDS) if rng.random() < rate else word for word in clip.text.split()), 0.5, False
        )
        for clip in said
    ]


def test_scores_do_not_depend_on_order() -> None:
    order = random.Random(2).sample(range(60), 60)
    said = clips(60, 0)
    base, adapted = hear(said, 0.3, 1), hear(said, 0.2, 2)

    def everything(order: Sequence[int]) -> Any:
        some = [said[i] for i in order]
        heard = {name: [found[i] for i in order] for name, found in (("base", base), ("adapted", adapted))}
        return (
            scorecard(some, heard["base"], SETTING),
            comparison(some, *heard.values(), SETTING),
            group_tables(some, heard, ["accent"], SETTING),
        )

    assert everything(order) == everything(range(60))


def test_all_of_it_is_json() -> None:
    said = clips(60, 0)
    base, adapted = hear(said, 0.3, 1), hear(said, 0.1, 2)
    tables = group_tables(said, {"base": base, "adapted": adapted}, ["accent", "nothing"], SETTING)
    for part in (scorecard(said, base, SETTING), comparison(said, base, adapted, SETTING), [asdict(t) for t in tables]):
        assert json.dumps(part, allow_nan=False)
    assert [table.column for table in tables] == ["accent", "duration"]
    assert sum(row.words for row in tables[0].rows) == sum(row.words for row in tables[1].rows) == 600


def test_what_scores_are_made_of() -> None:
    said = [
        Clip("a", "take the stent", 2.0, "", "a.wav", "", keywords=("stent", "graft")),
        Clip("b", "?!", 2.0, "", "b.wav", ""),
        Clip("c", "no", 1.0, "", "c.wav", ""),
    ]
    heard = [
        SystemOutput("Take the graft.", 1.0, False),
        SystemOutput("", 0.5, False),
        SystemOutput("no no no no no", 0.5, True),
    ]
    entry, details = scorecard(said, heard, SETTING)
    assert (entry["wer"], entry["raw_wer"], entry["normalizer"]) == (5 / 4, 7 / 5, "basic@1")
    assert entry["flags"] == {"keyword": 1, "loop": 1, "truncated": 1}
    assert entry["without_flagged"] == {"utterances": 1, "wer": 0.0}
    assert entry["prompted"] == {"utterances": 1, "said": 1}
    assert (entry["utterances"], entry["utterances_wrong"], entry["empty_hypotheses"]) == (3, 2, 1)
    assert (entry["audio_seconds"], entry["rtfx"]) == (5.0, 2.5)
    assert details["normalizer_changes"] == [{"id": "b", "side": "reference", "text": "?!"}]
    assert entry["blocks"]["unit"] == "utterance" and details["terms"] == []


def test_bad_input_is_refused() -> None:
    said = clips(2, 0)
    with pytest.raises(DataError, match="2 references but 1"):
        scorecard(said, hear(said, 0.1, 0)[:1], SETTING)
    with pytest.raises(DataError, match="no utterances"):
        scorecard([], [], SETTING)


def test_many_clips_take_seconds_and_little_memory() -> None:
    said = clips(500, 0)
    base, adapted = hear(said, 0.3, 1), hear(said, 0.1, 2)
    start = time.process_time()
    for heard in (base, adapted):
        scorecard(said, heard, SETTING)
    comparison(said, base, adapted, SETTING)
    group_tables(said, {"base": base, "adapted": adapted}, ["accent"], SETTING)
    assert time.process_time() - start < 6  # a twentieth of 10,000 clips
    tracemalloc.start()
    scorecard(said[:300], base[:300], SETTING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6
