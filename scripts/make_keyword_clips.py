#!/usr/bin/env python3
"""Speaks sentences with made-up words, for recipes/keywords.yaml: data/keyword-clips.

    python scripts/make_keyword_clips.py                # needs apt-get install espeak-ng flite fortunes wordnet-base

A model learns to copy a word from its prompt only if it cannot know the word, so most made-up words occur once. They
are made letter by letter, half of them like the terms of data/vocabulary/train.jsonl and half like English. They are in
sentences of scripts/keyword_texts.py and of train.jsonl. None is a term of data/vocabulary/terms.txt. No voice has the
accent of the test-only voice.

`spoken.jsonl` has the clips. `text.jsonl` has sequences of made-up words with the same 0.3 s of silence and these words
as keywords, from which the language model learns to copy before it hears speech.
"""

import argparse
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from build_vocabulary import normalize_level, perturb, trim
from keyword_texts import common_sentences, letter_chain, pseudo_word, words_of_wordnet
from nano.speech import SAMPLE_RATE, Voice, speak

DATA = Path(__file__).resolve().parents[1] / "data"
SILENCE = 0.3  # seconds
TEXTS = 5000
ACCENTS = [
    "en-us",
    "en-us",
    "en-us",
    "en-gb",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
]
VARIANTS = ["f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "klatt2"]
FLITE = ["slt", "slt", "rms", "awb", "kal16"]
FLITE_PITCH = {"slt": 175.0, "rms": 95.0, "awb": 125.0, "kal16": 105.0}


def vocabulary() -> tuple[list[str], set[str]]:
    """The distinct sentences of train, and the terms in them."""
    rows = [json.loads(line) for line in (DATA / "vocabulary" / "train.jsonl").read_text().splitlines()]
    return sorted({row["text"] for row in rows}), {term for row in rows for term in row["terms"]}


class Writer:
    """Writes texts with made-up words."""

    def __init__(self) -> None:
        self.rng = random.Random("keyword clips")
        self.sentences, self.terms = vocabulary()
        self.common = common_sentences()
        english = words_of_wordnet()
        self.chains = (letter_chain(english), letter_chain(sorted(self.terms)))
        self.known = {*english, *(DATA / "vocabulary" / "terms.txt").read_text().split()}
        self.known |= {word for text in (*self.common, *self.sentences) for word in text.split()}

    def word(self) -> str:
        """A word that is in no other text, unless it is made again by chance."""
        while (word := pseudo_word(self.rng.choice(self.chains), self.rng)) in self.known:
            pass
        return word

    def list_and_text(self) -> tuple[list[str], str]:
        """Two or three made-up words, and these twice, each time in a random order."""
        made = [self.word() for _ in range(self.rng.randint(2, 3))]
        return made, " ".join(word for _ in range(2) for word in self.rng.sample(made, len(made)))

    def text(self) -> tuple[str, list[str]]:
        """A text to be spoken, and its made-up words."""
        rng, kind = self.rng, self.rng.random()
        if kind < 0.15:
            made = [self.word() for _ in range(rng.randint(2, 4))]
            return " ".join(made), made
        if kind < 0.3:
            return rng.choice(self.common), []
        words = rng.choice(self.common if kind < 0.65 else self.sentences).split()
        places = [place for place, word in enumerate(words) if word in self.terms] or [rng.randrange(len(words))]
        for place in places:
            words[place] = self.word()
        return " ".join(words), [words[place] for place in places]


def voice_of(ident: str) -> Voice:
    """A random voice, which depends only on the id."""
    rng = np.random.default_rng([*ident.encode()])
    while (voice := sample_voice(rng)).name.startswith("en-029"):
        pass
    return perturb(voice, ident)


def sample_voice(rng: np.random.Generator) -> Voice:
    """A random voice: espeak-ng (accent and variant) in half of the cases, else flite."""
    if rng.random() < 0.5:
        name = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
        return Voice("espeak", name, float(rng.integers(135, 200)), float(rng.integers(35, 65)))
    name = str(rng.choice(FLITE))
    return Voice("flite", name, float(rng.uniform(0.85, 1.2)), FLITE_PITCH[name] * float(rng.uniform(0.85, 1.2)))


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{path}: {len(rows)} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=3600)
    parser.add_argument("--output", type=Path, default=DATA / "keyword-clips")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    writer, audio = Writer(), args.output / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    texts = [writer.text() for _ in range(args.clips)]

    def build(number: int) -> dict[str, object]:
        ident, (text, made) = f"made-up-{number:05d}", texts[number]
        path, voice = audio / f"{ident}.flac", voice_of(ident)
        if not path.exists():
            soundfile.write(path, normalize_level(trim(speak(text, voice))), SAMPLE_RATE)
        seconds = soundfile.info(path).duration
        name = f"audio/{path.name}"
        return {
            "id": ident,
            "audio_filepath": name,
            "duration": seconds,
            "text": text,
            "speaker": voice.name,
            "terms": made,
        }

    with ThreadPoolExecutor(args.workers) as pool:
        rows = list(pool.map(build, range(args.clips)))
    write(args.output / "spoken.jsonl", rows)
    soundfile.write(audio / "silence.flac", np.zeros(round(SILENCE * SAMPLE_RATE), np.float32), SAMPLE_RATE)
    silent = {"audio_filepath": "audio/silence.flac", "duration": SILENCE}
    lists = [writer.list_and_text() for _ in range(TEXTS)]
    named = [
        {"id": f"text-{number:05d}", **silent, "text": text, "keywords": made}
        for number, (made, text) in enumerate(lists)
    ]
    write(args.output / "text.jsonl", named)


if __name__ == "__main__":
    main()
