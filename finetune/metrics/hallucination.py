"""Text that nobody said: flags of single hypotheses, and what comes out of clips without speech."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.metrics.normalizer import UNSPACED, normalize
from finetune.metrics.terms import searchable

FLAGS = {
    "truncated": "stopped by max_new_tokens, without an end of its own",
    "loop": "the same words over and over",
    "fast": "more words a second than anybody says",
    "long": "more than twice as long as the reference",
    "echo": "repeats the instruction",
    "keyword": "has a keyword of its prompt that was not said",
}
WORDS_PER_SECOND = 6.0
CHARS_PER_SECOND = 15.0  # under a preset without words
REPEATS = 4
LONGEST_LOOP = 8  # words that repeat together
COMPRESSION = 2.4  # bytes of the text over bytes of its zlib stream, as in Whisper's decoder (arXiv 2212.04356, 4.5)
LENGTH_RATIO, LENGTH_SLACK = 2, 3
ECHO_WORDS = 4


@dataclass(frozen=True)
class Probe:
    """What was heard in a clip without speech of `kind`."""

    kind: str
    seconds: float
    text: str


@dataclass(frozen=True)
class ProbeSummary:
    """Share of probes with any word, and words in a minute of them: 0 is right."""

    clips: int
    with_output: int
    share: float
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
) -> tuple[str, ...]:
    """Which of `FLAGS` a hypothesis deserves; what the reference does as well is no fault.

    Args:
        duration: seconds of audio.
        instruction, keywords: what its prompt held.
        truncated: it reached the limit of tokens.
        preset: a name in `NORMALIZERS`; under one without spaces, characters stand for words.
    """
    said, heard = _words(reference, preset), _words(hypothesis, preset)
    rate = CHARS_PER_SECOND if preset in UNSPACED else WORDS_PER_SECOND
    repeats, dense = _repeats(heard), _compression(hypothesis)
    found = {
        "truncated": truncated,
        "loop": repeats >= max(REPEATS, _repeats(said) + 1) or dense > max(COMPRESSION, _compression(reference)),
        "fast": len(heard) > max(rate * duration, len(said)),
        "long": len(heard) > LENGTH_RATIO * len(said) + LENGTH_SLACK,
        "echo": bool(_runs(_words(instruction, preset)) & _runs(heard) - _runs(said)),
        "keyword": bool(unsaid(reference, hypothesis, keywords, preset)),
    }
    return tuple(name for name in FLAGS if found[name])


def unsaid(reference: str, hypothesis: str, keywords: Sequence[str], preset: str) -> list[str]:
    """Keywords that were heard although nobody said them."""
    said, heard = (searchable(normalize(text, preset), preset) for text in (reference, hypothesis))
    found = []
    for word in keywords:
        key = normalize(word, preset)
        if key and searchable(key, preset) in heard and searchable(key, preset) not in said:
            found.append(word)
    return found


def summarize_probes(probes: Sequence[Probe]) -> ProbeSummary:
    spoken = [len(_words(probe.text, "basic@1")) for probe in probes]
    minutes = sum(probe.seconds for probe in probes) / 60
    output = sum(map(bool, spoken))
    return ProbeSummary(
        len(probes), output, output / len(probes) if probes else 0.0, sum(spoken) / minutes if minutes else 0.0
    )


def _words(text: str, preset: str) -> list[str]:
    normal = normalize(text, preset)
    return list(normal) if preset in UNSPACED else normal.split()


def _repeats(words: Sequence[str]) -> int:
    """How often, at most, one to `LONGEST_LOOP` words stand there one time after another."""
    most = 1
    for size in range(1, LONGEST_LOOP + 1):
        equal = 0
        for index in range(size, len(words)):
            equal = equal + 1 if words[index] == words[index - size] else 0
            most = max(most, equal // size + 1)
    return most


def _compression(text: str) -> float:
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw))


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + ECHO_WORDS]) for start in range(len(words) - ECHO_WORDS + 1)}
