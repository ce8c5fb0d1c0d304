"""Detects hallucinations: flags of single hypotheses, and text for clips without speech."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.metrics.normalizer import UNSPACED, normalize
from finetune.metrics.term_matcher import TermMatcher, needle_of
from finetune.metrics.written_language import other_language

FLAGS = {
    "truncated": "reaches max_new_tokens without an end token",
    "loop": "repeats the same words",
    "fast": "more words per second than a person can say",
    "long": "more than twice as long as the reference",
    "unspoken": "has words although the reference is empty",
    "echo": "repeats the instruction",
    "keyword": "contains a keyword of the prompt that is not in the reference",
    "language": "is written in another language than the row asks for",
}
WORDS_PER_SECOND = 6.0
CHARS_PER_SECOND = 15.0  # under a preset without spaces
REPEATS = 4
LONGEST_LOOP = 8  # words in the repeated part
LOOP_CHARS = 8  # under a preset without spaces, in all repetitions: "10000" and "ハハハハ" are no loops
COMPRESSION = 2.4  # bytes of the text / bytes of its zlib stream, as in Whisper's decoder (arXiv 2212.04356, 4.5)
LENGTH_RATIO, LENGTH_SLACK = 2, 3
ECHO_WORDS = 4
ECHO_CHARS = 12  # under a preset without spaces: "form" and "ください" are no copy of an instruction


@dataclass(frozen=True)
class Probe:
    """The text that a model writes for a clip without speech of `kind` (such as "noise"); `seconds` is its duration."""

    kind: str
    seconds: float
    text: str


@dataclass(frozen=True)
class ProbeSummary:
    """Probes with at least one word: their number, their fraction, and words per minute of audio. 0 is correct."""

    clips: int
    with_output: int
    fraction: float
    words_per_minute: float


def flags(
    reference: str,
    hypothesis: str,
    *,
    duration: float,
    instruction: str,
    keywords: Sequence[str],
    truncated: bool,
    preset: str,
    language: str = "",
) -> tuple[str, ...]:
    """The flags of a hypothesis, in the order of `FLAGS`; properties that the reference also has are not flagged.

    Args:
        duration: seconds of audio.
        instruction: instruction of the prompt.
        keywords: keywords of the prompt.
        truncated: whether the hypothesis reached the limit of tokens.
        preset: a name in `NORMALIZERS`; under a preset without spaces, each character is a word.
        language: two-letter code of the text; "" is not checked.
    """
    ref_words, hyp_words = _words(reference, preset), _words(hypothesis, preset)
    rate = CHARS_PER_SECOND if preset in UNSPACED else WORDS_PER_SECOND
    repeats, compression = _repeats(hyp_words, preset), _compression(hypothesis)
    size = ECHO_CHARS if preset in UNSPACED else ECHO_WORDS
    present = {
        "truncated": truncated,
        "loop": repeats >= max(REPEATS, _repeats(ref_words, preset) + 1)
        or compression > max(COMPRESSION, _compression(reference)),
        "fast": len(hyp_words) > max(rate * duration, len(ref_words)),
        "long": len(hyp_words) > LENGTH_RATIO * len(ref_words) + LENGTH_SLACK,
        "unspoken": bool(hyp_words) and not ref_words,
        "echo": bool(_ngrams(_words(instruction, preset), size) & _ngrams(hyp_words, size) - _ngrams(ref_words, size)),
        "keyword": bool(false_keywords(reference, hypothesis, keywords, preset)),
        "language": bool(written_language(reference, hypothesis, language)),
    }
    return tuple(name for name in FLAGS if present[name])


def written_language(reference: str, hypothesis: str, language: str) -> str:
    """The language of a hypothesis that is not written in `language`; "" if it can be, or the reference is not."""
    written = other_language(hypothesis, language)
    return "" if written and other_language(reference, language) else written


def false_keywords(reference: str, hypothesis: str, keywords: Sequence[str], preset: str) -> list[str]:
    """Keywords that are in the hypothesis but not in the reference."""
    words = [word for word in keywords if normalize(word, preset)]
    if not words:
        return []
    matcher = TermMatcher(words, preset)
    pairs = zip(matcher.terms, matcher.counts(reference), matcher.counts(hypothesis), strict=True)
    false = {
        (item.needle, item.as_written)
        for item, in_reference, in_hypothesis in pairs
        if in_hypothesis > 0 == in_reference
    }
    return [word for word in words if needle_of(word, preset) in false]


def summarize_probes(probes: Sequence[Probe]) -> ProbeSummary:
    """Counts words in the outputs, normalized with `basic@2`."""
    words = [len(_words(probe.text, "basic@2")) for probe in probes]
    minutes = sum(probe.seconds for probe in probes) / 60
    with_output = sum(map(bool, words))
    return ProbeSummary(
        clips=len(probes),
        with_output=with_output,
        fraction=with_output / len(probes) if probes else 0.0,
        words_per_minute=sum(words) / minutes if minutes else 0.0,
    )


def _words(text: str, preset: str) -> list[str]:
    normalized = normalize(text, preset)
    return list(normalized) if preset in UNSPACED else normalized.split()


def _repeats(words: Sequence[str], preset: str) -> int:
    """The largest number of consecutive repetitions of 1 to `LONGEST_LOOP` words, or of at least `LOOP_CHARS`
    characters under a preset without spaces."""
    max_repeats, shortest = 1, LOOP_CHARS if preset in UNSPACED else 0
    for size in range(1, LONGEST_LOOP + 1):
        equal = 0
        for index in range(size, len(words)):
            equal = equal + 1 if words[index] == words[index - size] else 0
            repeats = equal // size + 1
            if repeats * size >= shortest:
                max_repeats = max(max_repeats, repeats)
    return max_repeats


def _compression(text: str) -> float:
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw))


def _ngrams(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
