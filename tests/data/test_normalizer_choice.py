"""Tests of the choice of a normalizer by language."""

import pytest

from finetune.data.manifest import Utterance
from finetune.data.normalizer_choice import normalizer_for
from finetune.evaluation.scoring_sets import scoring_sets


@pytest.mark.parametrize(
    ("languages", "preset"),
    [
        (["de", "German", "de-AT"], "openasr-multi@2026-08:de"),
        (["fra"], "openasr-multi@2026-08:fr"),
        (["en", "en"], "openasr@2026-08"),
        (["ja"], "ja-cer@2"),
        (["de", "fr"], "openasr-multi@2026-08"),
        ([""], "openasr-multi@2026-08"),
        (["xx"], "openasr-multi@2026-08"),
    ],
)
def test_the_language_of_a_set(languages: list[str], preset: str, caplog: pytest.LogCaptureFixture) -> None:
    items = [Utterance("a", "a.wav", 1.0, "acht", language=language) for language in languages]
    assert normalizer_for(items, "openasr-multi@2026-08") == preset
    assert ("numbers are not written as words" in caplog.text) == (preset == "openasr-multi@2026-08")
    assert normalizer_for(items[:1], "multi@1") in ("multi@1", "ja-cer@2")


def test_texts_of_no_script_follow_nearly_all_others() -> None:
    def texts(*parts: str) -> list[Utterance]:
        return [Utterance(str(number), "a.wav", 1.0, text) for number, text in enumerate(parts)]

    japanese = ["今日は良い天気です"] * 19
    assert normalizer_for(texts(*japanese, ""), "basic@2") == "ja-cer@2"
    assert normalizer_for(texts(*japanese, "OK"), "basic@2") == "ja-cer@2"
    assert normalizer_for(texts(*japanese, "", *["good morning"] * 3), "basic@2") == "basic@2"
    assert scoring_sets({"test": texts(*japanese, "")}) == {"test": ("test", [*range(20)])}
    mixed = scoring_sets({"test": texts(*japanese[:5], *["good morning"] * 5)})
    assert mixed == {"test": ("test", [*range(5, 10)]), "test: Japanese": ("test", [*range(5)])}


@pytest.mark.parametrize(
    ("text", "language", "preset"),
    [
        ("今日は、晴れ。", "", "ja-cer@2"),
        ("カメラ", "", "ja-cer@2"),
        ("iPhoneを買いました", "", "ja-cer@2"),
        ("今日は、晴れ。", "en", "basic@2"),  # a stated language decides
        ("kyou wa hare", "ja_JP", "ja-cer@2"),
        ("we say ありがとう in the morning", "", "basic@2"),
        ("привет", "", "basic@2"),
        ("", "", "basic@2"),
    ],
)
def test_japanese_is_found_by_language_else_by_script(text: str, language: str, preset: str) -> None:
    assert normalizer_for([Utterance("a", "a.wav", 1.0, text, language=language)], "basic@2") == preset
