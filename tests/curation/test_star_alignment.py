"""The alignment finds each word, skips words that are not spoken, and passes over speech that is not in the text."""

import itertools

import numpy as np
import pytest
from curation_recording import PAUSE, frames_of, recording

from finetune.curation import star_alignment
from finetune.curation.posteriors import FLOOR, Posteriors
from finetune.curation.star_alignment import PAUSE_COST, SKIP_COST, STAR_COST, WordFrames, align, path_score
from finetune.model.ctc import BLANK, to_labels


def labels(text: str) -> list[list[int]]:
    return [to_labels(word)[0] for word in text.split()]


def places(path: str, text: str) -> list[tuple[int, int] | None]:
    words = labels(text)
    found = align(recording(path), words, [False] * (len(words) + 1))
    return [(place.start, place.end) if place else None for place in found]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("__hh_i__ __yy_ou__", "hi you", [(2, 6), (11, 16)]),
        ("_hi_you_", "hi you", [(1, 3), (4, 7)]),  # no frame for the space
        ("aab_b c", "abb c", [(0, 5), (6, 7)]),  # a repeated character needs a blank between
        ("_hi_ _big_ _you_", "hi you", [(1, 3), (12, 15)]),  # a word is left out of the text
        ("_big_ _hi_ _you_", "hi you", [(7, 9), (12, 15)]),  # at the start
        ("_hi_ _you_ _big_", "hi you", [(1, 3), (6, 9)]),  # at the end
        ("_hi_ _you_", "hi large you", [(1, 3), None, (6, 9)]),  # a word is made up
        ("_hi_ _you_", "large hi you", [None, (1, 3), (6, 9)]),
        ("_hi_ _you_", "hi you large green", [(1, 3), (6, 9), None, None]),
        ("_hi_ _big_ _you_", "hi small you", [(1, 3), None, (12, 15)]),  # another word is spoken
        ("________", "hi you", [None, None]),
        ("_hi_", "hi", [(1, 3)]),
        ("_h_i", "hi", [(1, 4)]),  # the last frame is a character
    ],
)
def test_words_are_found_skipped_and_passed_over(path: str, text: str, expected: list[tuple[int, int] | None]) -> None:
    assert places(path, text) == expected


def test_a_word_that_agrees_with_the_model_scores_0_and_another_one_less() -> None:
    (right,) = align(recording("_word_"), labels("word"), [False, False])
    (wrong,) = align(recording("_wxrd_"), labels("word"), [False, False])
    assert right == WordFrames(1, 5, 0.0)
    assert wrong is not None and wrong.score == pytest.approx(-FLOOR / 4, abs=0.01)


def test_characters_of_a_word_are_near_each_other() -> None:
    """Noise after a word can have its last character; a pause inside a word has a cost."""
    path = "_wor" + "#" + "_" * 60 + "d" + "_"  # `#`: every label
    assert places(path, "word") == [(1, 5)]


def test_an_improbable_character_far_away_does_not_move_the_edge_of_its_word() -> None:
    posteriors = recording("_wor" + "_" * 60)
    posteriors.scores[40, ord("d")] = -2.0
    assert align(posteriors, labels("word"), [False, False]) == [WordFrames(1, 4, pytest.approx(-0.5, abs=0.01))]


