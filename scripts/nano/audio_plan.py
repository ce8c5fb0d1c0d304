"""Which voice speaks which text: decided by the order of the texts and by seeds, not by the run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from nano.voice_table import ENGINES, KNOWN, TableVoice, voices_of

SHARD_CLIPS = 200
START_STEP = 7000  # each engine starts this many texts later, so that engines speak different texts first
SHARDS_OF_ENGINE = 1000  # numbers for each engine
HELD_OUT_CLIPS = 100  # of each held-out voice
HELD_OUT = "held_out"  # split of the texts that no voice speaks for training
SPLITS = ("train", "dev", HELD_OUT)
Hours = Mapping[str, Mapping[str, float]]
HOURS: dict[str, dict[str, float]] = {  # of audio, by language and engine; the first is made first
    "en": {"kokoro": 60, "rhvoice": 30, "pico": 12, "festival": 5, "espeak-ng": 20},
    "es": {"kokoro": 12, "pico": 10, "espeak-ng": 10},
    "fr": {"kokoro": 10, "pico": 10, "espeak-ng": 10},
    "pt": {"kokoro": 12, "rhvoice": 10, "espeak-ng": 10},
    "de": {"pico": 20, "espeak-ng": 20},
    "ja": {"kokoro": 12, "open_jtalk": 8},
    "it": {"kokoro": 1.5, "pico": 1, "espeak-ng": 0.5},
}
FURTHER_HOURS = {"en": HOURS["en"] | {KNOWN: 4}}  # for a model that is trained further


@dataclass(frozen=True)
class Shard:
    """A shard to make: the clips `number * SHARD_CLIPS` and following of an engine in a language."""

    engine: str
    language: str
    number: int
    held_out: bool = False

    @property
    def name(self) -> str:
        return f"{ENGINES.index(self.engine) * SHARDS_OF_ENGINE + self.number:04d}"

    def path(self, cache: Path) -> Path:
        """The path without suffix."""
        return cache / ("heldout" if self.held_out else "audio") / self.language / self.name


@dataclass(frozen=True)
class PlannedClip:
    """A text and the voice that speaks it. `turn` counts how often the engine has spoken all texts before."""

    text: dict[str, Any]
    voice: TableVoice
    turn: int

    @property
    def spoken(self) -> str:
        return str(self.text.get("spoken") or self.text["text"])

    def seed(self) -> tuple[int, ...]:
        """Seed of speed, pitch and silences."""
        return (11, crc32(str(self.text["id"]).encode()), crc32(self.voice.full_name.encode()), self.turn)


def read_texts(cache: Path, language: str) -> list[dict[str, Any]]:
    """The lines of texts/LANG.jsonl.

    Raises:
        SystemExit: the file is missing, or a line has an unknown split.
    """
    path = cache / "texts" / f"{language}.jsonl"
    if not path.is_file():
        raise SystemExit(f"{path}: missing; make the texts first")
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for number, row in enumerate(rows, 1):
        if row.get("split") not in SPLITS:
            raise SystemExit(f"{path}:{number}: split is {row.get('split')!r} instead of one of {', '.join(SPLITS)}")
    return rows


def texts_for(rows: Sequence[dict[str, Any]], held_out: bool) -> list[dict[str, Any]]:
    """The texts that training voices, or held-out voices, speak."""
    return [row for row in rows if (row["split"] == HELD_OUT) == held_out]


def plan_shard(shard: Shard, texts: Sequence[dict[str, Any]]) -> Iterator[PlannedClip]:
    """The clips of a shard. A training shard has voices by their shares; a held-out one has all voices in turn."""
    voices = voices_of(shard.engine, shard.language, shard.held_out)
    start = ENGINES.index(shard.engine) * START_STEP
    for place in range(shard.number * SHARD_CLIPS, (shard.number + 1) * SHARD_CLIPS):
        if shard.held_out:
            turn, number = divmod(place // len(voices), len(texts))
            if place < HELD_OUT_CLIPS * len(voices):
                yield PlannedClip(texts[number], voices[place % len(voices)], turn)
            continue
        turn, number = divmod(place, len(texts))
        text = texts[(start + number) % len(texts)]
        yield PlannedClip(text, choose_voice(voices, str(text["id"]), shard.engine, turn), turn)


def choose_voice(voices: Sequence[TableVoice], text_id: str, engine: str, turn: int) -> TableVoice:
    """A voice by chance, in proportion to the shares."""
    shares = np.array([voice.share for voice in voices])
    rng = np.random.default_rng((13, crc32(text_id.encode()), crc32(engine.encode()), turn))
    return voices[int(rng.choice(len(voices), p=shares / shares.sum()))]


def held_out_shards(engine: str, language: str) -> list[Shard]:
    """The shards of the held-out voices of an engine in a language."""
    clips = HELD_OUT_CLIPS * len(voices_of(engine, language, held_out=True))
    return [Shard(engine, language, number, held_out=True) for number in range(-(-clips // SHARD_CLIPS))]
