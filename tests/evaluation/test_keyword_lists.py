"""The keywords of a prompt: the terms of the utterance, other terms, and words of the training data."""

from pathlib import Path
from random import Random

from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance
from finetune.evaluation.keyword_lists import (
    ListKind,
    evaluate_keyword_lists,
    kinds,
    sample_distractors,
    words_that_fit,
)
from finetune.inference.recognize import Hypothesis
from finetune.metrics.scorecard import ScoringOptions
from finetune.model.granite import load_model
from finetune.model.prompt import render

TERMS = ["aspirin", "digoxin", "stent"]
WORDS = ["take", "now", "again", "daily"]


def sample(count: int, words: list[str] = WORDS) -> list[str]:
    return sample_distractors(["aspirin"], TERMS, words, "take aspirin now", count, Random(0))


def test_other_terms_are_the_first_distractors() -> None:
    assert sample(0) == []
    assert set(sample(1)) < {"digoxin", "stent"} and len(sample(1)) == 1
    assert set(sample(2)) == {"digoxin", "stent"}


def test_words_of_the_reference_are_not_distractors() -> None:
    assert set(sample(4)) == set(sample(9)) == {"digoxin", "stent", "again", "daily"}
    assert set(sample(3)) - set(TERMS) in ({"again"}, {"daily"})
    assert set(sample(9, ["take", "now"])) == {"digoxin", "stent"}


def test_the_seed_decides_the_sample() -> None:
    many = [f"word{number}" for number in range(50)]
    assert sample(20, many) == sample(20, many) and len(set(sample(20, many))) == 20
    assert sample(20, many) != sample_distractors(["aspirin"], TERMS, many, "take aspirin now", 20, Random(1))


def test_kinds_of_prompts() -> None:
    assert [*kinds([0, 5], ["test", "canary"])] == [
        ListKind("test", None, False),
        ListKind("test", 0, True),
        ListKind("test", 5, True),
        ListKind("test", 5, False),
        ListKind("canary", None, False),
        ListKind("canary", 5, False),
    ]


def test_a_list_loses_its_last_words_until_it_fits_into_the_window(nano: Path) -> None:
    model = load_model(str(nano), "float32")
    words, clip = [f"word{number}" for number in range(1500)], Utterance("u", "a.wav", 2.0, "text")
    kept = words_that_fit(model, "write", 200, clip, words)
    assert kept == words[: len(kept)]
    room = model.max_positions - 200 - 21  # 21 audio tokens in 2 s
    sizes = [
        sum(map(len, (prompt.prefix, prompt.suffix)))
        for prompt in (render(model.tokenizer, "write", tuple(words[:count])) for count in (len(kept), len(kept) + 1))
    ]
    assert sizes[0] <= room < sizes[1]
    assert words_that_fit(model, "write", 200, clip, words[:9]) == words[:9]
    assert words_that_fit(model, "write", 4090, clip, words[:9]) == []


def test_lists_that_the_ctc_head_uses_are_not_shortened() -> None:
    """They need no room in the prompt; the terms of all clips are not used beside them."""
    seen = list[tuple[int, DecodingOptions]]()

    def recognize(_: object, items: list[Utterance], __: str, options: DecodingOptions) -> list[Hypothesis]:
        seen.extend((len(item.keywords), options) for item in items)
        return [Hypothesis(item.id, item.text, (), 0.0) for item in items]

    clip = Utterance("u", "a.wav", 2.0, "take stent now", speaker="s")
    trained = {f"word{number}": 1 for number in range(1500)}
    scoring = ScoringOptions("basic@2", 100, 1, ("stent",), frozenset(), trained=trained)
    decoding = DecodingOptions(keyword_method="ctc", terms=("other",))
    evaluate_keyword_lists(None, {"test": [clip]}, "write", decoding, scoring, [1000], recognize)  # type: ignore[arg-type]
    assert [count for count, _ in seen] == [0, 1001, 1000]
    assert all(options == DecodingOptions(keyword_method="ctc") for _, options in seen)
