"""The ranking of untranscribed clips: what each score rewards, rare words that are covered, near copies."""

import random
from collections import Counter
from dataclasses import replace
from itertools import permutations

from finetune.curation.near_copies import NearCopies, _trigrams
from finetune.curation.ranking import Candidate, rank

PLAIN = Candidate(("pay", "by", "phone"), 10, 1.0, 0)
TRAINED = Counter({"pay": 9, "by": 9, "phone": 9, "stent": 0})


def order(candidates: list[Candidate]) -> list[int]:
    return [row.index for row in rank(candidates, TRAINED, 0.99)]


def test_each_score_moves_a_clip_up() -> None:
    others = [replace(PLAIN, words=words) for words in list(permutations(PLAIN.words))[1:]]
    for better in (replace(PLAIN, entropy=9.0), replace(PLAIN, errors=3), replace(PLAIN, words=("pay", "by", "stent"))):
        assert order([*others, better])[0] == len(others)


def test_scores_are_rates_so_a_long_clip_has_no_advantage() -> None:
    long = Candidate(tuple(["pay", "by", "phone"] * 10), 100, 10.0, 5)
    short = Candidate(("pay", "by", "phone"), 10, 1.5, 1)
    rows = {row.index: row for row in rank([long, short], TRAINED, 0.99)}
    assert rows[0].entropy < rows[1].entropy and rows[0].disagreement < rows[1].disagreement
    assert rows[0].rarity <= 1 and 0 <= rows[0].score <= 1


def test_a_rare_word_counts_less_after_it_is_chosen() -> None:
    """Of three clips with the same rare word and one with another, the other one is chosen second."""
    same = [replace(PLAIN, words=("stent", *["pay"] * n, "by")) for n in (1, 2, 3)]
    other = replace(PLAIN, words=("digoxin", "pay", "pay", "by"))
    chosen = order([*same, other])
    assert chosen[0] == 0 and chosen[1] == 3
    rows = rank([*same, other], TRAINED, 0.99)
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)


def test_near_copies_come_last_and_name_the_better_clip() -> None:
    words = tuple(["please", "enter", "your", "account", "number", "now"])
    best = Candidate(words, 30, 9.0, 3, "a")
    copy = replace(best, words=(*words[:-1], "thanks"), entropy=8.0, digest="b")
    same_audio = Candidate(("other", "text"), 9, 0.5, 0, "a")
    rows = rank([PLAIN, copy, best, same_audio], TRAINED, 0.6)
    assert [row.index for row in rows[:2]] == [2, 0] and all(row.copy_of is None for row in rows[:2])
    assert {row.index: row.copy_of for row in rows[2:]} == {1: 2, 3: 2}
    assert all(row.copy_of is None for row in rank([PLAIN, copy, best], TRAINED, 1.0))


def test_clips_without_digests_are_not_copies() -> None:
    rows = rank([PLAIN, Candidate(("something", "else"), 10, 1.0, 0)], TRAINED, 0.6)
    assert all(row.copy_of is None for row in rows)


def test_near_copies_are_found_as_by_comparing_all_pairs() -> None:
    rng = random.Random(1)
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 6))) for _ in range(150)]
    for limit in (0.3, 0.6, 0.9, 1.0):
        copies, added = NearCopies(texts, limit), list[int]()
        for number, text in enumerate(texts):
            grams = _trigrams(text)
            similar = [
                other
                for other in added
                if len(grams & _trigrams(texts[other])) > limit * len(grams | _trigrams(texts[other]))
            ]
            assert (copies.find(number) is None) == (not similar)
            if not similar:
                copies.add(number)
                added.append(number)
        assert len(added) < len(texts) or limit == 1.0
