"""Compares the texts of `finetune serve` with those of `finetune transcribe`, and measures throughput by concurrency.

    OMP_NUM_THREADS=2 python scripts/bench_serving.py data/granite-speech-nano --adapter drugs=runs/quickstart

Each of `--requests` recordings is joined from embedded clips with pauses: half are single clips, the others have up to
`--longest` seconds. Each goes to the base or to one of the adapters. The server is a process of its own; the clients
are threads of this one. First the texts are computed without the server, one recording after the other (the loop), then
by the server with each number of requests at a time. The CPU time of the loop, and of the server's process, is what
another process on the machine changes least.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import soundfile
import torch
from peft import LoraConfig, get_peft_model

from finetune.core.serve_options import parse_adapters
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.inference.transcribe import Transcriber, load
from finetune.model.adapter import save_adapter
from finetune.serving.adapters import with_adapters
from finetune.serving.models import ServedModel, load_base

ROOT = Path(__file__).resolve().parent.parent
LORA_LAYERS = r".*language_model.*\.(q_proj|v_proj)"
AUDIO = ROOT / "data" / "vocabulary" / "audio"
SPLITS = ("test", "canary", "valid")


@dataclass(frozen=True)
class Item:
    """A recording, and the model that it goes to."""

    path: Path
    seconds: float
    model: str


def recordings(folder: Path, count: int, longest: float, models: Sequence[str]) -> list[Item]:
    """Writes the recordings."""
    rng = random.Random(1)
    clips = [path for split in SPLITS for path in sorted((AUDIO / split).glob("*.opus"))]
    items = []
    for number in range(count):
        limit, waves = (0.0 if number % 2 else rng.uniform(2.0, longest)), list[np.ndarray]()
        while not waves or sum(map(len, waves)) < limit * SAMPLE_RATE:
            waves += [load_audio(rng.choice(clips)), np.zeros(rng.randrange(3_000, 16_000), np.float32)]
        wave = np.concatenate(waves[:-1])
        path = folder / f"{number}.flac"
        soundfile.write(path, wave, SAMPLE_RATE)
        items.append(Item(path, len(wave) / SAMPLE_RATE, rng.choice(models)))
    return items


def write_random_lora(base: str, folder: Path) -> None:
    """Writes an adapter with LoRA of random values, which changes some words."""
    model = load(base)
    torch.manual_seed(1)
    adapted = get_peft_model(model.hf, LoraConfig(r=8, lora_alpha=16, target_modules=LORA_LAYERS))
    for name, value in model.hf.named_parameters():
        if "lora_B" in name:
            value.data.normal_(0, 0.05)
    save_adapter(model, adapted, folder)


def direct(models: Sequence[ServedModel], items: Sequence[Item]) -> tuple[list[str], float]:
    """The texts of `finetune transcribe`, one recording after the other, and the seconds that they took."""
    by_name, texts = {model.name: model for model in models}, list[str]()
    started = time.perf_counter()
    for item in items:
        model = by_name[item.model]
        model.activate()
        (transcript,) = Transcriber(model.network, model.options).stream([item.path])
        texts.append(transcript.text)
    return texts, time.perf_counter() - started


@contextmanager
def server(arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Runs `finetune serve`; yields its address and the number of its process."""
    command = [sys.executable, "-m", "finetune", "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        drain = ThreadPoolExecutor(1)
        drain.submit(lambda: [line for line in process.stdout or ()])
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(60)


def cpu_seconds(process: int) -> float:
    """CPU time of a process and its threads."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def served(address: str, items: Sequence[Item], at_once: int) -> tuple[list[str], float]:
    """The texts of the server with some requests at a time, and the seconds that they took."""
    client = httpx.Client(timeout=600, limits=httpx.Limits(max_connections=at_once))

    def ask(item: Item) -> str:
        files = {"file": (item.path.name, item.path.read_bytes())}
        response = client.post(f"{address}/v1/audio/transcriptions", files=files, data={"model": item.model})
        response.raise_for_status()
        return str(response.json()["text"])

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(ask, items[:2]))  # the first requests are slower
        started = time.perf_counter()
        texts = list(pool.map(ask, items))
    return texts, time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--adapter", action="append", default=[])
    parser.add_argument("--random-lora", action="store_true", help="also serve an adapter with LoRA of random values")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--longest", type=float, default=30.0)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--batch-seconds", default="120")
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        if args.random_lora:
            write_random_lora(args.model, Path(folder) / "lora")
            args.adapter.append(f"random={folder}/lora")
        models = with_adapters(load_base(args.model), parse_adapters(args.adapter), 0.9)
        adapters = [value for item in args.adapter for value in ("--adapter", item)]
        items = recordings(Path(folder), args.requests, args.longest, [model.name for model in models])
        audio = sum(item.seconds for item in items)
        print(f"{len(items)} recordings, {audio:.0f} s of audio, models {', '.join(model.name for model in models)}")
        direct(models, items[:4])  # the first passes are slower
        before = cpu_seconds(os.getpid())
        expected, seconds = direct(models, items)
        cpu = cpu_seconds(os.getpid()) - before
        print(f"loop: {seconds:.1f} s, CPU {cpu:.1f} s, {audio / seconds:.1f} s of audio a second", flush=True)
        with server([args.model, *adapters, "--batch-seconds", args.batch_seconds]) as (address, process):
            for at_once in args.at_once:
                before = cpu_seconds(process)
                texts, seconds = served(address, items, at_once)
                cpu = cpu_seconds(process) - before
                different = [number for number, text in enumerate(texts) if text != expected[number]]
                wrong += len(different)
                print(
                    f"{at_once} at once: {seconds:.1f} s, CPU {cpu:.1f} s, {audio / seconds:.1f} s of audio a second, "
                    f"{len(texts) - len(different)} of {len(texts)} texts equal",
                    flush=True,
                )
                for number in different[:3]:
                    print(f"  {items[number].model}: {expected[number]!r}\n  server: {texts[number]!r}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
