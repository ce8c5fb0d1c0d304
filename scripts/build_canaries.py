"""Writes data/canaries: short sentences in other languages than English, to measure forgetting after adaptation.

    python scripts/build_audio.py --held-out && python scripts/build_canaries.py --cache build/nano

No voice and no sentence is in the training of the embedded model. The voices are those of Kokoro and espeak-ng, because
not every other held-out voice may be passed on.
"""

import argparse
import json
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import soundfile as sf

from build_audio import DEFAULT
from build_vocabulary import normalize_level
from finetune.data.audio import SAMPLE_RATE
from nano.clips import Clips, find_shards, open_clips

FOLDER = Path(__file__).resolve().parents[1] / "data" / "canaries"
LANGUAGES = ("es", "fr", "pt", "de")
CLIPS = 40  # of each language
MAX_SECONDS = 6.0
KINDS = ("phrase", "commands", "numbers", "names")  # of templates of our own, and Apache-2.0
ENGINES = ("kokoro", "espeak-ng")
COMPRESSION = 0.95  # of libsndfile: Opus at about 19 kbit/s


def choose(clips: Clips, count: int) -> list[int]:
    """Rows of different sentences: the engines in turn, and the voices of each in turn."""
    rows = defaultdict[str, dict[str, list[int]]](lambda: defaultdict(list))  # by sentence and engine
    for row in range(len(clips)):
        engine, short = clips.value("engine", row), clips.num_samples[row] <= MAX_SECONDS * SAMPLE_RATE
        if engine in ENGINES and clips.value("kind", row) in KINDS and short:
            rows[clips.ids[row]][engine].append(row)
    chosen, spoken = list[int](), Counter[str]()
    for found in list(rows.values())[:count]:
        engine = min(found, key=lambda name: spoken[name])
        chosen.append(found[engine][spoken[engine] % len(found[engine])])
        spoken[engine] += 1
    return chosen


def write_clip(clips: Clips, row: int, language: str) -> dict[str, object]:
    """Saves a clip as Ogg Opus; returns its manifest row."""
    voice = clips.value("voice", row).replace(":", "-").replace("+", "-")
    path = FOLDER / "audio" / language / f"{clips.ids[row]}-{voice}.opus"
    wave = normalize_level(clips.wave(row))
    sf.write(path, wave, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION)
    return {
        "id": path.stem,
        "audio_filepath": path.relative_to(FOLDER).as_posix(),
        "duration": sf.info(path).frames / SAMPLE_RATE,
        "text": clips.texts[row],
        "speaker": voice,
        "language": language,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=DEFAULT, help="folder with heldout/")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=LANGUAGES)
    args = parser.parse_args()
    folder = args.cache / "heldout"
    found = find_shards(folder)
    if missing := [language for language in args.languages if language not in found]:
        print(f"{folder}: no clips of {', '.join(missing)}; run scripts/build_audio.py --held-out", file=sys.stderr)
        return 1
    for language in args.languages:
        clips = open_clips(folder, {language: found[language]})
        shutil.rmtree(FOLDER / "audio" / language, ignore_errors=True)
        (FOLDER / "audio" / language).mkdir(parents=True)
        rows = [write_clip(clips, row, language) for row in choose(clips, CLIPS)]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (FOLDER / f"{language}.jsonl").write_text(text, encoding="utf-8")
        minutes = sum(float(str(row["duration"])) for row in rows) / 60
        voices = len({row["speaker"] for row in rows})
        print(f"{language}: {len(rows)} clips, {minutes:.1f} minutes, {voices} voices")
    return 0


if __name__ == "__main__":
    sys.exit(main())
