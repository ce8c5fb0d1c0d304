"""The synthetic speech corpus of the build: shards of int16 samples, each with a JSON index. Resumable by shard."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nano.speech import degrade, sample_voice, speak

SHARD = 1000


def _write_shard(job: tuple[Path, int, list[tuple[int, str]]]) -> int:
    folder, shard, items = job
    samples = folder / f"{shard:04d}.i16"
    index = folder / f"{shard:04d}.json"
    if index.exists():
        return shard
    rows, start = [], 0
    with samples.open("wb") as out:
        for number, text in items:
            rng = np.random.default_rng((7, number))
            voice = sample_voice(rng)
            wave = (degrade(speak(text, voice), rng) * 32767.0).astype(np.int16)
            out.write(wave.tobytes())
            rows.append({"start": start, "num_samples": len(wave), "text": text, "voice": asdict(voice)})
            start += len(wave)
    index.write_text(json.dumps(rows))
    return shard


def synthesize(texts: list[str], folder: Path, workers: int = 2) -> None:
    """Synthesizes every text once. The number of a text seeds its voice and its channel."""
    folder.mkdir(parents=True, exist_ok=True)
    numbered = list(enumerate(texts))
    jobs = [(folder, n // SHARD, numbered[n : n + SHARD]) for n in range(0, len(numbered), SHARD)]
    with ProcessPoolExecutor(workers) as pool:
        for shard in pool.map(_write_shard, jobs):
            print(f"synthesized {min((shard + 1) * SHARD, len(texts))} of {len(texts)}", flush=True)


def load(folder: Path) -> tuple[list[np.ndarray], list[str]]:
    """Waveforms (int16 memory maps) and their texts, in the order of synthesis."""
    waves, texts = [], []
    for index in sorted(folder.glob("*.json")):
        samples = np.memmap(index.with_suffix(".i16"), dtype=np.int16, mode="r")
        for row in json.loads(index.read_text()):
            waves.append(samples[row["start"] : row["start"] + row["num_samples"]])
            texts.append(row["text"].replace(",", ""))
    return waves, texts
