"""Word and character errors: golden counts, empty texts, equality with independent counts."""

import random
import subprocess
import sys

import jiwer
import kaldialign
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.errors import DataError, RecipeError
from finetune.metrics.normalizer import NORMALIZERS, normalize
from finetune.metrics.wer import WordErrors, changed_by_normalizer, errors_per_utterance, score

SENTENCE = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=8).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=6)


def edit_distance(first: list[str], second: list[str]) -> int:
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(second, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def test_counts_are_pooled_over_utterances() -> None:
    result = score(["The cat sat.", "yes"], ["the cat sad down", ""], "basic@2")
    assert result == WordErrors(
        wer=3 / 4,
        cer=9 / 14,
        substitutions=1,
        deletions=1,
        insertions=1,
        hits=2,
        reference_words=4,
        char_errors=9,
        reference_chars=14,
    )


def test_errors_depend_on_the_preset() -> None:
    assert score(["Hello, world"], ["hello world"], "none").wer == 0.5
    assert score(["Hello, world"], ["hello world"], "basic@2").wer == 0.0


def test_japanese_is_scored_in_characters() -> None:
    result = score(["今日は、晴れ。"], ["今日 は 雨"], "ja-cer@2")
    assert (result.char_errors, result.reference_chars, result.cer, result.wer) == (2, 5, 0.4, 0.4)
    assert errors_per_utterance(["今日は、晴れ。"], ["今日 は 雨"], "ja-cer@2") == [(2, 5)]


def test_decomposed_kana_are_not_errors() -> None:
    assert score(["ガギ"], ["カ\u3099キ\u3099"], "none").cer == 0.0


@pytest.mark.parametrize(
    "references, hypotheses, wer, insertions, deletions",
    [
        ([""], [""], 0.0, 0, 0),
        (["", "?!"], ["", "..."], 0.0, 0, 0),  # empty once normalized
        ([""], ["three words said"], 1.0, 3, 0),  # a rate, not a count of three
        (["one two"], [""], 1.0, 0, 2),
        (["", "one two"], ["three words said", "one two"], 1.5, 3, 0),
    ],
)
def test_empty_texts(references: list[str], hypotheses: list[str], wer: float, insertions: int, deletions: int) -> None:
    result = score(references, hypotheses, "basic@2")
    assert (result.wer, result.insertions, result.deletions) == (wer, insertions, deletions)
    pairs = errors_per_utterance(references, hypotheses, "basic@2")
    assert sum(errors for errors, _ in pairs) == insertions + deletions


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="2 references but 1 hypothesis"):
        score(["a", "b"], ["a"], "none")
    with pytest.raises(DataError, match="2 references but 1 hypothesis"):
        errors_per_utterance(["a", "b"], ["a"], "none")
    with pytest.raises(DataError, match="no utterances"):
        score([], [], "none")
    assert errors_per_utterance([], [], "none") == []
    with pytest.raises(RecipeError, match="basic@2"):
        score(["a"], ["a"], "whisper")


@given(PAIRS.filter(lambda pairs: all(reference for reference, _ in pairs)))
def test_equal_to_jiwer(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    result = score(references, hypotheses, "basic@2")
    assert result.wer == jiwer.wer(references, hypotheses)
    assert result.cer == jiwer.cer(references, hypotheses)


def test_equal_to_jiwer_and_kaldialign_on_ten_thousand_pairs() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcdefgh", k=rng.randint(0, 9))) for _ in range(20_000)]
    references, hypotheses = texts[::2], texts[1::2]
    counted = errors_per_utterance(references, hypotheses, "none")
    split = [(ref.split(), hyp.split()) for ref, hyp in zip(references, hypotheses, strict=True)]
    assert [errors for errors, _ in counted] == [kaldialign.edit_distance(*pair)["total"] for pair in split]
    pooled = kaldialign.batch_error_rate([ref for ref, _ in split], [hyp for _, hyp in split])
    wer = score(references, hypotheses, "none").wer
    assert wer == pytest.approx(pooled["err_rate"]) and wer == jiwer.wer(references, hypotheses)


@given(PAIRS)
def test_every_utterance_has_its_own_edit_distance(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*pairs, strict=True))
    expected = [(edit_distance(ref.split(), hyp.split()), len(ref.split())) for ref, hyp in pairs]
    assert errors_per_utterance(references, hypotheses, "none") == expected
    total = score(references, hypotheses, "none")
    assert total.substitutions + total.deletions + total.insertions == sum(errors for errors, _ in expected)
    assert total.hits + total.substitutions + total.deletions == total.reference_words
    assert total.reference_words == sum(words for _, words in expected)
    assert total.char_errors == sum(edit_distance(list(ref), list(hyp)) for ref, hyp in pairs)
    assert total.reference_chars == sum(map(len, references))


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_a_text_has_no_errors_against_itself(texts: list[str]) -> None:
    result = score(texts, texts, "basic@2")
    assert (result.wer, result.cer) == (0.0, 0.0)


def test_texts_that_the_normalizer_shortens() -> None:
    references = ["plain words", "?!", "", "   ", "(((ok)))", "U.S.A."]
    assert changed_by_normalizer(references, "basic@2") == [1, 4]
    assert changed_by_normalizer(references, "none") == []
    assert changed_by_normalizer(["(said) [not] so", "[noise]", "(laughs)"], "multi@1") == [0, 1, 2]


@pytest.mark.parametrize("preset", NORMALIZERS)
@settings(deadline=None)  # the first text loads a package
@given(text=st.text(max_size=30))
def test_emptied_texts_are_always_reported(preset: str, text: str) -> None:
    emptied = bool(normalize(text, "none")) and not normalize(text, preset)
    assert not emptied or changed_by_normalizer([text], preset) == [0]


def test_scoring_does_not_import_torch() -> None:
    code = (
        "import sys, finetune.metrics.wer, finetune.metrics.terms, finetune.metrics.significance\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