def test_words_without_labels_explain_speech_at_a_small_cost() -> None:
    """What is between the two words is longer than the cost of skipping one of them allows."""
    path = "_ab_ _" + frames_of("qwertzqwertz") + "_cd_"
    words, wild = labels("ab cd"), [False, True, False]
    assert [place is not None for place in align(recording(path), words, wild)] == [True, True]
    posteriors = recording(path)
    assert path_score(posteriors, words, 0, len(path)) == pytest.approx(-12 * STAR_COST, abs=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_the_path_is_the_best_one(seed: int) -> None:
    """Compared with every path of a plain dynamic program, for random scores and any number of blocks."""
    rng = np.random.default_rng(seed)
    words = [[1, 2], [2], [3, 1, 1]]
    scores = -np.abs(rng.normal(0, 4, (14, 40))).astype(np.float16)
    posteriors = Posteriors(
        scores, rng.random(14).astype(np.float16), np.zeros(14, np.float16), {label: label for label in range(40)}
    )
    found = align(posteriors, words, [False] * 4)
    assert found == best_places(posteriors, words)


def best_places(posteriors: Posteriors, words: list[list[int]]) -> list[WordFrames | None]:
    """The best places by trying each subset of the words and each path through it."""
    scores, total = posteriors.scores.astype(float), len(posteriors.scores)
    star = -STAR_COST * posteriors.speech.astype(float)
    gap = np.maximum(np.maximum(scores[:, BLANK], scores[:, 32]), star)
    best: tuple[float, list[WordFrames | None]] = (-np.inf, [])
    for kept in itertools.product([True, False], repeat=len(words)):
        chosen = [word for word, keep in zip(words, kept, strict=True) if keep]
        cost = SKIP_COST * sum(len(word) for word, keep in zip(words, kept, strict=True) if not keep)
        states: list[tuple[int, int, bool]] = [(-1, 0, False)]  # word, label, whether it is a character
        for number, word in enumerate(chosen):
            for index, label in enumerate(word):
                states += [(number, label, True), (number if index < len(word) - 1 else -1, 0, False)]
        emitted = [
            scores[:, label] if is_char else gap if number < 0 else scores[:, BLANK] - PAUSE_COST
            for number, label, is_char in states
        ]
        paths: dict[int, tuple[float, list[int]]] = {0: (0.0, [])}
        for frame in range(total):
            following: dict[int, tuple[float, list[int]]] = {}
            for state, (score, path) in paths.items():
                options = [state, state + 1]
                if state % 2 and state + 2 < len(states) and states[state][1] != states[state + 2][1]:
                    options.append(state + 2)
                if frame == 0 and state == 0:
                    options = [0, 1]
                for new in options:
                    if new < len(states):
                        value = score + float(emitted[new][frame])
                        if new not in following or value > following[new][0]:
                            following[new] = (value, [*path, new])
            paths = following
        for state in (len(states) - 1, len(states) - 2):
            if state in paths and paths[state][0] - cost > best[0]:
                best = (paths[state][0] - cost, places_of(paths[state][1], states, emitted, words, kept))
    return best[1]


def places_of(
    path: list[int],
    states: list[tuple[int, int, bool]],
    emitted: list[np.ndarray],
    words: list[list[int]],
    kept: tuple[bool, ...],
) -> list[WordFrames | None]:
    found = dict[int, WordFrames]()
    for number in range(sum(kept)):
        frames = [frame for frame, state in enumerate(path) if states[state][2] and states[state][0] == number]
        spent = sum(
            float(emitted[path[frame]][frame]) + PAUSE_COST * (not states[path[frame]][2])
            for frame in range(frames[0], frames[-1] + 1)
        )
        found[number] = WordFrames(frames[0], frames[-1] + 1, spent)
    places, number = list[WordFrames | None](), 0
    for word, keep in zip(words, kept, strict=True):
        place = found[number] if keep else None
        number += keep
        places.append(place and WordFrames(place.start, place.end, pytest.approx(place.score / len(word), abs=0.02)))
    return places


def test_a_long_text_is_searched_in_a_window_that_moves() -> None:
    words = ["".join(np.random.default_rng(n).choice(list("abcdefgh"), 6)) for n in range(60)]
    path = "".join(f"_{frames_of(word)} " for word in words)
    whole = align(recording(path), labels(" ".join(words)), [False] * 61)
    part = align(recording(path), labels(" ".join(words)), [False] * 61, search_width=60)
    assert part == whole and all(place and place.score == 0 for place in whole)
    lost = align(recording(PAUSE + path), labels(" ".join(["zzzzzzzzzz"] * 20 + words)), [False] * 81, search_width=60)
    assert not any(place and place.score == 0 for place in lost)  # the text that is spoken is not in the first window


def test_the_text_can_be_much_longer_than_the_audio() -> None:
    assert places("_hi_", "hi " + "word " * 200)[0] == (1, 3)
    assert places("_hi_", "word " * 200 + "hi")[-1] == (1, 3)


def test_path_score_does_not_skip() -> None:
    posteriors = recording("_hi_")
    assert path_score(posteriors, labels("hi"), 0, 4) == 0
    assert path_score(posteriors, [], 0, 4) == pytest.approx(-2 * STAR_COST)
    assert path_score(posteriors, labels("hi you all"), 0, 4) < -1e6


def test_constants_fit_a_day_of_audio() -> None:
    """A path's number holds every state and every score."""
    assert star_alignment.ORIGIN_BITS + 37 == 63
    frames = 24 * 3600 * 50
    assert frames * FLOOR * star_alignment.SCALE < 1 << 37 and 2 * frames < 1 << star_alignment.ORIGIN_BITS
