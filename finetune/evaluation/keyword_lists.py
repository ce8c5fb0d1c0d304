"""Measures term recall for different numbers of distractors among the keywords of a prompt."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from finetune.core.options import DecodingOptions
from finetune.data.manifest import Utterance
from finetune.evaluation.decode import Recognize
from finetune.inference.recognize import recognize
from finetune.metrics.hallucination import false_keywords
from finetune.metrics.normalizer import normalize
from finetune.metrics.results import KeywordListScores
from finetune.metrics.term_matcher import needle_of
from finetune.metrics.terms import count_terms, summarize
from finetune.metrics.wer import score
from finetune.model.granite import SpeechModel


def evaluate_keyword_lists(
    model: SpeechModel,
    utterances: list[Utterance],
    instruction: str,
    options: DecodingOptions,
    terms: list[str],
    words: list[str],
    sizes: list[int],
    preset: str,
    seed: int,
    recognize: Recognize = recognize,
) -> list[KeywordListScores]:
    """Scores term recall without keywords, and with the terms of an utterance among distractors in its prompt.

    The method is that of Le et al., "Contextualized streaming end-to-end speech recognition with trie-based deep
    biasing and shallow fusion", Interspeech 2021: the terms of an utterance are those that occur in its reference.

    Args:
        utterances: the utterances; their keywords are replaced.
        instruction: the instruction of the prompt.
        terms: the domain terms. The first choice for distractors is terms that occur in other utterances.
        words: words of the training data, for more distractors if there are not enough terms.
        sizes: numbers of distractors.
        preset: the normalizer.
        seed: seed of the choice and the order of the keywords.
        recognize: decodes utterances with one instruction.

    Returns:
        The scores without keywords, then those of each size.
    """
    references = [item.text for item in utterances]
    counts = count_terms(references, references, terms, preset)
    terms_by_utterance = [
        [term for term, count in zip(counts.terms, counts.in_references[:, index], strict=True) if count]
        for index in range(len(utterances))
    ]
    normalized_terms = {needle for needle, as_written in (needle_of(term, preset) for term in terms) if not as_written}
    words = [word for word in words if word not in normalized_terms]
    scores = []
    for size in (None, *sizes):
        rng = Random(seed)
        prompted = []
        for item, in_clip in zip(utterances, terms_by_utterance, strict=True):
            keywords = sample_keywords(in_clip, counts.terms, words, normalize(item.text, preset), size or 0, rng)
            prompted.append(replace(item, keywords=() if size is None else keywords))
        hypotheses = [item.text for item in recognize(model, prompted, instruction, options)]
        summary = summarize(count_terms(references, hypotheses, terms, preset).rows())
        pairs = zip(prompted, hypotheses, strict=True)
        false_alarms = sum(len(false_keywords(item.text, text, item.keywords, preset)) for item, text in pairs)
        scores.append(
            KeywordListScores(
                distractors=size,
                mean_keywords=sum(len(item.keywords) for item in prompted) / len(prompted),
                wer=score(references, hypotheses, preset).wer,
                recall=summary.recall,
                precision=summary.precision,
                false_keywords_per_clip=false_alarms / len(prompted),
            )
        )
    return scores


def sample_keywords(
    in_clip: Sequence[str], terms: Sequence[str], words: list[str], reference: str, distractors: int, rng: Random
) -> tuple[str, ...]:
    """The terms of one utterance and its distractors, shuffled; no distractor is a word of the reference."""
    reference_words = set(reference.split())
    other_terms = [term for term in terms if term not in in_clip]
    sampled_terms = rng.sample(other_terms, min(distractors, len(other_terms)))
    missing = distractors - len(sampled_terms)
    candidates = rng.sample(words, min(missing + len(reference_words), len(words)))
    sampled_words = [word for word in candidates if word not in reference_words][:missing]
    keywords = [*in_clip, *sampled_terms, *sampled_words]
    rng.shuffle(keywords)
    return tuple(keywords)
