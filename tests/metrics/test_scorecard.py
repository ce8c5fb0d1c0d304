"""Scores of one set: independent of the order, JSON values, and fast for many clips."""

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
from finetune.metrics.scores import (
    EmptyReferences,
    NormalizerChange,
    PromptedKeywords,
    SubsetWer,
    empty_references_note,
)

WORDS = [f"word{number}" for number in range(300)]
OPTIONS = ScoringOptions("basic@2", 200, 1, tuple(WORDS[:20]), frozenset(WORDS[:10]), {word: 3 for word in WORDS[:150]})


def clips(count: int, seed: int) -> list[Clip]:
    rng = random.Random(seed)
    return [
        Clip(
            f"u{number}",
            " ".join(rng.choices(WORDS, k=10)),
            rng.uniform(2, 12),
            f"s{number % 20}",
            f"{number}.wav",
            "transcribe the speech",
            columns={"accent": f"a{number % 3}"},
            measures={"duration": rng.uniform(0.5, 30)},
        )
        for number in range(count)
    ]


def recognize(clips: list[Clip], rate: float, seed: int) -> list[SystemOutput]:
    rng = random.Random(seed)
    return [
        SystemOutput(
            " ".join(rng.choice(WORDS) if rng.random() < rate else word for word in clip.text.split()), 0.5, False
        )
        for clip in clips
    ]


def test_scores_do_not_depend_on_order() -> None:
    order = random.Random(2).sample(range(60), 60)
    utterances = clips(60, 0)
    base, adapted = recognize(utterances, 0.3, 1), recognize(utterances, 0.2, 2)

    def everything(order: Sequence[int]) -> Any:
        chosen = [utterances[i] for i in order]
        outputs = {name: [rows[i] for i in order] for name, rows in (("base", base), ("adapted", adapted))}
        return (
            scorecard(chosen, outputs["base"], OPTIONS),
            comparison(chosen, *outputs.values(), OPTIONS),
            group_tables(chosen, outputs, ["accent"], OPTIONS),
        )

    assert everything(order) == everything(range(60))


def test_scores_are_json_values() -> None:
    utterances = clips(60, 0)
    base, adapted = recognize(utterances, 0.3, 1), recognize(utterances, 0.1, 2)
    tables = group_tables(utterances, {"base": base, "adapted": adapted}, ["accent", "nothing"], OPTIONS)
    for part in (scorecard(utterances, base, OPTIONS), comparison(utterances, base, adapted, OPTIONS), *tables):
        assert json.dumps(asdict(part), allow_nan=False)
    assert [table.column for table in tables] == ["accent", "duration"]
    assert sum(row.words for row in tables[0].rows) == sum(row.words for row in tables[1].rows) == 600


def test_scores_of_three_utterances() -> None:
    utterances = [
        Clip("a", "take the stent", 2.0, "", "a.wav", "", keywords=("stent", "graft")),
        Clip("b", "?!", 2.0, "", "b.wav", ""),
        Clip("c", "no", 1.0, "", "c.wav", "", keywords=("graft",)),
    ]
    outputs = [
        SystemOutput("Take the graft.", 1.0, False),
        SystemOutput("", 0.5, False),
        SystemOutput("no no no no no", 0.5, True),
    ]
    card = scorecard(utterances, outputs, OPTIONS)
    scores = card.scores
    assert (scores.wer, scores.raw_wer, scores.normalizer) == (5 / 4, 7 / 5, "basic@2")
    assert scores.flags == {"keyword": 1, "loop": 1, "truncated": 1}
    assert scores.without_flagged == SubsetWer(1, 0.0)
    assert scores.prompted == PromptedKeywords(utterances=2, in_reference=1)
    assert (scores.utterances, scores.utterances_wrong, scores.empty_hypotheses) == (3, 2, 1)
    assert (scores.audio_seconds, scores.rtfx) == (5.0, 2.5)
    assert card.details.normalizer_changes == [NormalizerChange("b", "reference", "?!")]
    assert scores.blocks.unit == "utterance" and card.details.terms == []


def test_words_on_empty_references_are_insertions_and_listed() -> None:
    utterances = [
        Clip("a", "take the stent", 2.0, "", "a.wav", ""),
        *(Clip(f"s{number}", "", 2.0, "", "", "", target_language="de") for number in range(3)),
    ]
    texts = ["take the stent", "made up", "", "words"]
    card = scorecard(utterances, [SystemOutput(text, 1.0, False) for text in texts], OPTIONS)
    assert (card.scores.insertions, card.scores.reference_words, card.scores.wer) == (3, 3, 1.0)
    assert card.scores.empty_references == EmptyReferences(3, 2, 3, ["s0", "s2"])
    assert card.scores.flags == {"unspoken": 2} and card.scores.without_flagged == SubsetWer(2, 0.0)
    assert card.scores.translation == {}  # no reference to translate
    assert empty_references_note(card.scores) == (
        "3 of 4 clips have an empty reference; 3 words were recognized on 2 of them, such as 's0': insertions"
    )
    silent = scorecard(utterances[1:], [SystemOutput("", 1.0, False)] * 3, OPTIONS).scores
    assert (silent.wer, silent.interval.high, silent.empty_references) == (0.0, 0.0, EmptyReferences(3, 0, 0, []))
    assert empty_references_note(silent).endswith("no words were recognized on them")
    outputs = [[SystemOutput(text, 1.0, False) for text in column] for column in (texts[1:], ["", "", "words"])]
    compared = comparison(utterances[1:], *outputs, OPTIONS)
    assert json.dumps(asdict(compared), allow_nan=False)


def test_bad_input_is_refused() -> None:
    utterances = clips(2, 0)
    with pytest.raises(DataError, match="2 references but 1"):
        scorecard(utterances, recognize(utterances, 0.1, 0)[:1], OPTIONS)
    with pytest.raises(DataError, match="no utterances"):
        scorecard([], [], OPTIONS)


def test_many_clips_take_seconds_and_little_memory() -> None:
    utterances = clips(500, 0)
    base, adapted = recognize(utterances, 0.3, 1), recognize(utterances, 0.1, 2)
    start = time.process_time()
    for outputs in (base, adapted):
        scorecard(utterances, outputs, OPTIONS)
    comparison(utterances, base, adapted, OPTIONS)
    group_tables(utterances, {"base": base, "adapted": adapted}, ["accent"], OPTIONS)
    assert time.process_time() - start < 6  # a twentieth of 10,000 clips
    tracemalloc.start()
    scorecard(utterances[:300], base[:300], OPTIONS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6


def test_translations_without_a_reference_are_no_blocks() -> None:
    texts = ["hello my friend", "good day to you", "see you soon", "thanks a lot", "my name is", "how are you"]
    scored = [Clip(f"u{n}", text, 3.0, f"s{n}", f"{n}", "", target_language="en") for n, text in enumerate(texts)]
    empty = [Clip(f"e{n}", " ", 3.0, f"e{n}", f"e{n}", "", target_language="en") for n in range(6)]
    base, adapted = ([SystemOutput(text, 0.1, False) for text in column] for column in (["hola"] * 6, texts))
    more = [SystemOutput("hola", 0.1, False)] * 6
    result = comparison([*scored, *empty], [*base, *more], [*adapted, *more], OPTIONS)
    assert result == comparison(scored, base, adapted, OPTIONS) and result.blocks == 6
    nothing = comparison(empty, more, more, OPTIONS)
    assert nothing.difference == 0 and nothing.note == "no translation has a reference, so nothing was scored"
