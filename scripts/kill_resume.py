#!/usr/bin/env python3
"""Kills training with SIGKILL at random moments, resumes it each time, and compares it with an unbroken run.

    python scripts/kill_resume.py --kills 20

The losses of every step, the scores on valid and the final adapter must be equal, bit for bit. It trains the embedded
model on a few clips with dropout and augmentation, and saves after every step, so many kills interrupt a save.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.core.config import Recipe  # noqa: E402
from finetune.core.files import read_jsonl  # noqa: E402
from finetune.core.run_dir import RunDir  # noqa: E402
from finetune.data.prepare import prepare  # noqa: E402
from finetune.model.adapter import FULL_WEIGHTS, LORA_WEIGHTS  # noqa: E402
from finetune.training.trainer import train  # noqa: E402

CLIPS = 6


def recipe(folder: Path, name: str) -> Recipe:
    """A recipe with all types of parts and three epochs over the shortest clips of the embedded vocabulary."""
    data: dict[str, object] = {"max_duration": 4.0}
    for split in ("train", "valid", "test"):
        source = ROOT / "data" / "vocabulary" / f"{split}.jsonl"
        rows = sorted(read_jsonl(source), key=lambda row: float(row["duration"]))[:CLIPS]
        for row in rows:
            row["audio_filepath"] = str(source.parent / row["audio_filepath"])
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data[split] = [str(path)]
    return Recipe.model_validate(
        {
            "name": name,
            "runs": str(folder),
            "data": data,
            "model": {"base": str(ROOT / "data" / "granite-speech-nano")},
            "augment": {"speed": 0.1, "noise_db": 20, "mel_mask": 8},
            "parts": {
                "lora": {"rank": 4, "dropout": 0.2},
                "projector": {"mode": "full"},
                "encoder": {"mode": "lora", "blocks": 2},
                "ctc_head": {"mode": "full"},
            },
            "train": {"epochs": 3, "batch_seconds": 5, "ctc_weight": 0.2, "learning_rate": 1e-3},
            "machine": {"checkpoint_every": 1},
            "decode": {"max_new_tokens": 6},
        }
    )


def attempt(settings: Recipe, run: RunDir, kill_after: float | None) -> bool:
    """Trains in a child process that is killed after `kill_after` seconds. Returns True if it completed."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        train(settings, run)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("training failed without a kill; see its error above")
    return os.WIFEXITED(status)


def outcome(run: RunDir) -> dict[str, object]:
    """All results that must be equal: records, the best adapter, the weights of the last checkpoint."""
    rows = read_jsonl(run.metrics)
    return {
        "records": [{key: value for key, value in row.items() if key != "time"} for row in rows],
        **{
            str(path): (folder / path).read_bytes()
            for folder, path in (
                (run.best, LORA_WEIGHTS),
                (run.best, FULL_WEIGHTS),
                (run.checkpoint, "weights.safetensors"),
            )
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = recipe(folder, "unbroken")
        unbroken = RunDir(folder / "unbroken")
        prepare(settings, unbroken)
        started = time.monotonic()
        attempt(settings, unbroken, None)
        duration, kills, rounds = time.monotonic() - started, 0, 0
        while kills < arguments.kills:
            rounds += 1
            run = RunDir(folder / f"broken{rounds}")
            prepare(settings, run)
            while not attempt(settings, run, rng.uniform(0.1, duration) if kills < arguments.kills else None):
                kills += 1
            if outcome(run) != outcome(unbroken):
                print(f"run {rounds} differs from the unbroken run after {kills} kills", file=sys.stderr)
                return 1
    print(f"{kills} kills in {rounds} runs: every loss, score and weight equals the unbroken run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
