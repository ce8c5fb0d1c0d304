"""Keyword lists of training prompts: shares, sizes, true terms, distractors, and what they depend on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.core.config import EvaluateSection, KeywordsSection, ModelSection, Recipe, TrainSection
from finetune.core.data_config import DataSection
from finetune.core.errors import DataError
from finetune.data.manifest import Utterance, write_manifest
from finetune.data.utterance_table import open_manifest
from finetune.model.granite import SpeechModel, load_model
from finetune.model.prompt import render
from finetune.training.corpus import TrainingCorpus
from finetune.training.dataset import SpeechDataset
from finetune.training.keyword_prompts import KeywordPrompts, named_terms

TERMS = ["metoprolol", "New York", "C++", "apixaban", "ramipril"]
TEXTS = [
    "Take metoprolol now, please.",
    "we met in new york the other day",
    "he writes c++ and nothing else",
    "nothing new today",
    "the dog ran over the old bridge",
]
PLENTY = 10_000  # tokens


@pytest.fixture(scope="module")
def model(nano: Path) -> SpeechModel:
    return load_model(str(nano), "float32")


@pytest.fixture
def prompts(model: SpeechModel) -> Any:
    def make(texts: Sequence[str] = TEXTS, terms: Sequence[str] = TERMS, **settings: Any) -> KeywordPrompts:
        section = KeywordsSection(**{"true_terms": 0.5, "distractors": 0.2, **settings})
        return KeywordPrompts(section, 1, "basic@2", model.tokenizer, terms, [(text, ()) for text in texts])

    return make


def lists_of(sampler: KeywordPrompts, text: str, count: int = 400, room: int = PLENTY) -> list[tuple[str, ...]]:
    return [sampler.sample(f"clip{number}", text, 0, room)[0] for number in range(count)]


def spoken(text: str, words: Sequence[str]) -> list[str]:
    """The words that a person would hear in the text."""
    plain = f" {' '.join(text.lower().replace(',', ' ').replace('.', ' ').split())} "
    return [word for word in words if f" {word.lower()} " in plain]


def test_prompts_have_the_shares_of_the_recipe(prompts: Any) -> None:
    sampler, text = prompts(largest=8), TEXTS[0]
    lists = lists_of(sampler, text, 3000)
    told, empty = sum(bool(spoken(text, words)) for words in lists), sum(not words for words in lists)
    assert told / 3000 == pytest.approx(0.5, abs=0.03)
    assert empty / 3000 == pytest.approx(0.3, abs=0.03)


def test_sizes_are_log_uniform_up_to_the_largest(prompts: Any) -> None:
    texts = [*TEXTS, *(f"word{number} word{number + 1}" for number in range(300))]
    lists = lists_of(prompts(texts, true_terms=0, distractors=1, largest=100), "nothing else", 4000)
    sizes = Counter(map(len, lists))
    assert min(sizes) == 1 and max(sizes) == 100
    for low, high in ((1, 3), (4, 10), (11, 31), (32, 100)):
        share = sum(count for size, count in sizes.items() if low <= size <= high) / 4000
        assert share == pytest.approx(np.log((high + 1) / low) / np.log(101), abs=0.03)


def test_a_distractor_is_never_in_the_text(prompts: Any) -> None:
    for text in TEXTS:
        for words in lists_of(prompts(true_terms=0, distractors=1), text):
            assert words and not spoken(text, words) and len({*words}) == len(words)
    for words in lists_of(prompts(true_terms=0, distractors=1), "New York, New York"):
        assert "New York" not in words and "new" not in words


def test_lists_with_true_terms_have_a_term_or_a_rare_word_of_the_text(prompts: Any) -> None:
    sampler = prompts(true_terms=1, distractors=0, rare_words=0)
    assert all("metoprolol" in words for words in lists_of(sampler, TEXTS[0]))
    assert all("C++" in words for words in lists_of(sampler, TEXTS[2]))
    rare = lists_of(prompts(true_terms=1, distractors=0), "the dog ran over the old bridge", 1000)
    assert all(spoken(TEXTS[4], words) for words in rare)
    counts = Counter(word for words in rare for word in spoken(TEXTS[4], words))
    assert counts["bridge"] > 1.5 * counts["the"] > 0  # "the" occurs three times in the texts
    phrases = [word for word in counts if " " in word]
    assert phrases and all(phrase in TEXTS[4] for phrase in phrases)
    assert any(" " in word for words in lists_of(sampler, "something else") for word in words), "only true phrases"


def test_rare_words_join_the_terms_as_often_as_the_recipe_says(prompts: Any) -> None:
    def share(rare_words: float) -> float:
        lists = lists_of(prompts(true_terms=1, distractors=0, rare_words=rare_words, largest=1000), TEXTS[0], 1000)
        long = [words for words in lists if len(words) > 4]
        return sum(len(spoken(TEXTS[0], words)) > 1 for words in long) / len(long)

    assert share(0) == 0 and share(1) == 1 and 0.4 < share(0.5) < 0.6


def test_a_list_depends_on_seed_epoch_and_id_only(prompts: Any) -> None:
    first, second = prompts(), prompts()
    expected = [first.sample(f"u{n}", text, epoch, PLENTY) for n, text in enumerate(TEXTS) for epoch in range(9)]
    again = [second.sample(f"u{n}", text, epoch, PLENTY) for epoch in range(9) for n, text in enumerate(TEXTS)]
    assert sorted(map(repr, expected)) == sorted(map(repr, again))
    assert len({repr(first.sample("u", TEXTS[0], epoch, PLENTY)) for epoch in range(20)}) > 8
    assert len({repr(first.sample(f"u{n}", TEXTS[0], 0, PLENTY)) for n in range(20)}) > 8
    first.seed = 2
    assert [first.sample(f"u{n}", TEXTS[0], 0, PLENTY) for n in range(9)] != [
        second.sample(f"u{n}", TEXTS[0], 0, PLENTY) for n in range(9)
    ]


def test_the_order_does_not_tell_terms_from_distractors(prompts: Any) -> None:
    lists = [words for words in lists_of(prompts(true_terms=1, distractors=0, rare_words=0), TEXTS[0], 2000)]
    places = [words.index("metoprolol") for words in lists if len(words) == 4]
    assert len(places) > 50
    assert set(places) == {0, 1, 2, 3} and max(Counter(places).values()) < 0.5 * len(places)


def test_a_list_is_shortened_to_its_room_and_keeps_its_terms(prompts: Any, model: SpeechModel) -> None:
    sampler, text = prompts(true_terms=1, distractors=0, rare_words=0), TEXTS[0]
    plain = render(model.tokenizer, "write")
    for room in (0, 3, 12, 20, 40):
        for number in range(60):
            words, tokens = sampler.sample(f"c{number}", text, 0, room)
            prompt = render(model.tokenizer, "write", words)
            added = len(prompt.suffix) - len(plain.suffix)
            assert added <= tokens <= room and tokens <= added + 1
            assert not words or "metoprolol" in words
    assert sampler.sample("c", text, 0, 0) == ((), 0)


def test_without_an_epoch_the_list_is_the_longest(prompts: Any) -> None:
    sampler = prompts(largest=7, true_terms=0.1, distractors=0.1)
    assert all(len(sampler.sample(f"c{n}", TEXTS[3], None, PLENTY)[0]) == 7 for n in range(50))


def test_terms_and_words_that_cannot_be_keywords_are_left_out(prompts: Any, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["cash 1,000 <|audio|> yes", "say <|audio|> again"]
    sampler = prompts(texts, ["a<|audio|>b", "Paris"])
    assert {"Paris", "cash", "yes", "say", "again"} < {*sampler.pool}
    assert not [word for word in sampler.pool if "," in word or "|" in word]
    assert "1 term of the rows left out" in caplog.text


def test_texts_without_spaces_give_their_katakana_and_chinese_words(model: SpeechModel) -> None:
    section = KeywordsSection(true_terms=1, largest=1)
    text = "\u6771\u4eac\u3067\u30b3\u30fc\u30d2\u30fc\u3092\u98f2\u3080"  # 東京でコーヒーを飲む
    sampler = KeywordPrompts(section, 1, "ja-cer@2", model.tokenizer, [], [(text, ()), ("\u5927\u962a\u57ce", ())])
    assert {words for words in lists_of(sampler, text, 60)} == {("\u6771\u4eac",), ("\u30b3\u30fc\u30d2\u30fc",)}


def test_named_terms_of_columns() -> None:
    assert named_terms(("a", "b"), ["c d", "a", "e, f", 3]) == ("a", "b", "c d", "e", "f")
    assert named_terms((), "x;y, z") == ("x", "y", "z") and named_terms((), None) == ()


def test_a_clip_without_words_has_distractors(prompts: Any) -> None:
    assert all(words for words in lists_of(prompts(true_terms=1, distractors=0), ""))


# In a dataset


def recipe(**sections: Any) -> Recipe:
    data = DataSection(train=["train"], valid=["valid"], test=["test"])
    content: dict[str, Any] = {"name": "k", "model": ModelSection(base="base"), "data": data}
    return Recipe(**content | sections)


ITEMS = [
    Utterance(f"u{n}", "a.wav", 1.0 + n / 10, text, keywords=("ward",), extra={"terms": ["metoprolol"]})
    for n, text in enumerate(TEXTS * 3)
]
ON = KeywordsSection(true_terms=0.5, distractors=0.3, largest=20)


def prompt_lengths(data: SpeechDataset, indices: Sequence[int]) -> list[int]:
    prompts = [data.prompt(index) for index in indices]
    return [len(prompt.prefix) + len(prompt.suffix) for prompt in prompts]


def test_positions_count_the_keywords_of_the_open_epoch(model: SpeechModel) -> None:
    data, plain = (SpeechDataset(model, recipe(**sections), ITEMS) for sections in ({"keywords": ON}, {}))
    bare = SpeechDataset(model, recipe(), [replace(item, keywords=()) for item in ITEMS])
    assert data.positions.tolist() == bare.positions.tolist() != plain.positions.tolist()
    assert data.prompt(0) == bare.prompt(0)
    seen = []
    for epoch in (0, 1, 0):
        chosen = data.open_epoch(epoch).tolist()
        lengths = np.array(prompt_lengths(data, chosen)) - prompt_lengths(bare, chosen)
        slack = data.positions - bare.positions - lengths
        assert set(slack.tolist()) <= {0, 1} and (lengths > 0).any()
        seen.append(lengths.tolist())
    assert seen[0] == seen[2] != seen[1]


def test_lists_stay_within_the_batch_and_the_window(model: SpeechModel) -> None:
    largest = KeywordsSection(true_terms=1, largest=1000)
    data = SpeechDataset(model, recipe(keywords=largest, train=TrainSection(batch_tokens=90)), ITEMS)
    for epoch in range(5):
        data.open_epoch(epoch)
        assert data.positions.max() <= 90
    data.open_all_epochs()
    assert data.positions.min() > 75
    assert max(prompt_lengths(data, [0])) > max(prompt_lengths(SpeechDataset(model, recipe(), ITEMS), [0]))


def test_concatenated_and_repeated_clips_have_their_own_lists(model: SpeechModel) -> None:
    from finetune.core.config import AugmentSection

    sections = {"keywords": ON, "augment": AugmentSection(concat=0.5)}
    data = SpeechDataset(model, recipe(**sections), ITEMS)
    added = [index for index in data.open_epoch(0).tolist() if index >= len(ITEMS)]
    bare = SpeechDataset(model, recipe(augment=AugmentSection(concat=0.5)), [replace(i, keywords=()) for i in ITEMS])
    bare.open_epoch(0)
    lengths = np.array(prompt_lengths(data, added)) - prompt_lengths(bare, added)
    assert added and (lengths > 0).any()
    assert set((data.positions - bare.positions)[added] - lengths) <= {0, 1}


def test_stored_prompts_are_not_those_of_another_setting(model: SpeechModel, tmp_path: Path) -> None:
    write_manifest(tmp_path / "train.jsonl", ITEMS)
    table = open_manifest(tmp_path / "train.jsonl")

    def positions(**sections: Any) -> list[int]:
        manifests = {"train": tmp_path / "train.jsonl"}
        clips = {"train": table, "valid": table}
        return TrainingCorpus(model, recipe(**sections), clips, manifests).dataset.positions.tolist()

    with_column = positions()
    assert positions(keywords=ON) != with_column == positions()


def test_plans_and_keys_change_with_the_section_and_the_terms(model: SpeechModel, tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    data = DataSection(train=["train"], valid=["valid"], test=["test"], terms=str(terms))

    def key(content: str, **sections: Any) -> str:
        terms.write_text(content)
        clips = {"train": ITEMS, "valid": ITEMS}
        return TrainingCorpus(model, recipe(data=data, **sections), clips).key(9.0, 1)

    on = {"keywords": ON}
    assert key("apixaban") == key("ramipril"), "terms are only scored"
    assert len({key("apixaban", **on), key("ramipril", **on), key("apixaban")}) == 3
    assert key("apixaban", **on) != key("apixaban", keywords=ON.model_copy(update={"largest": 9}))
    assert key("a b", **on) != key("a b", **on, evaluate=EvaluateSection(normalizer="none"))


def test_a_term_that_cannot_be_a_keyword_is_refused_with_its_line(model: SpeechModel, tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("stent\n\nParis, Texas\n<|audio|>\n")
    data = DataSection(train=["train"], valid=["valid"], test=["test"], terms=str(terms))
    SpeechDataset(model, recipe(data=data), ITEMS)
    with pytest.raises(DataError, match=r"terms.txt:3: the keyword 'Paris, Texas' contains a comma") as raised:
        SpeechDataset(model, recipe(data=data, keywords=ON), ITEMS)
    assert "terms.txt:4: the keyword '<|audio|>' contains <|audio|>" in str(raised.value)


def test_a_prompt_that_does_not_fit_the_window_is_refused(model: SpeechModel) -> None:
    keywords = tuple(f"word{number}" for number in range(1200))
    clips = {"train": [replace(ITEMS[0], id="long", keywords=keywords)], "valid": ITEMS}
    with pytest.raises(DataError, match="long needs [0-9]+ positions .* but the model has 4096"):
        TrainingCorpus(model, recipe(), clips)
