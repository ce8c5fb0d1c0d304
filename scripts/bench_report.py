"""Measures time and memory of scoring and reporting synthetic hypotheses of many clips.

Run: PYTHONPATH=. python scripts/bench_report.py --clips 10000
It needs no model and no audio: it measures normalization, alignment, the bootstrap and the page.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.synthetic_run import synthetic_run
from finetune.data.manifest import Utterance
from finetune.report.write_report import write_report

TERMS = 100
VOCABULARY = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=15, help="mean number of words in a clip")
    parser.add_argument("--speakers", type=int, default=0, help="number of speakers; 0: unknown, every clip is a block")
    parser.add_argument("--replicas", type=int, default=10_000)
    parser.add_argument("--normalizer", default="basic@2")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    sizes = {"train": 2000, "test": args.clips, "canary": 500}
    splits = {split: clips(split, count, words, args.words, args.speakers, rng) for split, count in sizes.items()}
    hypotheses = {
        system: {
            item.id: with_errors(item.text, rate, words, rng) for split in ("test", "canary") for item in splits[split]
        }
        for system, rate in (("base", 0.3), ("adapted", 0.12))
    }
    with tempfile.TemporaryDirectory() as folder:
        terms = Path(folder) / "terms.txt"
        terms.write_text("\n".join(words[200 : 200 + TERMS]), encoding="utf-8")
        before, started, cpu = memory(), time.monotonic(), time.process_time()
        run = synthetic_run(
            Path(folder) / "many",
            splits,
            hypotheses,
            {
                "data": {"terms": str(terms)},
                "evaluate": {
                    "replicas": args.replicas,
                    "probes": False,
                    "groups": ["speaker", "accent"],
                    "normalizer": args.normalizer,
                },
            },
        )
        scored = time.monotonic() - started
        report = write_report(run)
        cpu = time.process_time() - cpu
        print(
            f"{args.clips} clips, {args.replicas} replicas, {args.speakers or 'no'} speakers, "
            f"{args.normalizer}: scored in {scored:.1f} s, reported in {report.seconds:.1f} s, {cpu:.1f} s "
            f"CPU time in total; memory {before:.0f} MB before, peak {memory():.0f} MB; report size "
            f"{report.size / 1e6:.1f} MB"
        )


def clips(
    split: str, count: int, words: Sequence[str], mean_words: int, speakers: int, rng: random.Random
) -> list[Utterance]:
    """Utterances of random words."""
    weights = [1 / rank for rank in range(1, len(words) + 1)]  # Zipf, like the words of a language
    return [
        Utterance(
            f"{split}-{number}",
            f"{split}-{number}.wav",
            rng.uniform(1, 25),
            " ".join(rng.choices(words, weights, k=rng.randint(3, 2 * mean_words - 3))),
            speaker=f"s{rng.randrange(speakers)}" if speakers else "",
            extra={"accent": rng.choice(["north", "south", "east", "west"])},
        )
        for number in range(count)
    ]


def with_errors(text: str, rate: float, words: Sequence[str], rng: random.Random) -> str:
    """A hypothesis with deletions, substitutions and insertions."""
    hypothesis = []
    for word in text.split():
        value = rng.random()
        if value < 0.2 * rate:
            continue
        hypothesis.append(rng.choice(words) if value < 0.8 * rate else word)
        if value > 1 - 0.2 * rate:
            hypothesis.append(rng.choice(words))
    return " ".join(hypothesis)


def memory() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
