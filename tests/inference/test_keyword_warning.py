"""Keywords without an effect are named."""

from dataclasses import replace

from finetune.core.options import DecodingOptions, TranscribeOptions
from finetune.inference.keyword_warning import keyword_warning, unwritable_warning

BY_CTC = TranscribeOptions(keywords=("stent",), decoding=DecodingOptions(keyword_method="ctc"))


def test_the_ctc_head_writes_neither_translations_nor_japanese() -> None:
    assert keyword_warning(BY_CTC) == "" == keyword_warning(replace(BY_CTC, keywords=(), language="ja"))
    for change in ({"language": "ja"}, {"translate_to": "fr"}):
        assert "keywords have no effect" in keyword_warning(replace(BY_CTC, **change))
        assert not keyword_warning(TranscribeOptions(keywords=("stent",), **change)), "they are in the prompt"


def test_keywords_that_the_ctc_alphabet_cannot_write_are_named() -> None:
    assert unwritable_warning(["stent", "Ko\u0161ice", "キラキラ", "ひらがな"]) == ""
    assert unwritable_warning(["stent", "Москва"]) == (
        "1 keyword has no effect by the CTC head, which cannot write most of the letters: 'Москва'"
    )
    assert unwritable_warning(["25", "B12", "!", "stent"]) == (
        "1 keyword has no effect by the CTC head, which cannot write most of the letters: '!'; 2 keywords have an "
        "effect only if the CTC head writes digits; write numbers as they are spoken: '25', 'B12'"
    )
    four = TranscribeOptions(decoding=DecodingOptions(terms=("薬", "葉", "!", "東京", "stent")))
    assert keyword_warning(four).startswith("4 keywords have no effect") and keyword_warning(four).endswith("'!', ...")
