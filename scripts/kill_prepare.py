#!/usr/bin/env python3
"""Kills `prepare` with SIGKILL at random moments, resumes it each time, and compares it with an unbroken run.

    python scripts/kill_prepare.py --kills 20

The files in `manifests/` must be equal, byte for byte, and no clip may be decoded twice except in the blocks that a
kill interrupted, one for each worker. The corpus is synthetic: rows over a few short clips of noise, with copies,
clashing ids and missing files.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import numpy as np  # noqa: E402
import soundfile  # noqa: E402

from finetune.core.config import Recipe  # noqa: E402
from finetune.core.run_dir import RunDir  # noqa: E402
from finetune.data.audio import AudioInfo, inspect_audio  # noqa: E402
from finetune.data.prepare import prepare  # noqa: E402
from finetune.data.prepare_split import Engine  # noqa: E402
from finetune.data.row_audio import Inspect  # noqa: E402
from finetune.data.row_blocks import MIN_BLOCKS  # noqa: E402

FILES = 40
LOG = "KILL_PREPARE_LOG"  # environment variable with the file that gets a line for each decoded clip


def recorded_inspect(path: str, *args: float | None) -> AudioInfo:
    """`inspect_audio` that writes the name of each clip to a file."""
    info = inspect_audio(path, *args)  # type: ignore[arg-type]
    with open(os.environ[LOG], "a") as log:
        log.write(f"{path} {args[0]}\n")
    return info


def write_corpus(folder: Path, rows: int) -> None:
    """Writes a table for each split. Every good row is another segment, so the log names each row once."""
    rng = np.random.default_rng(1)
    for number in range(FILES):
        soundfile.write(folder / f"{number}.flac", rng.uniform(-0.3, 0.3, (32_000, 1 + number % 2)), 16_000)
    for split, count in {"train": rows, "valid": 20, "test": 20}.items():
        with open(folder / f"{split}.jsonl", "w") as table:
            for number in range(count):
                name = "gone.flac" if number % 50 == 7 else f"{number % FILES}.flac"
                offset = number // FILES * 1e-3 % 1
                row = {"audio_filepath": str(folder / name), "text": f"{split} {number % 300}", "offset": offset}
                row |= {"duration": 0.9} | ({"id": f"id {number // 2 * 2}"} if number % 10 == 0 else {})
                table.write(json.dumps(row) + "\n")


def run_once(folder: Path, name: str, inspect: Inspect = recorded_inspect, engine: Engine = "local") -> None:
    """What a child process does: `prepare` of a corpus in this folder."""
    data = {split: [str(folder / f"{split}.jsonl")] for split in ("train", "valid", "test")}
    recipe = {"name": name, "runs": str(folder), "model": {"base": "-"}}
    limits = {"max_bad_fraction": 0.5, "allow_leaks": True}
    prepare(
        Recipe.model_validate({**recipe, "data": {**data, **limits}, "machine": {"prepare_workers": 2}}),
        RunDir(folder / name),
        inspect=inspect,
        engine=engine,
    )


def attempt(folder: Path, name: str, kill_after: float | None) -> bool:
    """Runs `prepare` in a child process that is killed after some seconds. Returns True if it completed."""
    child = os.fork()
    if child == 0:
        os.environ |= {"FINETUNE_CACHE": "off", LOG: str(folder / f"{name}.log")}
        try:
            run_once(folder, name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("prepare failed without a kill; see its error above")
    return os.WIFEXITED(status)


def outcome(run: RunDir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.manifests.iterdir())}


def compare(folder: Path, rows: int, kills: int, seed: int) -> str:
    """Kills and resumes `prepare`; returns what happened.

    Raises:
        AssertionError: the files differ, or too many clips were decoded twice.
    """
    rng = random.Random(seed)
    write_corpus(folder, rows)
    started = time.monotonic()
    attempt(folder, "unbroken", None)
    duration, done, rounds, twice = time.monotonic() - started, 0, 0, 0
    expected = outcome(RunDir(folder / "unbroken"))
    block = max(1, rows // MIN_BLOCKS)
    while done < kills:
        rounds += 1
        name, killed = f"broken{rounds}", 0
        while not attempt(folder, name, rng.uniform(0.2, duration) if done < kills else None):
            done, killed = done + 1, killed + 1
        files = outcome(RunDir(folder / name))
        different = sorted(key for key in {*files, *expected} if files.get(key) != expected.get(key))
        assert not different, f"{', '.join(different)} of run {rounds} differ from the unbroken run"
        assert not RunDir(folder / name).prepare_work.exists()
        counts = Counter((folder / f"{name}.log").read_text().splitlines())
        once = Counter((folder / "unbroken.log").read_text().splitlines())
        repeated = (counts - once).total()
        assert not once - counts and repeated <= 2 * killed * block, (
            f"{repeated} clips decoded twice after {killed} kills"
        )
        twice += repeated
        shutil.rmtree(folder / name)
    return (
        f"{done} kills in {rounds} runs of {rows} rows: the files equal those of the unbroken run; {twice} clips were "
        f"decoded twice, at most 2 workers * {block} rows for each kill"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(compare(Path(name), arguments.rows, arguments.kills, arguments.seed))
    return 0


if __name__ == "__main__":
    import kill_prepare  # worker processes import `recorded_inspect` by this name

    sys.exit(kill_prepare.main())
