"""Keywords that are written where the CTC head hears them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from finetune.core.options import DecodingOptions
from finetune.core.prompts import INSTRUCTION
from finetune.inference.keyword_biasing import biased_text
from finetune.inference.recognize import recognize
from finetune.model.granite import SpeechModel
from tests.conftest import embedded
from tests.inference.test_word_times import log_probs

HEARD = "_give_ _me_topro_lol_ _at__ _ni_ght_"


@pytest.mark.parametrize(
    ("text", "keywords", "expected"),
    [
        ("give me top roll at night", ("metoprolol",), "give metoprolol at night"),
        ("give me top roll at night", ("atorvastatin", "metoprolol", "at"), "give metoprolol at night"),
        ("Give (me top roll), at night.", ("(metoprolol)",), "Give (metoprolol), at night."),
        ("Give me top roll, at night.", ("metoprolol,",), "Give metoprolol, at night."),
        ("Give me (top roll), at night.", ("metoprolol",), "Give metoprolol), at night."),
        ("Give me top roll, at night.", ("Metoprolol",), "Give Metoprolol, at night."),
        ("give metoprolol at night", ("metoprolol",), "give metoprolol at night"),
        ("give Metoprolol at night", ("metoprolol",), "give Metoprolol at night"),
        ("give at night", ("metoprolol",), "give metoprolol at night"),  # the language model left it out
        ("give me top roll at night", ("atorvastatin", "might"), "give me top roll at night"),
        ("give me top roll at night", ("薬", "!"), "give me top roll at night"),
        ("give me top roll at night", (), "give me top roll at night"),
        ("", ("metoprolol",), ""),
        ("a text that is much too long for so few frames", ("metoprolol",), None),
    ],
)
def test_a_keyword_replaces_words_that_fit_the_audio_less_well(
    text: str, keywords: tuple[str, ...], expected: str | None
) -> None:
    assert biased_text(log_probs(HEARD), text, keywords) == (text if expected is None else expected)


def test_the_first_word_of_a_sentence_keeps_its_capital() -> None:
    scores = log_probs("_me_topro_lol_ _at__ _ni_ght_")
    assert biased_text(scores, "Me top roll at night.", ("metoprolol",)) == "Metoprolol at night."
    assert biased_text(scores, "Me top roll at night.", ("mEtoprolol",)) == "mEtoprolol at night."


@pytest.mark.parametrize(
    ("path", "text", "keyword", "expected"),
    [
        ("_take_ _cotri_moxa_zole_", "take coat remoxa sole", "co-trimoxazole", "take co-trimoxazole"),
        ("_take_ _co_ _trimoxa_zole_", "take coat remoxa sole", "co-trimoxazole", "take co-trimoxazole"),
        ("_take_ _co-trimoxa_zole_", "take coat remoxa sole", "co‑trimoxazole", "take co‑trimoxazole"),
        ("_mis_ter_ _o_bria_n_", "mister oh brine", "O’Brian", "mister O’Brian"),
        ("_mis_ter_ _o'bria_n_", "mister oh brine", "O’Brian", "mister O’Brian"),
        ("_the_ _she_ll_ _is_", "the shell is", "she'll", "the shell is"),
        ("_mis_ter_ _o'bria_n_", "mister o'brian", "O’Brian", "mister o'brian"),
    ],
)
def test_the_ctc_head_need_not_write_hyphens_and_apostrophes(path: str, text: str, keyword: str, expected: str) -> None:
    assert biased_text(log_probs(path), text, (keyword,)) == expected


def test_a_head_that_knows_no_accents_hears_a_keyword_without_them() -> None:
    scores = log_probs("_ask_ _sever_ine_ _now_", peak=0.999)
    assert biased_text(scores, "ask severe in now", ("Séverine",)) == "ask Séverine now"
    scores[:, ord("é")] = np.maximum(scores[:, ord("é")], -9.0)  # it knows the letter, and does not hear it
    assert biased_text(scores, "ask severine now", ("Séverine",)) == "ask severine now"


def test_words_that_were_written_together_with_the_keyword_are_kept() -> None:
    scores = log_probs("_she_ _to_o_k_ _lisino_pril_ _and_ _left_")
    assert biased_text(scores, "she tooklesson a prilland left", ("lisinopril",)) == "she took lisinopril and left"


@pytest.mark.parametrize(
    ("path", "text", "keyword", "expected"),
    [
        ("_de_ _l'aspi_rine_", "de l'as pirine", "aspirine", "de l'aspirine"),
        ("_de_ _l'aspi_rine_", "de las pirine", "aspirine", "de l'aspirine"),
        ("_the_ _alzhei_mer's_ _dru_g_", "the all hymers drug", "Alzheimer", "the Alzheimer's drug"),
    ],
)
def test_what_an_apostrophe_joins_to_the_keyword_is_kept(path: str, text: str, keyword: str, expected: str) -> None:
    assert biased_text(log_probs(path), text, (keyword,)) == expected


@pytest.mark.parametrize(
    ("path", "text", "keyword", "expected"),
    [
        ("_she_ _to_ok_ _lo_sart_an_ _it_", "she to oklow sert an it", "losartan", "she to losartan it"),
        ("_is_ _lo_sart_an_ _o_nly_ _it_", "is low sert ano nly it", "losartan", "is losartan nly it"),
        ("_gi_ve_ _lo_sart_an_'_ _now_", "give low sort an' now", "losartan", "give losartan now"),
        ("_gi_ve_ _'lo_sart_an_ _now_", "give 'low sort an now", "losartan", "give losartan now"),
        ("_start_ _lo_sart_an't_ _wise_", "start low sort don't wise", "losartan", "start losartan wise"),
        ("_gi_ve_ _lo_sart_an_ _now_", "give 'low sort an' now", "losartan", "give 'losartan' now"),
        ("_gi_ve_ _lo_sart_an_ _now_", "give ‘low sort an now’", "losartan", "give ‘losartan now’"),
    ],
)
def test_no_part_of_a_word_stays_beside_the_keyword(path: str, text: str, keyword: str, expected: str) -> None:
    assert biased_text(log_probs(path), text, (keyword,)) == expected


def test_several_keywords_are_written() -> None:
    scores = log_probs("_stop_ _apixa_ban_ _start_ _metopro_lol_ _and_ _apixa_ban_")
    text = biased_text(scores, "stop apixie ban start me top roll and apics a ban", ("apixaban", "metoprolol"))
    assert text == "stop apixaban start metoprolol and apixaban"


def test_a_keyword_that_is_written_stays_beside_another_one() -> None:
    """The CTC head misspells it."""
    scores = log_probs("_gi_ve _citalopr_a_m _apixen_ n_o_w ", peak=0.97)
    text = biased_text(scores, "give citals pra naproxen now", ("naproxen", "citalopram"))
    assert text == "give citalopram naproxen now"


@pytest.mark.parametrize(("doubt", "text"), [(0.5, "the car"), (0.01, "the cat")])
def test_a_short_word_must_fit_clearly_better(doubt: float, text: str) -> None:
    """The last letter is rather t than r."""
    scores = log_probs("_the_ _ca_t_")
    scores[10, [ord("t"), ord("r")]] = np.log([0.6, 0.6 * doubt])
    assert biased_text(scores, "the car", ("cat",)) == text


def test_a_longer_keyword_needs_less_evidence_than_a_short_word() -> None:
    """One letter of the audio is not that of the keyword, and all letters are those of the text."""
    assert biased_text(log_probs("_the_re_ _is_", peak=0.5), "there is", ("theme",)) == "there is"
    assert biased_text(log_probs("_lisinoprel_ _is_", peak=0.5), "lisinoprel is", ("lisinopril",)) == "lisinopril is"


@pytest.mark.parametrize(
    ("path", "text", "keyword"),
    [
        ("_two_ _cath_eters_ _now_", "two catheters now", "catheter"),
        ("_co_opera_tion_ _is_", "cooperation is", "operation"),
        ("_a_ _metopro_lol_ _is_", "a metoprolol is", "metoprolol"),
    ],
)
def test_a_word_that_has_a_keyword_as_a_part_is_not_cut_down_to_it(path: str, text: str, keyword: str) -> None:
    assert biased_text(log_probs(path, peak=0.8), text, (keyword,)) == text


@pytest.mark.parametrize(
    ("path", "text", "keyword"),
    [
        ("_she_ _is_ _twe_nty_ _five_ _years_ _old_", "she is 25 years old", "twenty"),
        ("_up_ _by_ _fif_ty_ _per_cent_ _now_", "up by 50% now", "percent"),
        ("_up_ _by_ _fif_ty_ _percent_ _now_", "up by 50% now", "percent"),
        ("_it_ _costs_ _ten_ _dol_lars_", "it costs $10", "dollars"),
        ("_ワ_タ_シ_ハ_サ_ラ_ダ_", "私は食物", "サラダ"),
    ],
)
def test_numbers_and_characters_that_the_head_cannot_write_stay(path: str, text: str, keyword: str) -> None:
    assert biased_text(log_probs(path), text, (keyword,)) == text


def test_a_keyword_beside_a_number_is_written() -> None:
    scores = log_probs("_give_ _me_topro_lol_ _fif_ty_ _mil_ligrams_ _at_ _night_")
    assert biased_text(scores, "give me top roll 50 mg at night", ("metoprolol",)) == "give metoprolol 50 mg at night"


def test_a_head_that_writes_digits_hears_numbers() -> None:
    scores = log_probs("_give_ _vi_tamin_ _b_1_2_ _now_")
    assert biased_text(scores, "give vitamin be 12 now", ("vitamin B12",)) == "give vitamin B12 now"


def test_the_language_model_writes_the_same_tokens_as_without_keywords(model: Callable[[], SpeechModel]) -> None:
    clips = embedded("valid", 4)
    told = [replace(clip, keywords=tuple(word for word in clip.text.split() if len(word) > 7)) for clip in clips]
    plain = recognize(model(), clips, INSTRUCTION, DecodingOptions())
    heard = recognize(model(), told, INSTRUCTION, DecodingOptions(keyword_method="ctc"))
    prompted = recognize(model(), told, INSTRUCTION, DecodingOptions(keyword_method="prompt"))
    assert [row.tokens for row in heard] == [row.tokens for row in plain] != [row.tokens for row in prompted]
    words = {word for clip in told for word in clip.keywords}
    written = [sum(word in row.text for row in rows for word in words) for rows in (heard, plain)]
    assert written[0] > written[1]


def test_terms_of_all_clips_are_written_and_those_that_are_not_spoken_are_not(model: Callable[[], SpeechModel]) -> None:
    spoken = embedded("valid", 3)
    terms = tuple(dict.fromkeys(word for clip in spoken for word in clip.text.split() if len(word) > 7))
    plain = recognize(model(), spoken, INSTRUCTION, DecodingOptions())
    told = recognize(model(), spoken, INSTRUCTION, DecodingOptions(terms=terms))
    assert [row.text for row in told] != [row.text for row in plain]
    others = embedded("canary", 4)
    assert [row.text for row in recognize(model(), others, INSTRUCTION, DecodingOptions(terms=terms))] == [
        row.text for row in recognize(model(), others, INSTRUCTION, DecodingOptions())
    ]


@pytest.mark.parametrize("change", [{"language": "ja"}, {"task": "translate", "target_language": "fr"}])
def test_japanese_and_translations_do_not_change(model: Callable[[], SpeechModel], change: dict[str, str]) -> None:
    (clip,) = embedded("valid", 1)
    item = replace(clip, **change)  # type: ignore[arg-type]
    told = recognize(model(), [item], INSTRUCTION, DecodingOptions(terms=tuple(clip.text.split())))
    plain = recognize(model(), [item], INSTRUCTION, DecodingOptions())
    assert told[0].text == plain[0].text
