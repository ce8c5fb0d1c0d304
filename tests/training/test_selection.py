"""The error that selects an adapter: WER of transcriptions, 1 - chrF of translations, weighted by clips of both."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from accelerate import Accelerator

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.data.manifest import Utterance
from finetune.inference.recognize import recognize
from finetune.metrics.chrf import chrf_counts, chrf_error
from finetune.metrics.wer import score
from finetune.model.granite import SpeechModel
from finetune.training.selection import Scores, format_scores, measure, rank, split_error

TRANSLATIONS = [chrf_counts("the red house", "the red horse"), chrf_counts("a tree", "")]


def translated(clips: list[Utterance]) -> list[Utterance]:
    return [replace(item, id=f"{item.id}-to", language="es", task="translate", target_language="en") for item in clips]


def test_the_error_of_a_split_weighs_tasks_by_their_clips() -> None:
    words = [[1, 4], [0, 4], [3, 8]]
    assert split_error(words) == 0.25
    assert split_error(TRANSLATIONS) == chrf_error(TRANSLATIONS)
    assert split_error([*words, *TRANSLATIONS]) == pytest.approx((3 * 0.25 + 2 * chrf_error(TRANSLATIONS)) / 5)


def test_valid_with_translations_is_an_error_and_not_a_wer(
    model: Callable[[], SpeechModel], clips: list[Utterance], tiny: Callable[..., Recipe], tmp_path: object
) -> None:
    recipe, chosen, granite = tiny(tmp_path, "x"), clips[:2], model()
    both = [*chosen, *translated(chosen)]
    scores = measure(granite, {"valid": both, "canary": chosen}, recipe, Accelerator())
    texts = [item.text for item in recognize(granite, chosen, recipe.model.instruction, recipe.decode)]
    wer = score([item.text for item in chosen], texts, "basic@2").wer
    there = recognize(granite, translated(chosen), recipe.model.instruction, recipe.decode)
    counts = [chrf_counts(item.text, hypothesis.text) for item, hypothesis in zip(chosen, there, strict=True)]
    assert scores.canary == wer and scores.valid == pytest.approx((wer + chrf_error(counts)) / 2)
    assert format_scores(scores).startswith("valid error ")
    assert format_scores(replace(scores, errors={"valid": {"a": [1, 2]}})).startswith("valid WER ")
    without = scores.without("valid", [item.id for item in chosen])
    assert without.valid == pytest.approx(chrf_error(counts)) and without.canary == wer
    with pytest.raises(DataError, match="valid: there are no utterances"):
        measure(granite, {"valid": []}, recipe, Accelerator())


def test_better_translations_are_chosen() -> None:
    base, better = Scores(split_error(TRANSLATIONS), None), Scores(split_error([chrf_counts("a b", "a b")]), None)
    assert rank(better, base, None) < rank(base, base, None)


def test_the_error_of_a_japanese_split_is_a_cer(
    model: Callable[[], SpeechModel], clips: list[Utterance], tiny: Callable[..., Recipe], tmp_path: object
) -> None:
    japanese = [replace(item, text="猫が好きです", language="ja") for item in clips[:2]]
    scores = measure(model(), {"valid": japanese, "canary": clips[:1]}, tiny(tmp_path, "x"), Accelerator())
    rates = (100 * scores.valid, 100 * (scores.canary or 0))
    assert format_scores(scores) == "valid CER {:.1f} %, canary WER {:.1f} %".format(*rates)
    both = replace(scores, in_characters=["valid", "canary"])
    assert format_scores(both) == "valid CER {:.1f} %, canary {:.1f} %".format(*rates)
    assert format_scores(Scores(0.5, 0.25)) == "valid WER 50.0 %, canary 25.0 %"
