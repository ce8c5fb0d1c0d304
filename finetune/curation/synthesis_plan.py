"""Which voice speaks which sentence, how fast and how high: the same for the same arguments."""

import hashlib
import json
import random
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.core.options import SynthesisOptions
from finetune.curation.lexicon import Lexicon, pronounce
from finetune.curation.spoken_texts import Sentence
from finetune.curation.voices.registry import full_name
from finetune.curation.voices.voice import Line, Voice


@dataclass(frozen=True)
class PlannedClip:
    """A clip to synthesize. Its id depends on all that decides its audio, so a finished file can be used again."""

    id: str
    sentence: Sentence
    voice: Voice
    line: Line


def plan_clips(
    sentences: Sequence[Sentence], voices: Sequence[Voice], lexicon: Lexicon, options: SynthesisOptions
) -> list[PlannedClip]:
    """Gives each sentence `voices_per_sentence` voices in turn, so that each term is spoken by as many as possible.

    The terms begin with different voices. Pronunciation variants change with each round of the voices.
    """
    clips = dict[str, PlannedClip]()
    count = min(options.voices_per_sentence, len(voices))
    turns: dict[tuple[str, ...], int] = {}
    for sentence in sentences:
        turn = turns.setdefault(sentence.terms, len(turns))
        for number in range(turn, turn + count):
            voice, variant = voices[number % len(voices)], sum(divmod(number, len(voices)))
            clip = _clip(sentence, voice, lexicon, variant, options)
            clips.setdefault(clip.id, clip)
        turns[sentence.terms] = turn + count
    return list(clips.values())


def _clip(sentence: Sentence, voice: Voice, lexicon: Lexicon, variant: int, options: SynthesisOptions) -> PlannedClip:
    rng = random.Random(f"{options.seed}/{full_name(voice)}/{sentence.text}")
    speed, pitch = (round(1 + width * rng.uniform(-1, 1), 3) for width in (options.speed, options.pitch))
    line = Line(pronounce(sentence.text, lexicon, variant, voice.takes_ipa), speed, pitch)
    spoken = [[part.text, part.ipa] for part in line.parts]
    content = [sentence.text, spoken, full_name(voice), voice.identity, speed, pitch]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]
    return PlannedClip(
        f"{_slug(sentence.terms[0] if sentence.terms else sentence.text)}-{digest}", sentence, voice, line
    )


def _slug(text: str) -> str:
    """A short part of a file name that is readable for Latin script."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:32] or "clip"
