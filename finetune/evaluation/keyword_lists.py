"""Measures prompts with keyword lists of different sizes: with the terms of a clip, and with distractors only."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

import numpy as np
import torch

from finetune.core.options import DecodingOptions
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import num_frames
from finetune.data.manifest import Utterance
from finetune.data.row_prompt import instruction_of
from finetune.evaluation.decode import Recognize
from finetune.evaluation.utterances import clip_of
from finetune.inference.recognize import recognize
from finetune.metrics.keyword_scores import keyword_list_scores
from finetune.metrics.keyword_terms import keyword_problem
from finetune.metrics.normalizer import normalize
from finetune.metrics.results import KeywordListScores
from finetune.metrics.scorecard import ScoringOptions
from finetune.metrics.term_matcher import TermMatcher, needle_of
from finetune.model.granite import SpeechModel
from finetune.model.prompt import render

log = logging.getLogger(__name__)

FitKeywords = Callable[[Utterance, list[str]], list[str]]


@dataclass(frozen=True)
class ListKind:
    """A kind of prompt: the set that is decoded, its number of distractors (None: no keywords), and whether the terms
    of a clip are in its list."""

    split: str
    distractors: int | None
    true_terms: bool


def kinds(sizes: Sequence[int], splits: Sequence[str]) -> Iterator[ListKind]:
    """No keywords; test with the terms of each clip among distractors; each set with distractors only."""
    for split in splits:
        yield ListKind(split, None, False)
        if split == "test":
            yield from (ListKind(split, size, True) for size in sizes)
        yield from (ListKind(split, size, False) for size in sizes if size)


def evaluate_keyword_lists(
    model: SpeechModel,
    splits: Mapping[str, list[Utterance]],
    instruction: str,
    decoding: DecodingOptions,
    scoring: ScoringOptions,
    sizes: Sequence[int],
    recognize: Recognize = recognize,
    fit: FitKeywords | None = None,
) -> list[KeywordListScores]:
    """Scores all `kinds` of prompts.

    The method is that of Le et al., "Contextualized streaming end-to-end speech recognition with trie-based deep
    biasing and shallow fusion", Interspeech 2021: the terms of an utterance are those that occur in its reference.

    Args:
        splits: utterances of test, and of canary if there is one; their keywords are replaced.
        instruction: the instruction of the prompt.
        decoding: options of the decoder; its `terms` are not used.
        scoring: normalizer, terms and bootstrap. Distractors are terms that are not spoken in the clip, then words of
            the training data.
        sizes: numbers of distractors.
        recognize: decodes utterances with one instruction.
        fit: shortens a list to what fits into the context of the model; the default is `words_that_fit`.

    Returns:
        The scores of each kind of prompt.
    """
    decoding = replace(decoding, terms=())  # the lists say what is expected
    fit = fit or partial(words_that_fit, model, instruction, decoding.max_new_tokens)
    lists = _Lists(scoring, fit if decoding.in_prompt(("",)) else lambda _, words: words)
    scores, without = list[KeywordListScores](), list[str]()
    for kind in kinds(sizes, list(splits)):
        prompted, shortened = lists.prompted(splits[kind.split], kind)
        texts = [item.text for item in recognize(model, prompted, instruction, decoding)]
        without = texts if kind.distractors is None else without
        row = keyword_list_scores(
            [clip_of(item, instruction, measure_audio=False) for item in prompted],
            texts,
            without,
            scoring,
            split=kind.split,
            distractors=kind.distractors,
            true_terms=kind.true_terms,
            shortened=shortened,
        )
        scores.append(row)
    return scores


class _Lists:
    """Gives utterances their keywords."""

    def __init__(self, scoring: ScoringOptions, fit: FitKeywords) -> None:
        self.scoring, self.fit, preset = scoring, fit, scoring.preset
        problems = {term: problem for term in scoring.terms if (problem := keyword_problem(term))}
        for term, problem in problems.items():
            log.warning("keyword lists leave out the term %r: it %s", term, problem)
        self.matcher = TermMatcher([term for term in scoring.terms if term not in problems], preset)
        self.terms = [term.term for term in self.matcher.terms]
        needles = {needle for needle, as_written in (needle_of(term, preset) for term in self.terms) if not as_written}
        self.words = [word for word in sorted(scoring.trained) if word not in needles and not keyword_problem(word)]

    def prompted(self, utterances: Sequence[Utterance], kind: ListKind) -> tuple[list[Utterance], int]:
        """The utterances with their keywords, and the number of lists that are shortened."""
        if kind.distractors is None:
            return [replace(item, keywords=()) for item in utterances], 0
        rng, prompted, shortened = Random(self.scoring.seed), list[Utterance](), 0
        for item in utterances:
            spoken, reference = self.matcher.terms_in(item.text), normalize(item.text, self.scoring.preset)
            words = [*spoken] if kind.true_terms else []
            words += sample_distractors(spoken, self.terms, self.words, reference, kind.distractors, rng)
            kept = self.fit(item, words)
            shortened += len(kept) < len(words)
            rng.shuffle(kept)
            prompted.append(replace(item, keywords=tuple(kept)))
        return prompted, shortened


def words_that_fit(
    model: SpeechModel, instruction: str, max_new_tokens: int, item: Utterance, words: list[str]
) -> list[str]:
    """The first keywords that fit into the context of the model with the audio and text of an utterance."""
    frames = num_frames(np.array([round(item.duration * SAMPLE_RATE)]))
    room = model.max_positions - max_new_tokens - int(model.num_audio_tokens(torch.from_numpy(frames))[0])

    text = instruction_of(item, instruction, model.profile)

    def fits(count: int) -> bool:
        prompt = render(model.tokenizer, text, tuple(words[:count]), model.profile)
        return len(prompt.prefix) + len(prompt.suffix) <= room

    if fits(len(words)):
        return words
    low, high = 0, len(words) - 1  # the first `low` words fit, unless even none does
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return words[:low]


def sample_distractors(
    in_clip: Sequence[str], terms: Sequence[str], words: list[str], reference: str, count: int, rng: Random
) -> list[str]:
    """Terms that do not occur in an utterance, then words that are not in its reference, if there are too few terms."""
    reference_words = set(reference.split())
    other_terms = [term for term in terms if term not in in_clip]
    sampled_terms = rng.sample(other_terms, min(count, len(other_terms)))
    missing = count - len(sampled_terms)
    candidates = rng.sample(words, min(missing + len(reference_words), len(words)))
    return [*sampled_terms, *[word for word in candidates if word not in reference_words][:missing]]
