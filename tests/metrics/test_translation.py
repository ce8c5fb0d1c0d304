"""BLEU and chrF: bounds, signatures, the tokenizer by language, and invalid input."""

import pytest
import sacrebleu

from finetune.core.errors import DataError
from finetune.metrics.translation import translation_scores

REFERENCES = ["The cat sat on the mat today.", "Nothing else happened at all."]


def test_equal_to_sacrebleu_with_signatures() -> None:
    hypotheses = ["The cat sat on a mat today.", "Nothing happened at all."]
    result = translation_scores(REFERENCES, hypotheses, "en")
    assert result.bleu == sacrebleu.corpus_bleu(hypotheses, [REFERENCES]).score
    assert result.chrf == sacrebleu.corpus_chrf(hypotheses, [REFERENCES]).score
    assert 0 < result.bleu < 100 and "tok:13a" in result.bleu_signature and "case:mixed" in result.bleu_signature
    assert f"version:{sacrebleu.__version__}" in result.chrf_signature


def test_perfect_and_empty() -> None:
    assert translation_scores(REFERENCES, REFERENCES, "en").bleu == pytest.approx(100)
    empty = translation_scores(REFERENCES, ["", " "], "en")
    assert (empty.bleu, empty.chrf, empty.empty_hypotheses) == (0, 0, 2)


def test_japanese_is_counted_in_characters_and_composed() -> None:
    result = translation_scores(["今日はとてもいい天気ですか\u3099"], ["今日はとてもいい天気ですが"], "ja-JP")
    assert "tok:char" in result.bleu_signature and result.bleu == pytest.approx(100)


def test_invalid_input_is_refused() -> None:
    with pytest.raises(DataError, match="2 references and 1"):
        translation_scores(REFERENCES, ["one"], "en")
    with pytest.raises(DataError, match="0 references"):
        translation_scores([], [], "en")
    with pytest.raises(DataError, match=r"number \[2\] are empty"):
        translation_scores(["a", " "], ["a", "b"], "en")
