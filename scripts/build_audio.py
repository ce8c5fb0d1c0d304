"""Speaks the texts of the embedded base with all voices: shards of clean audio for `build_nano.py`.

    python scripts/build_audio.py --cache build/nano
    python scripts/build_audio.py --languages en --engines kokoro --minutes 120
    python scripts/build_audio.py --held-out
    python scripts/build_audio.py --report

Requires the extras [kokoro] and [piper]. Voices that are missing are fetched, as by `scripts/fetch_voices`. Stop it at
any time, and rerun to resume in the middle of a shard. An unfinished corpus has all voices in proportion: each engine
and language progresses by its hours (`HOURS` in nano/audio_plan.py).
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

from debian_package import FetchError
from finetune.core.errors import FinetuneError
from finetune.data.audio import SAMPLE_RATE
from nano.audio_corpus import build_audio
from nano.audio_plan import FURTHER_HOURS, HOURS
from nano.voice_fetch import fetch_voices
from nano.voice_table import ENGINES, LANGUAGES

DEFAULT = Path(__file__).resolve().parents[1] / "build" / "nano"


def report(cache: Path) -> None:
    """Prints the minutes of each voice in complete shards, and the clips that were left out by reason."""
    for folder in ("audio", "heldout"):
        minutes, left_out = defaultdict[tuple[str, str], float](float), defaultdict[str, int](int)
        for path in sorted((cache / folder).glob("*/*.json")):
            for row in json.loads(path.read_text(encoding="utf-8")):
                minutes[row["language"], row["voice"]] += row["num_samples"] / SAMPLE_RATE / 60
        for path in sorted((cache / folder).glob("*/*.rejected.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                left_out[f"{row['voice']}: {row['rejected'].split(':')[0]}"] += 1
        for (language, voice), length in sorted(minutes.items()):
            print(f"{folder}\t{language}\t{voice}\t{length:.1f}")
        print(f"{folder}\tall\t\t{sum(minutes.values()):.1f}")
        for what, count in sorted(left_out.items()):
            print(f"{folder}\tleft out\t{what}\t{count}")


def main() -> int:
    """Returns 0 (complete), 1 (failed) or 3 (stopped by --minutes)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=DEFAULT, help="folder with texts/; gets voices/ and audio/")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=LANGUAGES)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--further", action="store_true", help="for build_nano.py --further: English, with flite")
    parser.add_argument("--held-out", action="store_true", help="the held-out voices, into heldout/")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with one thread")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--report", action="store_true", help="only print the minutes of each voice")
    args = parser.parse_args()
    cache = args.cache.absolute()
    if args.report:
        report(cache)
        return 0
    end_time = time.time() + args.minutes * 60
    try:
        fetch_voices(cache / "voices")
        hours = {
            name: item for name, item in (FURTHER_HOURS if args.further else HOURS).items() if name in args.languages
        }
        done = build_audio(cache, hours, args.engines, args.held_out, args.workers, end_time)
    except (FinetuneError, FetchError) as error:
        print(f"build_audio: {error}", file=sys.stderr)
        return 1
    return 0 if done else 3


if __name__ == "__main__":
    sys.exit(main())
