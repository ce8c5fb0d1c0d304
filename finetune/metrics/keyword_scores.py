"""Scores of one system with keyword lists of one size in its prompts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from finetune.metrics.blocks import Blocks, choose_blocks
from finetune.metrics.hallucination import false_keywords
from finetune.metrics.results import KeywordListScores
from finetune.metrics.score_intervals import share_interval
from finetune.metrics.scorecard import Clip, ScoringOptions, term_scores, units_of
from finetune.metrics.scores import SubsetWer
from finetune.metrics.significance import Interval, bootstrap_wer, paired_difference
from finetune.metrics.terms import count_terms, summarize
from finetune.metrics.wer import error_rate, errors_per_utterance


def keyword_list_scores(
    clips: Sequence[Clip],
    texts: Sequence[str],
    without: Sequence[str],
    options: ScoringOptions,
    *,
    split: str,
    distractors: int | None,
    true_terms: bool,
    shortened: int,
) -> KeywordListScores:
    """Scores the texts that a system writes with one kind of keyword list.

    Args:
        clips: the clips with the keywords of their prompts.
        texts: what was written.
        without: what was written without keywords.
        options: normalizer, terms and bootstrap.
        split: name of the set.
        distractors: distractors of each list; None for prompts without keywords.
        true_terms: whether the lists also have the terms of their clips.
        shortened: lists that did not fit.
    """
    preset, blocks = options.preset, choose_blocks(units_of(clips))
    references, hypotheses = [clip.text for clip in clips], list(texts)
    counts = count_terms(references, hypotheses, list(options.terms), preset)
    errors, words = zip(*errors_per_utterance(references, hypotheses, preset), strict=True)
    before = [count for count, _ in errors_per_utterance(references, list(without), preset)]

    def interval(top: Sequence[int], below: Sequence[int]) -> Interval:
        return bootstrap_wer(top, below, blocks.names, options.replicas, options.seed)

    spoken, written = counts.in_references.sum(0).tolist(), counts.in_hypotheses.sum(0).tolist()
    wrong = np.maximum(counts.in_hypotheses - counts.in_references, 0).sum(0).tolist()
    false = [
        len(false_keywords(clip.text, text, clip.keywords, preset)) for clip, text in zip(clips, texts, strict=True)
    ]
    summary = summarize(counts.rows())
    without_term = [index for index, count in enumerate(spoken) if not count]
    return KeywordListScores(
        set=split,
        distractors=distractors,
        true_terms=true_terms,
        mean_keywords=sum(len(clip.keywords) for clip in clips) / len(clips),
        shortened=shortened,
        wer=error_rate(sum(errors), sum(words)),
        interval=interval(errors, words),
        difference=None
        if distractors is None
        else paired_difference(before, errors, words, blocks.names, options.replicas, options.seed),
        recall=summary.recall,
        terms=term_scores(counts, blocks, options) if summary.support else None,
        precision=summary.precision,
        precision_interval=_precision_interval(wrong, written, blocks, options),
        false_keywords_per_clip=sum(false) / len(clips),
        false_keywords_interval=interval(false, [1] * len(clips)),
        without_term=SubsetWer.of(without_term, errors, words),
    )


def _precision_interval(
    wrong: Sequence[int], written: Sequence[int], blocks: Blocks, options: ScoringOptions
) -> Interval | None:
    """The interval of the precision; None if no term is written."""
    if not any(written):
        return None
    return flipped(share_interval(wrong, written, blocks.names, options.replicas, options.seed))


def flipped(interval: Interval) -> Interval:
    """The interval of 1 minus a rate."""
    return replace(interval, low=max(0.0, 1 - interval.high), high=1 - interval.low)
