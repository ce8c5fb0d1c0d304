"""Windows without speech and windows whose text has collapsed, on made-up output of the CTC head."""

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.inference.guards import COLLAPSE_RATIO, MIN_PART, cut_again, speech_score
from finetune.model.ctc import NUM_LABELS, to_labels

FRAME = 0.02


def ctc_output(text: str, pauses: dict[int, float], posterior: float = 0.9) -> NDArray[np.float32]:
    """Log probabilities (T, 348): each character of the text has two frames, and a blank follows it.

    Args:
        pauses: seconds of blank frames after a character, by its index.
    """
    labels = list[int]()
    for index, label in enumerate(to_labels(text)[0]):
        labels += [label, label, 0, *[0] * round(pauses.get(index, 0) / FRAME)]
    probs = np.full((len(labels), NUM_LABELS), (1 - posterior) / (NUM_LABELS - 1))
    probs[np.arange(len(labels)), labels] = posterior
    return np.log(probs).astype(np.float32)


TEXT = "the boat left the harbour at noon it came back late"
PAUSE = TEXT.index(" it")  # after "noon"


def test_a_complete_text_is_not_cut_again() -> None:
    output = ctc_output(TEXT, {PAUSE: 0.2})
    characters = len(TEXT.replace(" ", ""))
    assert cut_again(output, TEXT) is None
    assert cut_again(output, "x" * int(np.ceil(COLLAPSE_RATIO * characters))) is None
    assert cut_again(output, "x" * (int(np.ceil(COLLAPSE_RATIO * characters)) - 1)) is not None


def test_a_collapsed_text_is_cut_in_the_longest_pause_between_words() -> None:
    output = ctc_output(TEXT, {3: 0.1, PAUSE: 0.2, TEXT.index("rbour"): 0.5})  # the longest is within a word
    start = (3 * (PAUSE + 1)) * FRAME + 0.1 + 0.5
    cut = cut_again(output, "the boat")
    assert cut is not None and start - 0.05 <= cut <= start + 0.25


def test_half_of_twelve_characters_is_a_complete_text() -> None:
    output = ctc_output("the boat at sea", {8: 1.5})
    assert cut_again(output, "x" * 6) is None and cut_again(output, "x" * 5) is not None
    assert cut_again(ctc_output("the boat at se", {8: 1.5}), "") is None, "too uncertain to compare with"


def test_a_part_has_a_minimum_length() -> None:
    output = ctc_output(TEXT, {3: 1.0})
    cut = cut_again(output, "the")
    assert cut is not None and MIN_PART <= cut <= len(output) * FRAME - MIN_PART
    assert cut_again(ctc_output("a boat at noon now", {}), "") is None, "too short for two parts"


@pytest.mark.parametrize("text", ["", "a boat", "カタカナハヨミカタダケデス"])
def test_short_ctc_texts_and_katakana_are_not_compared(text: str) -> None:
    assert cut_again(ctc_output(text + " ", {len(text): 5.0}), "") is None


def test_the_speech_score_is_between_0_and_1_and_rises_with_the_posteriors() -> None:
    nothing = ctc_output(" ", {0: 3.0})
    assert speech_score(np.zeros((0, NUM_LABELS), np.float32)) == 0.0
    scores = [speech_score(ctc_output(TEXT, {}, posterior)) for posterior in (0.3, 0.6, 0.9)]
    assert speech_score(nothing) == 0.0 < scores[0] < scores[1] < scores[2] <= 1


def test_the_speech_score_is_the_posterior_times_the_rate_relative_to_slow_speech() -> None:
    output = ctc_output("ab", {0: 0.94})  # the second character starts after 1 s
    assert speech_score(output) == pytest.approx(0.9 * (2 * 0.9 / (1.0 + 0.3) / 8), rel=1e-3)


def test_noise_beside_speech_does_not_lower_the_score() -> None:
    """Characters of low posterior, one in a second, are what the CTC head writes from noise."""
    speech = ctc_output(TEXT, {})
    noise = ctc_output("abcdefghij", dict.fromkeys(range(10), 1.0), posterior=0.5)
    assert speech_score(noise) < 0.1
    assert speech_score(np.concatenate([noise, speech, noise])) == pytest.approx(speech_score(speech), abs=0.05)


@pytest.mark.parametrize("text", ["yes", "two", "i"])
def test_a_single_word_scores_higher_than_noise(text: str) -> None:
    silence = {len(text): 5.0}
    assert speech_score(ctc_output(text + " ", silence)) > 0.3 or len(text) == 1
    assert speech_score(ctc_output(text + " ", silence)) > speech_score(ctc_output(text + " ", silence, 0.4))
