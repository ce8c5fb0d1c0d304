"""Times the stages of a recipe on a corpus of a million synthetic rows, each as a process of its own.

    python scripts/bench_data.py                                    # 1,000,000 rows of JSON Lines, finetune check
    python scripts/bench_data.py --rows 1000000 3000000 --format jsonl csv
    python scripts/bench_data.py --rows 20000 --stages prepare --flac 64    # decodes 64 clips again and again
    python scripts/bench_data.py --rows 1000000 --stages "prepare known"    # all of prepare except decoding
    python scripts/bench_data.py --rows 1000000 --stages train     # the start of a training
    python scripts/bench_data.py --profile --flac 64                        # where the time of a worker of prepare goes
    git worktree add /tmp/old e498194 && python scripts/bench_data.py --before /tmp/old     # the same with older code

The rows are synthetic: texts from the words of the vocabulary data, a column of speakers, and the embedded clips as
audio, so each file is used by many rows. `--files N` gives the rows N different file names (symbolic links). Memory is
the largest resident set of one process (RSS, with the code of the libraries), and the largest sum over all processes
in which shared pages count once (PSS). CPU time is that of all processes; on a shared machine it says more than wall
time.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from bench import training_start
from bench.memory import watch_memory

ROOT = Path(__file__).parents[1]
COLUMNS = ("audio_filepath", "duration", "text", "speaker")
NUM_CLIPS, NUM_SPEAKERS = 8, 1000
HEAD = (
    f"{'stage':14}{'format':>8}{'rows':>11}  {'code':12}{'wall s':>9}{'CPU s':>9}{'RSS MB':>9}{'PSS MB':>9}{'exit':>6}"
)
Command = Callable[[Path], list[str]]  # the arguments of `finetune` for a recipe
LOOSE = ("--set", "data.max_chars_per_second=1000")  # the texts do not fit the clips
STAGES: dict[str, Command] = {
    "check": lambda recipe: ["check", str(recipe)],
    "prepare": lambda recipe: ["prepare", str(recipe), *LOOSE],
    "prepare known": lambda recipe: ["prepare", str(recipe), *LOOSE],  # with the cache of facts about audio
}
FLAC_SECONDS = 3


@dataclass(frozen=True)
class Measured:
    """The cost of one process with its children."""

    stage: str
    format: str
    rows: int
    code: str
    wall_seconds: float
    cpu_seconds: float
    max_rss_mb: float
    max_pss_mb: float
    exit_code: int


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--format", nargs="+", choices=("jsonl", "csv", "tsv"), default=["jsonl"])
    parser.add_argument("--files", type=int, default=0, help="number of different file names (default: few files)")
    parser.add_argument(
        "--flac", type=int, default=0, help=f"number of FLAC clips of {FLAC_SECONDS} s, joined from clips"
    )
    parser.add_argument("--stages", nargs="+", choices=[*STAGES, "train"], default=["check"])
    parser.add_argument("--before", type=Path, help="a checkout of older code, which is measured first")
    parser.add_argument("--folder", type=Path, help="where temporary files are written")
    parser.add_argument("--json", type=Path, help="also write all measurements to this file")
    parser.add_argument("--show", action="store_true", help="print what the stages print")
    parser.add_argument("--profile", action="store_true", help="only show the time of a worker of prepare")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if "train" in args.stages:
        args.stages.remove("train")
        bench_training(args.rows, [args.before] * bool(args.before) + [ROOT], args.folder)
        if not args.stages:
            return 0
    results = []
    if args.profile:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            print("\n".join(profile_worker(make_recipe(Path(folder), 512, "jsonl", args.files, args.flac))))
        return 0
    print(HEAD)
    for rows in args.rows:
        for name in args.format:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                recipe = make_recipe(Path(folder), rows, name, args.files, args.flac)
                for stage in args.stages:
                    for code in [args.before] * bool(args.before) + [ROOT]:
                        results.append(measure(stage, name, rows, code, recipe, args.show))
                        print(format_line(results[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(item) for item in results], indent=2))
    return max(item.exit_code for item in results)


def bench_training(counts: list[int], codes: list[Path], folder: Path | None) -> None:
    """Prints a table; the memory is also that beyond a training on 1,000 rows."""
    print(training_start.HEAD)
    for code in codes:
        base = None
        for count in [1000, *counts]:
            with tempfile.TemporaryDirectory(dir=folder) as run:
                for start in training_start.measure_training(Path(run), manifest_rows(count), count, code):
                    print(start.line(base), flush=True)
                    base = start if count == 1000 and start.ranks == 1 else base


def manifest_rows(count: int) -> Iterator[dict[str, object]]:
    """Rows of a manifest as `prepare` writes it."""
    clips = sorted((ROOT / "data/vocabulary/audio/train").iterdir())[:NUM_CLIPS]
    durations = [round(soundfile.info(clip).duration, 3) for clip in clips]
    for number, text in enumerate(texts(count)):
        row = {"id": f"row-{number:07}", "audio_filepath": str(clips[number % NUM_CLIPS]), "offset": 0.0}
        row |= {"duration": durations[number % NUM_CLIPS], "text": text}
        row |= {"speaker": f"speaker-{number % NUM_SPEAKERS:04}", "audio_digest": f"{number:064x}"}
        yield row | {"manifest_version": 2}


def make_recipe(folder: Path, rows: int, name: str, files: int, flac: int = 0) -> Path:
    """A recipe in a folder, with a corpus of `rows` rows as data.train and a small one as data.valid."""
    clips = sorted((ROOT / "data/vocabulary/audio/train").iterdir())
    clips = write_flac(clips, folder, flac) if flac else clips[:NUM_CLIPS]
    durations = [round(soundfile.info(clip).duration, 3) for clip in clips]
    paths = [str(clip) for clip in clips]
    if files:
        (folder / "audio").mkdir()
        paths = [f"audio/clip-{number:07}.opus" for number in range(files)]
        for number, path in enumerate(paths):
            (folder / path).symlink_to(clips[number % len(clips)])
    corpus = folder / f"train.{name}"
    with open(corpus, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t" if name == "tsv" else ",")
        if name != "jsonl":
            table.writerow(COLUMNS)
        for number, text in enumerate(texts(rows)):
            position = number % len(paths)
            speaker = f"speaker-{number % NUM_SPEAKERS:04}"
            values = (paths[position], durations[position % len(durations)], text, speaker)
            if name == "jsonl":
                file.write(json.dumps(dict(zip(COLUMNS, values, strict=True))) + "\n")
            else:
                table.writerow(values)
    recipe = folder / "recipe.yaml"
    small = {split: [str(ROOT / f"data/vocabulary/{split}.jsonl")] for split in ("valid", "test")}
    data = {"train": [str(corpus)], **small, "allow_leaks": True}
    content = {"model": {"base": str(ROOT / "data/granite-speech-nano")}, "data": data, "runs": str(folder / "runs")}
    recipe.write_text(json.dumps(content | {"train": {"epochs": 1}}))
    return recipe


def write_flac(clips: list[Path], folder: Path, count: int) -> list[Path]:
    """Files of FLAC_SECONDS, each of a few clips, one after another."""
    paths = list[Path]()
    for number in range(count):
        parts = [soundfile.read(clips[(number + next_one) % len(clips)], dtype="int16") for next_one in range(9)]
        rate = parts[0][1]
        paths.append(folder / f"clip-{number}.flac")
        soundfile.write(paths[-1], np.concatenate([part for part, _ in parts])[: FLAC_SECONDS * rate], rate)
    return paths


def texts(count: int) -> Iterator[str]:
    """Different texts of 4 to 12 words, the same in each run."""
    lines = (ROOT / "data/vocabulary/train.jsonl").read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in lines for word in json.loads(line)["text"].split()})
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.integers(4, 13, count))
    chosen = rng.integers(len(words), size=ends[-1])
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield " ".join([words[index] for index in chosen[start:end]])


def profile_worker(recipe: Path) -> Iterator[str]:
    """The CPU time of a row in a worker of `prepare`, and its parts; the best of three blocks of 512 rows."""
    sys.path.insert(0, str(ROOT))
    from finetune.core.data_config import TextSection
    from finetune.data.audio import inspect_audio
    from finetune.data.audio_facts import CachedInspect
    from finetune.data.corpora import read_corpus
    from finetune.data.row_blocks import BlockTask, check_block
    from finetune.data.row_result import RowSettings

    rows = read_corpus(str(recipe.parent / "train.jsonl"), recipe.parent).block(0)
    paths = [str(row.values["audio_filepath"]) for row in rows]
    limits = {"min_duration": 0.2, "max_duration": 30.0, "max_chars_per_second": 1000.0}
    settings = RowSettings(**limits, special_tokens=("<|audio|>",), wordless="drop", text=TextSection())
    target = recipe.parent / "block"
    block = BlockTask(rows, settings, target, inspect_audio)
    known = BlockTask(rows, settings, target, CachedInspect(recipe.parent / "facts.sqlite"))
    for name, work in {
        "check_block": lambda: check_block(block),
        "  of it: inspect_audio": lambda: list(map(inspect_audio, paths)),
        "    of it: libsndfile": lambda: [soundfile.read(path, dtype="float32") for path in paths],
        "check_block with known audio": lambda: check_block(known),
    }.items():
        times = []
        for _ in range(4):  # the first one fills the caches
            started = time.process_time()
            work()
            times.append(time.process_time() - started)
        seconds = min(times[1:]) / len(rows)
        yield f"{name:30}{1000 * seconds:6.2f} ms a row{1 / seconds:9.0f} rows a second and core"


def measure(stage: str, name: str, rows: int, code: Path, recipe: Path, show: bool) -> Measured:
    environment = os.environ | {"PYTHONPATH": str(code.resolve()), "HF_HUB_OFFLINE": "1", "FINETUNE_CACHE": "off"}
    if stage == "prepare known":
        environment["FINETUNE_CACHE"] = str(recipe.parent / "cache")
    command = [sys.executable, "-m", "finetune", *STAGES[stage](recipe)]
    shutil.rmtree(recipe.parent / "runs", ignore_errors=True)
    started, peak = time.monotonic(), [0.0]
    output = None if show else subprocess.PIPE
    process = subprocess.Popen(command, cwd=code, env=environment, stdout=output, stderr=subprocess.STDOUT)
    watcher = threading.Thread(target=watch_memory, args=(process.pid, peak), daemon=True)
    watcher.start()
    printed = b"" if process.stdout is None else process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    if process.returncode and printed:
        print(printed.decode()[-2000:])
    return Measured(
        stage,
        name,
        rows,
        "before" if code != ROOT else "after",
        round(wall, 1),
        round(usage.ru_utime + usage.ru_stime, 1),
        round(usage.ru_maxrss / 1e3, 0),
        round(peak[0] / 1e3, 0),
        process.returncode,
    )


def format_line(item: Measured) -> str:
    return (
        f"{item.stage:14}{item.format:>8}{item.rows:>11,}  {item.code:12}{item.wall_seconds:>9.1f}"
        f"{item.cpu_seconds:>9.1f}{item.max_rss_mb:>9.0f}{item.max_pss_mb:>9.0f}{item.exit_code:>6}"
    )


if __name__ == "__main__":
    sys.exit(main())
