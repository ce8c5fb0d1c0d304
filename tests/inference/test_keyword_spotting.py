"""Places of keywords in the output of the CTC head."""

from itertools import groupby, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.inference.ctc_score import phrase_labels
from finetune.inference.keyword_spotting import LIMIT, KeywordSpotter, Spot, spotter
from finetune.model.ctc import BLANK, NUM_LABELS
from tests.inference.test_word_times import log_probs


@pytest.mark.parametrize(
    ("path", "keyword", "frames"),
    [
        ("__the_ _caat_ sat", "cat", (8, 12)),
        ("_b_a_l_l_o_on_", "balloon", (1, 13)),  # equal letters with a blank between them
        ("_new_ york_", "New York", (1, 10)),
        ("_newyork_", "new york", None),  # no frame for the space
        ("__the_dog__", "cat", None),
        ("_ク_スリ__", "くすり", (1, 5)),  # the head emits katakana for hiragana
        ("_st_entt", "stent", (1, 7)),  # the first of equal ends
        ("ab", "abcdef", None),  # longer than the window
    ],
)
def test_a_keyword_is_found_where_its_characters_are(path: str, keyword: str, frames: tuple[int, int] | None) -> None:
    spots = KeywordSpotter([keyword]).spots(log_probs(path, 0.9999))
    assert [(spot.start, spot.end) for spot in spots] == ([frames] if frames else [])
    assert all(spot.score == pytest.approx(0, abs=1e-4) for spot in spots)


def test_the_two_best_places_are_found() -> None:
    spots = KeywordSpotter(["dog", "cat"]).spots(log_probs("_cat___cap___cat_"))
    assert [(spot.keyword, spot.start, spot.end) for spot in spots] == [(1, 1, 4), (1, 13, 16)]


def test_a_long_window_has_more_places() -> None:
    assert len(KeywordSpotter(["cat"]).spots(log_probs("_cat_" * 5))) == 2
    assert len(KeywordSpotter(["cat"]).spots(log_probs(("_cat_" + 200 * "_") * 5))) == 5


def test_keywords_that_the_head_cannot_write_are_left_out() -> None:
    found = KeywordSpotter(["薬", "!?", "stent", "стент", "stent", "B細胞", "Витамин D"])
    assert found.keywords == ["stent"] and found.lengths.tolist() == [5]
    assert KeywordSpotter(["薬"]).spots(log_probs("_cat_")) == []
    assert KeywordSpotter(["cat"]).spots(np.zeros((0, NUM_LABELS), np.float32)) == []


def test_a_list_is_prepared_once() -> None:
    assert spotter(("a", "b")) is spotter(("a", "b"))


def _best(relative: np.ndarray, labels: list[int]) -> tuple[float, int, int]:
    """The best score of `labels` in any frames, and these frames, by trying all paths."""
    best = (-np.inf, 0, 0)
    symbols = [BLANK, *dict.fromkeys(labels)]
    for start in range(len(relative)):
        for end in range(start + 1, len(relative) + 1):
            for path in product(symbols, repeat=end - start):
                collapsed = [label for label, _ in groupby(path) if label != BLANK]
                if collapsed == labels and path[0] != BLANK and path[-1] != BLANK:
                    score = float(relative[np.arange(start, end), path].sum())
                    best = max(best, (score, start, end), key=lambda item: item[0])
    return best


@settings(max_examples=25, deadline=None)
@given(word=st.text("ab", min_size=1, max_size=3), frames=st.integers(1, 5), seed=st.integers(0, 1000))
def test_the_score_is_that_of_the_best_of_all_paths(word: str, frames: int, seed: int) -> None:
    scores = np.full((frames, NUM_LABELS), -np.inf, np.float32)
    scores[:, [BLANK, ord("a"), ord("b")]] = np.random.default_rng(seed).standard_normal((frames, 3))
    relative = scores - scores.max(1, keepdims=True)
    expected, start, end = _best(relative, phrase_labels([word]))
    spots = KeywordSpotter([word]).spots(scores)
    if expected < -LIMIT * len(word):
        assert spots == []
    else:
        assert spots[0] == Spot(0, start, end, pytest.approx(expected, abs=1e-4))
