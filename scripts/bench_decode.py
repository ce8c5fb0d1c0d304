"""Times ways to decode the same clips: transformers' generate, IBM's drafts, our greedy, lossless and relaxed.

    python scripts/bench_decode.py                            # embedded model and clips on a CPU, minutes
    python scripts/bench_decode.py --model runs/NAME/export --manifest runs/NAME/manifests/test.jsonl --limit 64
    python scripts/bench_decode.py --size full --json out.json    # the real dimensions, random weights, on a GPU

Waveforms are decoded before any clock runs; features, encoder, drafts and text are within. Clips are sorted by length
and cut into the same batches for all. Each round runs every way once, one after the other, after a round to warm up;
the best of a way's rounds counts. With random weights (middle, full) drafts are simulated: the model's own greedy text
with a share of its words replaced, dropped or doubled; every clip of a batch then writes as many tokens as its longest
holds at 3.3 a second, as such a model never ends by itself.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.count import now
from bench.decoders import NAMES, WAYS, Batch, corrupt, enliven
from bench.material import NANO, SIZES, TOKENS_PER_SECOND, VOCABULARY, Material, Setup, build_model, gather
from finetune.core.options import DecodingOptions
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import read_manifest
from finetune.inference.recognize import Hypothesis, decoding_summary
from finetune.metrics.wer import score
from finetune.model.granite import GraniteSpeech, load_model

HEAD = (
    f"{'':26}{'ms/clip':>9}{'x generate':>12}{'x floor':>9}{'passes':>8}{'accepted':>10}{'RTF':>8}{'WER':>8}"
    f"{'as greedy':>11}"
)
CORRUPTED = (0.0, 0.02, 0.05, 0.1)
DRAFTED = ("lossless", "accurate", "fast", "ibm")  # where simulated drafts make a difference


@dataclass(frozen=True)
class Line:
    """One way at one batch size; `corrupted` is the share of wrong words in simulated drafts, else None."""

    way: str
    batch: int
    corrupted: float | None
    seconds: float  # a clip
    heard: list[Hypothesis]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="nano", help="random weights but for nano")
    parser.add_argument("--model", type=Path, default=NANO, help="of nano: another folder, such as an exported run")
    parser.add_argument("--manifest", type=Path, default=VOCABULARY / "canary.jsonl", help="of nano: the clips")
    parser.add_argument("--limit", type=int, default=64, help="clips, at most (default 64)")
    parser.add_argument("--batches", default="1,8,32", help="batch sizes (default 1,8,32)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (default 3)")
    parser.add_argument("--only", default=",".join(WAYS), help="ways to run, such as greedy,lossless")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cpu for nano, else cuda where there is one")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="the process's CPU time in place of the wall clock's, "
        "where other work shares the CPU; with OMP_NUM_THREADS=1",
    )
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file too")
    given = parser.parse_args()
    given.device = given.device or ("cuda" if given.size != "nano" and torch.cuda.is_available() else "cpu")
    given.batches = [int(size) for size in given.batches.split(",")]
    given.only = given.only.split(",")
    if unknown := set(given.only) - WAYS.keys():
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}")
    if given.size == "full" and given.device == "cpu":
        parser.error("--size full wants a GPU; try --size middle here")
    if given.cpu_time and given.device != "cpu":
        parser.error("--cpu-time says nothing of a GPU")
    if min(given.batches) < 1 or given.limit < max(given.batches) or given.rounds < 1:
        parser.error("--limit must hold the largest batch, and --rounds be at least 1")
    return given


def material(given: argparse.Namespace) -> tuple[GraniteSpeech, Material]:
    """The model, and clips with their waveforms, the longest first."""
    if given.size == "nano":
        model = load_model(str(given.model), "auto", given.device)
        items = read_manifest(given.manifest)[: given.limit]
        folder = given.manifest.parent
        waves = [load_audio(folder / item.audio_filepath, item.offset, item.duration) for item in items]
        found = Material(items, waves)
    else:
        model = build_model(given.size, given.device)
        enliven(model)
        found = gather(Setup(given.size, given.device, given.limit, 1, 0, None), model)
    order = sorted(range(len(found.waves)), key=lambda index: -len(found.waves[index]))
    return model, Material([found.utterances[index] for index in order], [found.waves[index] for index in order])


def batches_of(given: argparse.Namespace, clips: Material, size: int) -> list[Batch]:
    found = []
    for start in range(0, len(clips.waves) // size * size, size):
        waves = clips.waves[start : start + size]
        limit = (
            DecodingOptions().max_new_tokens
            if given.size == "nano"
            else round(TOKENS_PER_SECOND * len(waves[0]) / SAMPLE_RATE)
        )
        found.append(Batch(clips.utterances[start : start + size], waves, limit))
    return found


@torch.inference_mode()
def measure(given: argparse.Namespace, model: GraniteSpeech, clips: Material, size: int) -> list[Line]:
    """All ways at one batch size."""
    plain = batches_of(given, clips, size)
    runs: list[tuple[str, float | None, list[Batch]]] = []
    if given.size != "nano":
        spoken = [[list(row.tokens) for row in WAYS["greedy"](model, batch)] for batch in plain]
    for way in [name for name in WAYS if name in given.only]:
        if given.size == "nano" or way not in DRAFTED:
            runs.append((way, None, plain))
            continue
        for share in CORRUPTED:
            runs.append(
                (
                    way,
                    share,
                    [
                        replace(batch, drafts=[corrupt(model, tokens, share, seed) for seed, tokens in enumerate(rows)])
                        for batch, rows in zip(plain, spoken, strict=True)
                    ],
                )
            )
    clock = time.process_time if given.cpu_time else lambda: now(given.device)
    seconds = [float("inf")] * len(runs)
    heard: list[list[Hypothesis]] = [[] for _ in runs]
    for number in range(1 + given.rounds):
        for index, (way, _, batches) in enumerate(runs):
            started = clock()
            heard[index] = [row for batch in batches for row in WAYS[way](model, batch)]
            if number:
                seconds[index] = min(seconds[index], clock() - started)
    return [
        Line(way, size, share, seconds[index] / len(heard[index]), heard[index])
        for index, (way, share, _) in enumerate(runs)
    ]


def figures(line: Line, lines: list[Line], clips: Material, texts: bool) -> dict[str, Any]:
    """A line as numbers; WER only where the model knows a language."""
    base: dict[str, Line] = {other.way: other for other in lines if other.corrupted is None}
    how = decoding_summary(line.heard)
    audio = sum(item.duration for item in clips.utterances[: len(line.heard)])
    whole = line.way != "floor"
    references = [item.text for item in clips.utterances[: len(line.heard)]]
    return {
        "way": line.way,
        "batch": line.batch,
        "corrupted": line.corrupted,
        "ms": 1000 * line.seconds,
        "over_generate": base["generate"].seconds / line.seconds if "generate" in base else None,
        "over_floor": line.seconds / base["floor"].seconds if "floor" in base else None,
        "passes": how["passes"],
        "acceptance": how["acceptance"],
        "gave_up": how["gave_up"],
        "accepted_by": how["accepted_by"],
        "rtf": line.seconds * len(line.heard) / audio,
        "wer": score(references, [row.text for row in line.heard], "basic@1").wer if whole and texts else None,
        "as_greedy": sum(a.tokens == b.tokens for a, b in zip(line.heard, base["greedy"].heard, strict=True))
        if whole and "greedy" in base
        else None,
        "clips": len(line.heard),
    }


def shown(row: dict[str, Any]) -> str:
    def cell(name: str, form: str, width: int) -> str:
        return f"{'-' if row[name] is None else format(row[name], form):>{width}}"

    name = NAMES[row["way"]] + ("" if row["corrupted"] is None else f", {100 * row['corrupted']:.0f} %")
    return (
        f"{name:26}"
        + cell("ms", ".1f", 9)
        + cell("over_generate", ".2f", 12)
        + cell("over_floor", ".2f", 9)
        + cell("passes", ".2f", 8)
        + cell("acceptance", ".1%", 10)
        + cell("rtf", ".4f", 8)
        + cell("wer", ".1%", 8)
        + f"{'-' if row['as_greedy'] is None else '{as_greedy} of {clips}'.format(**row):>11}"
    )


def header(given: argparse.Namespace, clips: Material) -> list[str]:
    name = torch.cuda.get_device_name() if given.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    what = (
        f"{given.model}, {given.manifest}"
        if given.size == "nano"
        else f"{given.size}: random weights and clips of noise; drafts simulated, with the share of wrong words named"
    )
    seconds = sum(item.duration for item in clips.utterances)
    return [
        what,
        f"{name}, {'bfloat16' if given.device == 'cuda' else 'float32'}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; {len(clips.waves)} clips, {seconds:.0f} s; best of "
        f"{given.rounds} rounds" + (", CPU time" if given.cpu_time else ""),
        "",
    ]


def main() -> None:
    given = arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model, clips = material(given)
    print("\n".join(header(given, clips)), flush=True)
    rows, started = [], time.monotonic()
    for size in given.batches:
        lines = measure(given, model, clips, size)
        found = [figures(line, lines, clips, given.size == "nano") for line in lines]
        print("\n".join([f"batch {size}", HEAD, *map(shown, found), ""]), flush=True)
        rows += found
    print(f"{time.monotonic() - started:.0f} s")
    if given.json:
        given.json.write_text(
            json.dumps({"machine": platform.platform(), "header": header(given, clips), "lines": rows}, indent=2)
            + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
