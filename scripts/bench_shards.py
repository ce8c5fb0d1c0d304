"""Compares audio in files, in tar shards, and in tar shards behind a slow web server on this machine.

    scripts/fetch_ivr
    python scripts/bench_shards.py                      # reading, and one epoch of recipes/ivr_telephone.yaml
    python scripts/bench_shards.py --only read --rounds 9

Reading decodes all clips of train in one random order, from files and from shards in turn. Loading takes the batches of
a plan as training does, with a pause for each in place of the step on a GPU. Training prepares and trains the recipe
with the same clips (`--clips N` of each split); the loss of each step must be the same. Loading and training use files,
shards, and shards at a URL whose every answer takes `--latency` seconds. Times of training are those after its first
step. On a shared machine, CPU times say more than wall times.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
SPLITS = ("train", "replay", "valid", "canary", "test")
Rows = list[dict[str, Any]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "ivr_telephone.yaml")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer of the server")
    parser.add_argument("--rounds", type=int, default=9, help="of reading")
    parser.add_argument("--train-rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="machine.workers")
    parser.add_argument("--only", choices=("read", "load", "train"))
    parser.add_argument("--clips", type=int, help="of each split, for training")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds of a step while loading")
    parser.add_argument("--folder", type=Path, help="where temporary files are written")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the recipe")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        settings = [f"runs={folder / 'runs'}", "train.epochs=1", *args.set]
        finetune("prepare", args.recipe, [*settings, "name=files"])
        splits = {path.stem: read_rows(path) for path in (folder / "runs" / "files" / "manifests").glob("*.jsonl")}
        shards = folder / "shards"
        members = {split: write_shard(shards / f"{split}.tar", rows) for split, rows in splits.items()}
        if args.only in (None, "read"):
            compare_reading(splits["train"], members["train"], args.rounds)
        with served(shards, args.latency) as url:
            remote = {split: [at_url(row, shards, url) for row in rows] for split, rows in members.items()}
            ways = {"files": splits, "shards": members, f"shards, {1000 * args.latency:g} ms": remote}
            if args.only in (None, "load"):
                compare_loading(args, {name: rows["train"] for name, rows in ways.items()})
            return compare_training(args, folder, settings, ways) if args.only in (None, "train") else 0


@contextmanager
def served(folder: Path, latency: float) -> Iterator[str]:
    """The URL of a folder, served by another process."""
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "loopback.py"), str(folder), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def finetune(stage: str, recipe: Path, settings: list[str]) -> None:
    """Runs a stage as a process of its own."""
    command = [sys.executable, "-m", "finetune", stage, str(recipe), *(f"--set={item}" for item in settings)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "FINETUNE_CACHE": "off"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def read_rows(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_shard(path: Path, rows: Rows) -> Rows:
    """Writes the audio files of rows unchanged into a tar; returns the rows with the names of its members."""
    from finetune.data.tar_index import read_tar_index

    path.parent.mkdir(exist_ok=True)
    files = list(dict.fromkeys(row["audio_filepath"] for row in rows))
    with tarfile.open(path, "w") as archive:
        for number, file in enumerate(files):
            archive.add(file, f"{number:06d}{Path(file).suffix}")
    names = dict(zip(files, map(str, read_tar_index(path)), strict=True))
    return [row | {"audio_filepath": names[row["audio_filepath"]]} for row in rows]


def at_url(row: dict[str, Any], shards: Path, url: str) -> dict[str, Any]:
    return row | {"audio_filepath": row["audio_filepath"].replace(str(shards), url)}


def compare_reading(files: Rows, members: Rows, rounds: int) -> None:
    from finetune.data.audio import load_audio

    order = random.Random(1).sample(range(len(files)), len(files))
    ways = {"files": files, "shards": members}
    wall, cpu = {name: list[float]() for name in ways}, {name: list[float]() for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed(ways):
            started, used = time.perf_counter(), time.process_time()
            for index in order:
                row = ways[name][index]
                load_audio(row["audio_filepath"], row["offset"], row["duration"], row.get("channel"))
            if number:  # the first round fills the page cache
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - used)
    print(f"reading {len(files)} clips, the fastest of {rounds} rounds")
    for name in ways:
        print(f"  {name:16} {1000 * min(cpu[name]) / len(files):.3f} ms CPU a clip, ", end="")
        print(f"{1000 * min(wall[name]) / len(files):.3f} ms wall")


def compare_loading(args: argparse.Namespace, ways: dict[str, Rows]) -> None:
    """Loads 8 clips at a time, with a pause after each; the times of the rounds alternate."""
    from finetune.data.manifest import Utterance
    from finetune.data.utterance_table import as_table
    from finetune.training.augment import WaveAugment
    from finetune.training.clip_table import ClipTable
    from finetune.training.plan import Groups
    from finetune.training.sampler import Clips, waves_of

    keys = ("id", "audio_filepath", "duration", "text", "offset")
    count = len(ways["files"])
    order = random.Random(1).sample(range(count), count)
    batches = [order[start : start + 8] for start in range(0, count, 8)]
    clips = dict[str, Clips]()
    for name, rows in ways.items():
        table = as_table([Utterance(**{key: row[key] for key in keys}) for row in rows])
        clips[name] = Clips(ClipTable(table, Groups.of([]), np.zeros(0, np.int32)), WaveAugment(0, 0, 0), 1, 0)
    for workers in args.workers:
        times = {name: list[float]() for name in ways}
        for _ in range(args.rounds):
            for name in ways:
                started = time.perf_counter()
                for _ in waves_of(clips[name], batches, workers):
                    time.sleep(args.pause)
                times[name].append(time.perf_counter() - started)
        print(f"loading {len(batches)} batches of 8 clips, {workers} workers, a pause of {args.pause:g} s for each")
        for name in ways:
            print(
                f"  {name:16} {statistics.median(times[name]):.2f} s wall (median), {min(times[name]):.2f} s (fastest)"
            )


def compare_training(args: argparse.Namespace, folder: Path, settings: list[str], ways: dict[str, Any]) -> int:
    """Trains in each way; returns 1 if a loss differs."""
    print(f"{'training from':20}{'workers':>9}{'wall s':>9}{'steps':>7}  losses")
    differs = 0
    for workers in args.workers:
        times = {name: list[float]() for name in ways}
        losses = dict[str, list[tuple[int, float]]]()
        for number in range(args.train_rounds):
            for index, (name, splits) in enumerate(ways.items()):
                run = f"{index}-{workers}-{number}"
                chosen = [
                    *settings,
                    f"name={run}",
                    f"machine.workers={workers}",
                    *write_corpora(folder / run, splits, args.clips),
                ]
                finetune("prepare", args.recipe, chosen)
                finetune("train", args.recipe, chosen)
                records = read_rows(folder / "runs" / run / "metrics.jsonl")
                losses[name] = [(row["step"], row["loss"]) for row in records if "loss" in row]
                times[name].append(training_seconds(records))
        for name in ways:
            same = losses[name] == losses["files"]
            differs += not same
            print(f"{name:20}{workers:9}{statistics.median(times[name]):9.2f}{len(losses[name]):7}", end="  ")
            print("equal" if same else "DIFFERENT", flush=True)
    return int(differs > 0)


def write_corpora(folder: Path, splits: dict[str, Rows], clips: int | None) -> list[str]:
    """Writes a manifest for each split; returns the settings that name them."""
    folder.mkdir()
    for split, rows in splits.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows[:clips])
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return [f"data.{split}=[{folder / split}.jsonl]" for split in SPLITS if split in splits]


def training_seconds(records: Rows) -> float:
    times = [row["time"] for row in records if "loss" in row]
    return float(times[-1] - times[0])


if __name__ == "__main__":
    sys.exit(main())
