#!/usr/bin/env python3
"""Synthesizes data/vocabulary/sentences.tsv with several voices; writes audio files and manifests to its folder.

Run `python scripts/build_vocabulary.py`. It requires espeak-ng, flite, numpy, soundfile and soxr. The voice, rate and
pitch of a sentence depend only on its position in the file and on its id.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import soundfile as sf

from nano.speech import SAMPLE_RATE, Voice, speak

FOLDER = Path(__file__).resolve().parents[1] / "data" / "vocabulary"
SPLITS = ("train", "valid", "test", "canary", "replay")
VOICES = {
    "en-us-f3": Voice("espeak", "en-us+f3", 165, 50),
    "en-us-m3": Voice("espeak", "en-us+m3", 160, 45),
    "en-gb-f2": Voice("espeak", "en-gb+f2", 160, 55),
    "en-gb-m7": Voice("espeak", "en-gb+m7", 165, 45),
    "en-gb-scotland-m2": Voice("espeak", "en-gb-scotland+m2", 155, 45),
    "flite-slt": Voice("flite", "slt", 1.0, 175),
    "flite-rms": Voice("flite", "rms", 1.0, 95),
    "flite-awb": Voice("flite", "awb", 1.0, 125),
    "flite-kal16": Voice("flite", "kal16", 1.05, 105),
}
TEST_ONLY = {"en-029-f4": Voice("espeak", "en-029+f4", 160, 50)}
TEST_ONLY_EVERY = 5  # every fifth test sentence is also spoken by the voice of TEST_ONLY
LOUDNESS, PEAK = 10 ** (-23 / 20), 10 ** (-1 / 20)  # dB below full scale
SILENCE, MARGIN = 10 ** (-40 / 20), 0.1  # 40 dB below the loudest 10 ms; seconds of silence kept around speech
COMPRESSION = {"train": 0.985}  # libsndfile's scale: Opus at about 12 kbit/s
DEFAULT_COMPRESSION = 0.95  # about 19 kbit/s


@dataclass(frozen=True)
class Clip:
    """One sentence spoken by one voice."""

    id: str
    split: str
    text: str
    speaker: str


def read_sentences(path: Path) -> list[tuple[str, str, str]]:
    """The id, split and text of each line after the header."""
    rows = []
    for line in path.read_text().splitlines()[1:]:
        ident, split, text = line.split("\t")
        rows.append((ident, split, text))
    return rows


def plan(sentences: list[tuple[str, str, str]]) -> list[Clip]:
    """Assigns the voices in turn: two to each train sentence, a third to every fourth one, one to other sentences.

    Every test sentence number TEST_ONLY_EVERY also gets the voice that is not in train.
    """
    clips, counts = [], Counter[str]()
    names = list(VOICES)
    for ident, split, text in sentences:
        number, counts[split] = counts[split], counts[split] + 1
        offsets = ((0, 4, 8) if number % 4 == 0 else (0, 4)) if split == "train" else (0,)
        speakers = [names[(number + offset) % len(names)] for offset in offsets]
        if split == "test" and number % TEST_ONLY_EVERY == 0:
            speakers += list(TEST_ONLY)
        clips += [Clip(f"{ident}-{speaker}", split, text, speaker) for speaker in speakers]
    return clips


def perturb(voice: Voice, ident: str) -> Voice:
    """The voice with a slightly different rate and pitch, which depend only on the id."""
    rng = np.random.default_rng(crc32(ident.encode()))
    return Voice(voice.engine, voice.name, voice.rate * rng.uniform(0.9, 1.1), voice.pitch * rng.uniform(0.92, 1.08))


def trim(wave: np.ndarray) -> np.ndarray:
    """Removes silence before and after speech except MARGIN seconds: (N,) to (M,)."""
    frame = SAMPLE_RATE // 100
    frames = wave[: len(wave) // frame * frame].reshape(-1, frame)
    levels = np.sqrt(np.mean(frames**2, axis=1))
    loud = np.flatnonzero(levels > SILENCE * levels.max())
    margin = int(MARGIN * SAMPLE_RATE)
    return wave[max(0, int(loud[0]) * frame - margin) : (int(loud[-1]) + 1) * frame + margin]


def normalize_level(wave: np.ndarray) -> np.ndarray:
    """Scales to the root mean square LOUDNESS, or less if the peak would exceed PEAK."""
    gain = min(LOUDNESS / float(np.sqrt(np.mean(wave**2))), PEAK / float(np.abs(wave).max()))
    return wave * gain


def build(clip: Clip, terms: set[str]) -> dict[str, object]:
    """Synthesizes and saves a clip; returns its manifest row."""
    path = FOLDER / "audio" / clip.split / f"{clip.id}.opus"
    voice = perturb((VOICES | TEST_ONLY)[clip.speaker], clip.id)
    wave = normalize_level(trim(speak(clip.text, voice)))
    scale = COMPRESSION.get(clip.split, DEFAULT_COMPRESSION)
    sf.write(path, wave, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=scale)
    return {
        "id": clip.id,
        "audio_filepath": path.relative_to(FOLDER).as_posix(),
        "duration": sf.info(path).frames / SAMPLE_RATE,
        "text": clip.text,
        "speaker": clip.speaker,
        "language": "en",
        "synthetic": True,
        "terms": [word for word in clip.text.split() if word in terms],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="number of parallel syntheses")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="rebuild only these splits")
    args = parser.parse_args()
    missing = [program for program in ("espeak-ng", "flite") if shutil.which(program) is None]
    if missing:
        print(f"{' and '.join(missing)} not found; run `apt-get install espeak-ng flite`", file=sys.stderr)
        return 1
    terms = set((FOLDER / "terms.txt").read_text().split())
    clips = [clip for clip in plan(read_sentences(FOLDER / "sentences.tsv")) if clip.split in args.splits]
    for split in args.splits:
        shutil.rmtree(FOLDER / "audio" / split, ignore_errors=True)
        (FOLDER / "audio" / split).mkdir(parents=True)
    with ThreadPoolExecutor(args.workers) as pool:
        rows = list(pool.map(lambda clip: build(clip, terms), clips))
    for split in args.splits:
        chosen = [row for row, clip in zip(rows, clips, strict=True) if clip.split == split]
        (FOLDER / f"{split}.jsonl").write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in chosen))
        minutes = sum(float(str(row["duration"])) for row in chosen) / 60
        print(f"{split}: {len({row['text'] for row in chosen})} sentences, {len(chosen)} clips, {minutes:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
