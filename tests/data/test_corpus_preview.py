"""`finetune check` on a large corpus: counts are exact, the style is that of a sample and says so."""

from itertools import pairwise

import pytest

from finetune.core.config import ModelSection, Recipe
from finetune.core.data_config import DataSection
from finetune.core.errors import DataError
from finetune.data.corpus import Corpus, CorpusFacts
from finetune.data.corpus_preview import LARGEST_EXACT, preview_corpora, sampled_rows
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.planning.split_facts import read_facts

SMALL = Corpus([Row("small:1", {"audio_filepath": "a.wav", "text": "words"})])


def recipe_of(train: str) -> Recipe:
    data = DataSection(train=[train], valid=["small"], test=["small"])
    return Recipe(name="x", model=ModelSection(base="base"), data=data)


def corpus_of(count: int, facts: CorpusFacts) -> Corpus:
    """Rows of which the first and the last have a capital."""
    rows = [
        Row(f"m:{n}", {"audio_filepath": "a.wav", "text": "Words" if n in (0, count - 1) else "w"})
        for n in range(count)
    ]
    return Corpus(rows, facts)


@pytest.mark.parametrize("extra", [0, 1])
def test_the_style_of_a_large_corpus_is_that_of_a_sample(extra: int) -> None:
    corpus = corpus_of(LARGEST_EXACT + extra, CorpusFacts())
    lines = list(preview_corpora(recipe_of("m"), {"m": corpus, "small": SMALL}.__getitem__))
    assert lines[0] == f"train   {LARGEST_EXACT + extra:,} rows  m"
    found = [line for line in lines if line.startswith("train: capitals")]
    note = [line for line in lines if "of a sample of" in line]
    if extra:
        assert note == ["train: of a sample of 16,384 transcripts"] and "1 of 16,384 transcripts" in found[0]
    else:
        assert not note and "2 of 16,384 transcripts" in found[0]


def test_the_sample_is_spread_and_always_the_same() -> None:
    corpus = corpus_of(3 * LARGEST_EXACT, CorpusFacts())
    numbers = [int(row.where[2:]) for row in sampled_rows(corpus)]
    assert len(set(numbers)) == len(numbers) == LARGEST_EXACT and numbers == sorted(numbers)
    assert max(b - a for a, b in pairwise(numbers)) <= 3 * 512
    assert numbers == [int(row.where[2:]) for row in sampled_rows(corpus)]


def test_problems_come_from_the_counts_of_all_rows() -> None:
    rows = [Row(f"m:{n}", {"text": "w"}, Finding("kind", "why") if n == 700 else None) for n in range(1000)]
    corpus = Corpus(rows, CorpusFacts(num_missing=21, num_faults=22, first_fault=700))
    with pytest.raises(DataError) as caught:
        list(preview_corpora(recipe_of("m"), {"m": corpus, "small": SMALL}.__getitem__))
    assert str(caught.value).splitlines() == [
        "data.train: m: 21 of 1,000 rows have no audio file",
        "data.train: m: 22 of 1,000 rows cannot be used, such as m:700: kind: why",
    ]


def test_a_few_rows_that_cannot_be_used_are_named_and_no_clips() -> None:
    values: dict[str, object] = {"audio_filepath": "a.wav", "text": "w", "duration": 2.0}
    rows = [Row(f"m:{n}", values, Finding("rejected row", "why") if n == 7 else None) for n in range(100)]
    corpus, recipe = Corpus(rows, CorpusFacts(num_faults=1, first_fault=7)), recipe_of("m")
    lines = list(preview_corpora(recipe, {"m": corpus, "small": SMALL}.__getitem__))
    assert lines[1] == "       1 row cannot be used, such as m:7: rejected row: why"
    assert len(read_facts(recipe.data, "train", [corpus]).clips) == 99
