"""Finds leaks: sentences, audio and speakers of an evaluation split that are also in the training data."""

import unicodedata
from collections.abc import Iterable

from finetune.data.manifest import Utterance
from finetune.data.problems import Problem


def find_leaks(train: Iterable[Utterance], scored: Iterable[Utterance], split: str = "train") -> list[Problem]:
    """Finds what `scored` (valid, test or canary) has in common with `train`. Each leak makes the scores too good.

    Kinds: "sentence also in train" (compared without case, width and punctuation), "audio file also in train" (the
    same file and offset), "speaker also in train" (one problem for each speaker). Correct data also repeats short
    answers, so a few problems are normal.

    Args:
        train: utterances of a training split.
        scored: utterances of a split that is scored.
        split: name of the split `train`, for the kinds and the details.
    """
    train = list(train)
    sentences = {_comparison_key(item.text): item for item in train}
    segments = {(item.audio_filepath, item.offset): item for item in train}
    speakers = {item.speaker: item for item in train}
    problems, reported = list[Problem](), set[str]()
    for item in scored:
        key = _comparison_key(item.text)
        if key and (match := sentences.get(key)):
            detail = f"{match.id}: {match.text[:80]!r}"
            problems.append(Problem(f"sentence also in {split}", item.id, item.audio_filepath, detail))
        if match := segments.get((item.audio_filepath, item.offset)):
            problems.append(Problem(f"audio file also in {split}", item.id, item.audio_filepath, f"as {match.id}"))
        if item.speaker and item.speaker not in reported and (match := speakers.get(item.speaker)):
            reported.add(item.speaker)
            detail = f"{item.speaker!r}, as in {match.id}"
            problems.append(Problem(f"speaker also in {split}", item.id, item.audio_filepath, detail))
    return problems


def _comparison_key(text: str) -> str:
    """The text in one form for all widths, cases, punctuation and spacing."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(" " if unicodedata.category(char)[0] in "PSZ" else char for char in text).split())
