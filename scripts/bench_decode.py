"""Benchmarks decoders on the same clips: transformers' generate, IBM's drafts, greedy, lossless and relaxed.

    python scripts/bench_decode.py                            # embedded model and clips on a CPU, minutes
    python scripts/bench_decode.py --model runs/NAME/export --manifest runs/NAME/manifests/test.jsonl --limit 64
    python scripts/bench_decode.py --size full --json out.json    # the real dimensions, random weights, on a GPU

Audio files are read before the measurement; features, encoder, drafts and text are included. Clips are sorted by length
and all decoders use the same batches. After a warm-up round, each round runs every decoder once, and the best round of
a decoder counts. With random weights (middle, full) drafts are simulated: the model's own greedy text with a fraction
of its words replaced, deleted or doubled. Such a model never ends a text by itself, so each clip of a batch gets as
many tokens as the longest clip has at 3.3 tokens per second.
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
from bench.decoders import DECODERS, NAMES, Batch, corrupt, set_random_weights
from bench.material import NANO, SIZES, TOKENS_PER_SECOND, VOCABULARY, Material, Setup, build_model, gather
from finetune.core.options import DecodingOptions
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import read_manifest
from finetune.inference.recognize import Hypothesis, decoding_summary
from finetune.metrics.wer import score
from finetune.model.granite import SpeechModel, default_device, load_model

HEADER = (
    f"{'':26}{'ms/clip':>9}{'x generate':>12}{'x floor':>9}{'passes':>8}{'accepted':>10}{'RTF':>8}{'WER':>8}"
    f"{'as greedy':>11}"
)
ERROR_RATES = (0.0, 0.02, 0.05, 0.1)  # of simulated drafts
DRAFTED = ("lossless", "lossless-graphs", "accurate", "fast", "ibm")  # decoders that use simulated drafts


@dataclass(frozen=True)
class Measurement:
    """The result of one decoder with one batch size."""

    decoder: str
    batch: int
    error_rate: float | None  # fraction of wrong words in simulated drafts; None without simulation
    seconds: float  # per clip
    hypotheses: list[Hypothesis]


@dataclass(frozen=True)
class Run:
    """One decoder with the batches that it decodes."""

    decoder: str
    error_rate: float | None
    batches: list[Batch]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="nano", help="model size; middle and full have random weights")
    parser.add_argument("--model", type=Path, default=NANO, help="for nano: model folder, for example an exported run")
    parser.add_argument(
        "--manifest", type=Path, default=VOCABULARY / "canary.jsonl", help="for nano: manifest of the clips"
    )
    parser.add_argument("--limit", type=int, default=64, help="maximum number of clips (default 64)")
    parser.add_argument("--batches", default="1,8,32", help="batch sizes (default 1,8,32)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (default 3)")
    parser.add_argument("--only", help="decoders to run, for example greedy,lossless (default: all of this device)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cpu for nano, otherwise cuda if available")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure CPU time of the process instead of wall-clock time, for a shared CPU; set OMP_NUM_THREADS=1",
    )
    parser.add_argument("--json", type=Path, help="also write all measurements to this file")
    args = parser.parse_args()
    args.device = args.device or ("cpu" if args.size == "nano" else default_device())
    args.batches = [int(size) for size in args.batches.split(",")]
    args.only = args.only.split(",") if args.only else [*DECODERS]
    if unknown := set(args.only) - DECODERS.keys():
        parser.error(f"--only: unknown decoder {', '.join(sorted(unknown))}; choose from {', '.join(DECODERS)}")
    if args.device == "cpu":  # there are no CUDA graphs to measure
        args.only = [name for name in args.only if not name.endswith("-graphs")]
    if args.size == "full" and args.device == "cpu":
        parser.error("--size full needs a GPU; use --size middle on a CPU")
    if args.cpu_time and args.device != "cpu":
        parser.error("--cpu-time cannot be used with a GPU")
    if min(args.batches) < 1 or args.limit < max(args.batches) or args.rounds < 1:
        parser.error("batch sizes and --rounds must be at least 1, and --limit at least the largest batch size")
    return args


def load_material(args: argparse.Namespace) -> tuple[SpeechModel, Material]:
    """The model, and the clips with their waveforms, longest first."""
    if args.size == "nano":
        model = load_model(str(args.model), "auto", args.device)
        items = read_manifest(args.manifest)[: args.limit]
        folder = args.manifest.parent
        waves = [load_audio(folder / item.audio_filepath, item.offset, item.duration) for item in items]
        clips = Material(items, waves)
    else:
        model = build_model(args.size, args.device)
        set_random_weights(model)
        clips = gather(Setup(args.size, args.device, args.limit, 1, 0, None), model)
    order = sorted(range(len(clips.waves)), key=lambda index: -len(clips.waves[index]))
    return model, Material([clips.utterances[index] for index in order], [clips.waves[index] for index in order])


def batches_of(args: argparse.Namespace, clips: Material, size: int) -> list[Batch]:
    """Splits clips into batches of `size`; an incomplete last batch is left out."""
    batches = []
    for start in range(0, len(clips.waves) // size * size, size):
        waves = clips.waves[start : start + size]
        limit = (
            DecodingOptions().max_new_tokens
            if args.size == "nano"
            else round(TOKENS_PER_SECOND * len(waves[0]) / SAMPLE_RATE)
        )
        batches.append(Batch(clips.utterances[start : start + size], waves, limit))
    return batches


def plan_runs(args: argparse.Namespace, model: SpeechModel, batches: list[Batch]) -> list[Run]:
    """The decoders to measure; with random weights, once for each error rate of the simulated drafts."""
    names = [name for name in DECODERS if name in args.only]
    if args.size == "nano":
        return [Run(name, None, batches) for name in names]
    texts = [[list(row.tokens) for row in DECODERS["greedy"](model, batch)] for batch in batches]
    runs = []
    for name in names:
        if name not in DRAFTED:
            runs.append(Run(name, None, batches))
            continue
        for rate in ERROR_RATES:
            drafted = [
                replace(batch, drafts=[corrupt(model, tokens, rate, seed) for seed, tokens in enumerate(rows)])
                for batch, rows in zip(batches, texts, strict=True)
            ]
            runs.append(Run(name, rate, drafted))
    return runs


@torch.inference_mode()
def measure(args: argparse.Namespace, model: SpeechModel, clips: Material, size: int) -> list[Measurement]:
    """Measures all decoders with one batch size."""
    runs = plan_runs(args, model, batches_of(args, clips, size))
    clock = time.process_time if args.cpu_time else lambda: now(args.device)
    seconds = [float("inf")] * len(runs)
    hypotheses: list[list[Hypothesis]] = [[] for _ in runs]
    for number in range(1 + args.rounds):  # the first round is the warm-up
        for index, run in enumerate(runs):
            started = clock()
            hypotheses[index] = [row for batch in run.batches for row in DECODERS[run.decoder](model, batch)]
            if number:
                seconds[index] = min(seconds[index], clock() - started)
    return [
        Measurement(run.decoder, size, run.error_rate, seconds[index] / len(hypotheses[index]), hypotheses[index])
        for index, run in enumerate(runs)
    ]


def to_row(result: Measurement, results: list[Measurement], clips: Material, with_wer: bool) -> dict[str, Any]:
    """A row of the table and of the JSON file; WER only if the model has learned a language."""
    base = {other.decoder: other for other in results if other.error_rate is None}
    summary = decoding_summary(result.hypotheses)
    audio = sum(item.duration for item in clips.utterances[: len(result.hypotheses)])
    complete = result.decoder != "floor"
    references = [item.text for item in clips.utterances[: len(result.hypotheses)]]
    texts = [row.text for row in result.hypotheses]
    return {
        "way": result.decoder,
        "batch": result.batch,
        "corrupted": result.error_rate,
        "ms": 1000 * result.seconds,
        "over_generate": base["generate"].seconds / result.seconds if "generate" in base else None,
        "over_floor": result.seconds / base["floor"].seconds if "floor" in base else None,
        "passes": summary["passes"],
        "acceptance": summary["acceptance"],
        "gave_up": summary["gave_up"],
        "accepted_by": summary["accepted_by"],
        "rtf": result.seconds * len(result.hypotheses) / audio,
        "wer": score(references, texts, "basic@2").wer if complete and with_wer else None,
        "as_greedy": sum(
            a.tokens == b.tokens for a, b in zip(result.hypotheses, base["greedy"].hypotheses, strict=True)
        )
        if complete and "greedy" in base
        else None,
        "clips": len(result.hypotheses),
    }


def format_row(row: dict[str, Any]) -> str:
    """A line of the table."""

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


def header(args: argparse.Namespace, clips: Material) -> list[str]:
    """Lines that describe the model, the machine and the clips."""
    name = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    material = (
        f"{args.model}, {args.manifest}"
        if args.size == "nano"
        else f"{args.size}: random weights, clips of noise, simulated drafts with the given percentage of wrong words"
    )
    seconds = sum(item.duration for item in clips.utterances)
    return [
        material,
        f"{name}, {'bfloat16' if args.device == 'cuda' else 'float32'}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; {len(clips.waves)} clips, {seconds:.0f} s; best of "
        f"{args.rounds} rounds" + (", CPU time" if args.cpu_time else ""),
        "",
    ]


def main() -> None:
    args = parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model, clips = load_material(args)
    print("\n".join(header(args, clips)), flush=True)
    rows, started = [], time.monotonic()
    for size in args.batches:
        results = measure(args, model, clips, size)
        size_rows = [to_row(result, results, clips, args.size == "nano") for result in results]
        print("\n".join([f"batch {size}", HEADER, *map(format_row, size_rows), ""]), flush=True)
        rows += size_rows
    print(f"{time.monotonic() - started:.0f} s")
    if args.json:
        args.json.write_text(
            json.dumps({"machine": platform.platform(), "header": header(args, clips), "lines": rows}, indent=2) + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
