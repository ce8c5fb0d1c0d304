"""Chooses the tiers of an annotation file that have transcripts: one for each speaker, or words that are joined."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from finetune.data.formats.cues import Annotation, Cue, join_words


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Tiers by the words of their names: of Praat, the Montreal Forced Aligner, WebMAUS and ELAN.
WORDS = _set("word words ort tokens")
NO_TRANSCRIPTS = _set(
    "phone phones phoneme phonemes phonetic phonetics segments syllable syllables syll mau mas kan tones tobi pitch "
    "pos lemma lemmas gloss glosses morph morphs comment comments note notes translation translations noise events "
    "gesture gestures"
)
GENERIC = _set(
    "text transcript transcripts transcription utterance utterances utt sentence sentences orth orthography "
    "orthographic speech default phrase phrases ipu ipus turn turns tx trn tier segment label labels speaker"
)
SILENCE = {"", "sil", "sp", "<sil>", "<eps>", "<p:>", "_", "#", "<silence>", "silence"}
SAME = 0.001  # seconds


@dataclass(frozen=True)
class Tier:
    """A tier: its name, its intervals, and its speaker if the file states one."""

    name: str
    cues: Sequence[Cue]
    speaker: str = ""


def cues_of_tiers(tiers: Sequence[Tier], notes: Counter[str]) -> Annotation:
    """The intervals with words of the tiers of utterances, or segments of the tiers of words if there are no others.

    Raises:
        ValueError: no tier has a transcript.
    """
    filled = [tier for tier in tiers if any(not _is_silent(cue) for cue in tier.cues)]
    of_words = [tier for tier in filled if _words(tier) & WORDS and _has_single_words(tier)]
    others = [tier for tier in filled if tier not in of_words and not _words(tier) & NO_TRANSCRIPTS]
    utterances = _without_doubles(others)
    chosen = utterances or of_words
    if not chosen:
        names = ", ".join(repr(tier.name) for tier in tiers) or "none"
        raise ValueError(f": no tier has transcripts; the tiers are {names}")
    for tier in filled:
        if tier not in chosen:
            notes[f"intervals of tier {tier.name!r} are not read"] += len(tier.cues)
    cues = list[Cue]()
    for tier in chosen:
        speaker = tier.speaker or _speaker(tier.name, is_only=len(chosen) == 1)
        spoken_cues = [replace(cue, speaker=speaker) for cue in tier.cues if not _is_silent(cue)]
        notes["empty intervals are not read"] += len(tier.cues) - len(spoken_cues)
        notes[f"intervals of tier {tier.name!r} are read"] += len(spoken_cues)
        cues += spoken_cues if utterances else join_words(spoken_cues)
    return Annotation(sorted(cues, key=lambda cue: cue.start), +notes)


def _is_silent(cue: Cue) -> bool:
    return (cue.text or "").strip().lower() in SILENCE


def _has_single_words(tier: Tier) -> bool:
    return median(len((cue.text or "").split()) for cue in tier.cues if not _is_silent(cue)) <= 1


def _words(tier: Tier) -> set[str]:
    return {*re.split(r"[\W\d_]+", tier.name.lower())}


def _speaker(name: str, is_only: bool) -> str:
    """The speaker that a tier's name states: "Mary - words" and "tx@Mary" are Mary; "words" is nobody."""
    parts = [part.strip() for part in re.split(r"\s+-\s+|@", name)]
    parts = [part for part in parts if not {*re.split(r"[\W_]+", part.lower())} - {""} <= GENERIC | WORDS]
    return parts[0] if parts else "" if is_only else name.strip()


def _without_doubles(tiers: Sequence[Tier]) -> list[Tier]:
    """The tiers without those that annotate the intervals of another tier again, such as a second transcription."""
    kept = list[Tier]()
    for tier in sorted(tiers, key=lambda tier: not _words(tier) & GENERIC):  # a tier named "text" is preferred
        times = {(round(cue.start / SAME), round(cue.end / SAME)) for cue in tier.cues if not _is_silent(cue)}
        others = [
            {(round(cue.start / SAME), round(cue.end / SAME)) for cue in other.cues if not _is_silent(cue)}
            for other in kept
        ]
        if not any(len(times & other) > 0.8 * len(times) for other in others):
            kept.append(tier)
    return [tier for tier in tiers if tier in kept]
