"""Alphabet of the CTC head and greedy decoding."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.model.ctc import BLANK, NUM_LABELS, ctc_labels, greedy_text, is_spelled, to_labels, to_text


def one_hot(path: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(path), NUM_LABELS).float()


@given(st.lists(st.integers(1, NUM_LABELS - 1)))
def test_labels_round_trip_through_text(labels: list[int]) -> None:
    text = to_text(labels)
    again, lost = to_labels(text)
    assert lost == 0
    assert to_text(again) == text.lower()


@given(st.text())
def test_each_character_gets_a_label_or_is_counted(text: str) -> None:
    labels, lost = to_labels(text)
    assert len(labels) + lost == len(text.lower())
    assert all(BLANK < label < NUM_LABELS for label in labels)


def test_latin_letters_are_code_points() -> None:
    assert to_labels("Ab ü'") == ([97, 98, 32, 252, 39], 0)
    assert to_text([112, 234, 99, 104]) == "pêch"


def test_katakana_follows_latin() -> None:
    assert to_labels("ァーア") == ([256, 256 + 91, 257], 0)
    assert to_text([256, 347]) == "ァー"


def test_characters_outside_the_alphabet_are_counted() -> None:
    assert to_labels("a漢\x00€ヾ") == ([97], 4)


def test_accented_letters_outside_the_alphabet_have_the_labels_of_their_base() -> None:
    for word, base in (("Košice", "kosice"), ("œdème", "oedème"), ("Łódź", "lódz"), ("Erdoğan", "erdogan"), ("ễ", "e")):
        assert to_text(ctc_labels(word)) == base and is_spelled(word)
    assert not ctc_labels("ŋ") and not ctc_labels("Ж")


def test_repeats_collapse_unless_a_blank_separates_them() -> None:
    path = [BLANK, *map(ord, "ttoo"), BLANK, ord("o"), BLANK, BLANK]
    assert greedy_text(one_hot(path)) == "too"


def test_spaces_collapse_and_blanks_give_empty_text() -> None:
    assert greedy_text(one_hot([32, 0, 97, 32, 0, 32, 98, 0, 32])) == "a b"
    assert greedy_text(one_hot([0, 0, 0])) == ""
    assert greedy_text(torch.zeros(0, NUM_LABELS)) == ""


def test_a_head_of_256_labels_has_no_katakana() -> None:
    """That of granite-speech-3.3."""
    assert to_labels("ü カ", 256) == ([252, 32], 1)
