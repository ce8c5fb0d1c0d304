"""Samples the keywords of training prompts: terms and rare words of a clip among distractors, or distractors alone.

A list depends only on seed, epoch, id and text of its clip, on the settings, and on the words of all clips.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from random import Random

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.config import KeywordsSection, Recipe
from finetune.core.wording import count as plural
from finetune.data.cells import cell_keywords
from finetune.data.utterance_table import UtteranceTable
from finetune.metrics.keyword_terms import keyword_problem, prompted_terms, words_of
from finetune.metrics.normalizer import UNSPACED, normalize
from finetune.metrics.term_matcher import TermMatcher
from finetune.training.augment import sample_rng

log = logging.getLogger(__name__)

COLUMNS = ("text", "keywords", "extra")
BLOCK = 8192  # rows that are Python objects at a time
MAX_PHRASE = 3  # words of a phrase of the clip's own text
MAX_PHRASES = 50_000  # phrases among the distractors
MAX_OWN = 3  # rare words and phrases of the clip's own text in a list
PHRASES = 0.2  # share of these that continue with the next words


def named_terms(keywords: Iterable[str], terms: object) -> tuple[str, ...]:
    """The terms of the columns `keywords` and `terms`; a comma separates terms, also inside an element of a list."""
    parts = [*keywords, *(terms if isinstance(terms, list | tuple) else [terms])]
    return tuple(dict.fromkeys(word for part in parts if isinstance(part, str) for word in cell_keywords(part)))


class KeywordPrompts:
    """Samples keyword lists.

    Args:
        settings: the section `keywords` of the recipe.
        seed: of the run.
        preset: the normalizer, with which terms are found in texts.
        tokenizer: of the base model.
        terms: the domain terms.
        rows: the text of each row of train and replay, and the terms that the row names.

    Attributes:
        pool: all distractors: the terms, then words and phrases of all texts; spellings that the normalizer makes equal
            occur once.
        num_terms: how many of these are terms.
    """

    def __init__(
        self,
        settings: KeywordsSection,
        seed: int,
        preset: str,
        tokenizer: Tokenizer,
        terms: Sequence[str],
        rows: Iterable[tuple[str, Sequence[str]]],
    ) -> None:
        self.settings, self.seed, self.preset, self._tokenizer = settings, seed, preset, tokenizer
        self._special = tuple(tokenizer.get_added_vocab())
        named, counts = dict.fromkeys(terms), Counter[str]()
        phrases, rng = list[str](), Random(f"{seed}/keyword phrases")
        for number, (text, terms_of_row) in enumerate(rows):
            words = words_of(text)
            counts.update(words)
            named |= dict.fromkeys(terms_of_row)
            start = rng.randrange(len(words) or 1)
            phrase = " ".join(words[start : start + rng.randint(2, MAX_PHRASE)])
            if len(phrases) < MAX_PHRASES:
                phrases.append(phrase)
            elif (place := rng.randrange(number + 1)) < MAX_PHRASES:  # reservoir sampling
                phrases[place] = phrase
        self._counts = {word: count for word, count in counts.items() if self._usable(word)}
        domain = [term for term in named if self._usable(term)]
        if left_out := len(named) - len(domain):
            wrong = next(term for term in named if not self._usable(term))
            log.warning(
                "%s of the rows left out, which cannot be keywords, such as %r", plural(left_out, "term"), wrong
            )
        self._matcher = TermMatcher(domain, preset)
        self.pool, self._needles, self.num_terms = self._distinct(
            domain, [*sorted(self._counts), *self._some_phrases(phrases)]
        )
        self._lengths = self._count_tokens(self.pool)
        self._length_of = dict(zip(self.pool, self._lengths.tolist(), strict=True))
        self._header = len(tokenizer.encode(" Keywords:", add_special_tokens=False))

    def _some_phrases(self, phrases: list[str]) -> list[str]:
        """Phrases of several words, as many as their share of the words of a clip's own text."""
        usable = [phrase for phrase in dict.fromkeys(phrases) if " " in phrase and self._usable(phrase)]
        return usable[: int(len(self._counts) * PHRASES / (1 - PHRASES))]

    def _usable(self, word: str) -> bool:
        return not keyword_problem(word, self._special) and bool(normalize(word, self.preset))

    def _distinct(self, terms: Sequence[str], words: Sequence[str]) -> tuple[list[str], list[str], int]:
        """The pool, the normalized form of each of its entries, and the number of terms."""
        entries = dict[str, str]()
        for term in terms:
            entries.setdefault(self._padded(term), term)
        num_terms = len(entries)
        for word in words:
            entries.setdefault(self._padded(word), word)
        return list(entries.values()), list(entries), num_terms

    def _padded(self, text: str) -> str:
        """The normalized text, in which `in` finds complete words only."""
        normalized = normalize(text, self.preset)
        return normalized if self.preset in UNSPACED else f" {normalized} "

    def _count_tokens(self, words: Sequence[str]) -> np.ndarray:
        """The tokens of each keyword in a list, with its comma."""
        counts = np.zeros(len(words), np.int64)
        for start in range(0, len(words), BLOCK):
            block = [f" {word}" for word in words[start : start + BLOCK]]
            tokens = self._tokenizer(block, add_special_tokens=False)["input_ids"]
            counts[start : start + BLOCK] = [len(ids) + 1 for ids in tokens]
        return counts

    def _length(self, keyword: str) -> int:
        """The tokens of a keyword in a list, with its comma; those of a phrase are at most those of its words."""
        if keyword in self._length_of:
            return self._length_of[keyword]
        if len(words := keyword.split(" ")) > 1:
            return sum(map(self._length, words)) - len(words) + 1
        return self._length_of.setdefault(keyword, int(self._count_tokens([keyword])[0]))

    def sample(self, clip: str, text: str, epoch: int | None, room: int) -> tuple[tuple[str, ...], int]:
        """The keywords of a clip's prompt in an epoch, in random order, and the number of tokens that they add at most.

        Args:
            clip: id of the clip.
            text: its text.
            epoch: from 0; None gives the longest list that the clip can have.
            room: tokens that the list can add. A list that does not fit loses distractors, then terms.
        """
        settings, rng = self.settings, sample_rng(self.seed, epoch or 0, f"{clip}/keywords")
        share, largest = float(rng.random()), settings.largest
        size = min(largest, int(math.exp(rng.uniform(0, math.log(largest + 1)))))
        if epoch is None:
            share, size = 0.0, largest
        elif share >= settings.true_terms + settings.distractors:
            return (), 0
        true = self._true_terms(text, rng)[:size] if share < settings.true_terms else []
        words, lengths = [*true], [self._length(word) for word in true]
        numbers = self._distractors(text, size - len(true), rng)
        words += [self.pool[number] for number in numbers]
        lengths += self._lengths[numbers].tolist()
        ends = np.cumsum([self._header, *lengths])
        kept = int(np.searchsorted(ends, room, side="right")) - 1
        if kept < 1:
            return (), 0
        order = rng.permutation(kept)
        return tuple(words[number] for number in order), int(ends[kept])

    def _true_terms(self, text: str, rng: np.random.Generator) -> list[str]:
        """Terms in the text of a clip and some of its rare words, in random order."""
        terms = self._matcher.terms_in(text)
        chosen = [terms[number] for number in rng.permutation(len(terms))]
        words = words_of(text)
        if chosen and rng.random() >= self.settings.rare_words:
            return chosen
        listed = {self._padded(term) for term in chosen}
        places = [
            place
            for place, word in enumerate(words)
            if word in self._counts and not any(self._padded(word) in needle for needle in listed)
        ]
        if not places:
            return chosen
        weights = np.array([1 / self._counts[words[place]] for place in places])
        picked = rng.choice(
            len(places), min(len(places), int(rng.integers(1, MAX_OWN + 1))), replace=False, p=weights / weights.sum()
        )
        for number in picked.tolist():
            phrase = self._phrase(text, words, places[number], rng)
            if self._padded(phrase) not in listed:
                listed.add(self._padded(phrase))
                chosen.append(phrase)
        return chosen

    def _phrase(self, text: str, words: Sequence[str], place: int, rng: np.random.Generator) -> str:
        """A word of a text, or a phrase that begins with it, as it is written there."""
        size = int(rng.integers(2, MAX_PHRASE + 1)) if rng.random() < PHRASES else 1
        phrase = " ".join(words[place : place + size])
        return phrase if phrase in text and not keyword_problem(phrase, self._special) else words[place]

    def _distractors(self, text: str, count: int, rng: np.random.Generator) -> list[int]:
        """Entries of the pool that do not occur in the text of a clip: half of them terms, if there are enough."""
        if count <= 0:
            return []
        num_words, spare = len(self.pool) - self.num_terms, len(text.split()) + 1  # so many can occur in the text
        num_terms = int(rng.binomial(count, 0.5)) if num_words else count
        num_terms = max(num_terms, count - num_words)
        drawn = [*_sample(self.num_terms, num_terms + spare, rng)]
        rest = [self.num_terms + number for number in _sample(num_words, count + spare, rng)]
        padded = self._padded(text)
        usable = [[n for n in numbers if self._needles[n] not in padded] for numbers in (drawn, rest)]
        terms = usable[0][:num_terms]
        return terms + usable[1][: count - len(terms)]


def _sample(size: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` different numbers below `size`, all of them if there are fewer."""
    return rng.choice(size, min(size, count), replace=False).tolist() if size else []


def keyword_prompts(recipe: Recipe, tokenizer: Tokenizer, table: UtteranceTable) -> KeywordPrompts | None:
    """Samples the keywords of a recipe; None if its section `keywords` is off.

    Raises:
        DataError: `data.terms` cannot be read, or has a term that cannot be a keyword.
    """
    settings = recipe.keywords
    if not settings.sampled:
        return None
    terms = prompted_terms(recipe, tuple(tokenizer.get_added_vocab()))
    return KeywordPrompts(settings, recipe.seed, recipe.evaluate.normalizer, tokenizer, terms, _texts_and_terms(table))


def _texts_and_terms(table: UtteranceTable) -> Iterator[tuple[str, tuple[str, ...]]]:
    for start in range(0, len(table), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(table)))
        for text, keywords, extra in zip(*(table.pick(name, rows) for name in COLUMNS), strict=True):
            yield text, named_terms(keywords, json.loads(extra).get("terms") if extra else None)
