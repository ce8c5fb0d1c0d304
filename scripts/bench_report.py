"""Scores and reports synthetic hypotheses of many clips, as `finetune evaluate` does: seconds and memory.

Needs nothing. Run: PYTHONPATH=. python scripts/bench_report.py --clips 10000
No model and no audio takes part: the time is that of normalizing, aligning, the bootstrap and the page.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from bench.synthetic_run import synthetic_run
from finetune.data.manifest import Utterance
from finetune.report.write_report import write_report

TERMS = 100
VOCABULARY = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--words", type=int, default=15, help="of a clip, in the mean")
    parser.add_argument("--speakers", type=int, default=0, help="0: unknown, so that every clip is a block")
    parser.add_argument("--replicas", type=int, default=10_000)
    parser.add_argument("--normalizer", default="basic@1")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    weights = [1 / rank for rank in range(1, VOCABULARY + 1)]  # as words of a language (Zipf)

    def clips(split: str, count: int) -> list[Utterance]:
        return [
            Utterance(
                f"{split}-{number}",
                f"{split}-{number}.wav",
                rng.uniform(1, 25),
                " ".join(rng.choices(words, weights, k=rng.randint(3, 2 * arguments.words - 3))),
                speaker=f"s{rng.randrange(arguments.speakers)}" if arguments.speakers else "",
                extra={"accent": rng.choice(["north", "south", "east", "west"])},
            )
            for number in range(count)
        ]

    def mangled(text: str, rate: float) -> str:
        heard = []
        for word in text.split():
            chance = rng.random()
            if chance < 0.2 * rate:
                continue
            heard.append(rng.choice(words) if chance < 0.8 * rate else word)
            if chance > 1 - 0.2 * rate:
                heard.append(rng.choice(words))
        return " ".join(heard)

    splits = {"train": clips("train", 2000), "test": clips("test", arguments.clips), "canary": clips("canary", 500)}
    heard = {
        which: {item.id: mangled(item.text, rate) for split in ("test", "canary") for item in splits[split]}
        for which, rate in (("base", 0.3), ("adapted", 0.12))
    }
    with tempfile.TemporaryDirectory() as folder:
        terms = Path(folder) / "terms.txt"
        terms.write_text("\n".join(words[200 : 200 + TERMS]), encoding="utf-8")
        before, started, worked = memory(), time.monotonic(), time.process_time()
        run = synthetic_run(
            Path(folder) / "many",
            splits,
            heard,
            {
                "data": {"terms": str(terms)},
                "evaluate": {
                    "replicas": arguments.replicas,
                    "probes": False,
                    "groups": ["speaker", "accent"],
                    "normalizer": arguments.normalizer,
                },
            },
        )
        scored = time.monotonic() - started
        report = write_report(run)
        worked = time.process_time() - worked
        print(
            f"{arguments.clips} clips, {arguments.replicas} replicas, {arguments.speakers or 'no'} speakers, "
            f"{arguments.normalizer}: scored in {scored:.1f} s, reported in {report.seconds:.1f} s, {worked:.1f} s "
            f"of one core in all; memory {before:.0f} MB before, {memory():.0f} MB at most; report of "
            f"{report.size / 1e6:.1f} MB"
        )


def memory() -> float:
    """The most that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
