"""Times a training step of this toolkit against the recipe of IBM's fine-tuning notebook, on the same clips.

    python scripts/bench_train.py --size nano                # the embedded model on a CPU: minutes
    python scripts/bench_train.py --size full --json out.json     # the real dimensions, random weights, on a GPU

Both sides train the same parameters: LoRA on the language model and the whole projector, or with `--rank 0` only the
projector, which is all that the notebook's name filter selects in granite-4.0-1b-speech. Each variant runs in its own
process, in the order of the lines; each line below `ours` changes one thing in it. A pass covers all clips once. The
first pass warms up; the median of the others is reported. Audio is decoded before the clock starts. Features are
computed within the measured time, by our code on both sides, because torchaudio is not required here.
"""

import argparse
import json
import multiprocessing
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers

from bench.count import OWN_TIME
from bench.material import ACCUMULATION, BATCH, LORA, SIZES, Setup
from bench.sides import LLM, VARIANTS, Measured, measure
from finetune.model.granite import default_device

HEAD = f"{'':35}{'clips/s':>9}{'audio s/s':>11}{'memory GB':>11}{'padded frames':>15}{'positions':>11}{'of limit':>10}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--steps", type=int, default=5, help="measured passes over the clips (default 5)")
    parser.add_argument(
        "--clips",
        type=int,
        help="number of clips; a multiple of the notebook's 32 (default "
        + ", ".join(f"{name} {count}" for name, count in SIZES.items())
        + ")",
    )
    parser.add_argument("--rank", type=int, default=LORA.rank, help=f"LoRA rank on both sides (default {LORA.rank})")
    parser.add_argument(
        "--batch-seconds",
        type=float,
        help="padded audio in one batch of this toolkit (default: 16 clips of "
        "the mean duration, so an optimizer step has as many clips on both sides)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cpu for nano, else cuda if available")
    parser.add_argument(
        "--own-time",
        action="store_true",
        help="measure CPU time instead of wall-clock time, for a shared CPU; set OMP_NUM_THREADS=1",
    )
    parser.add_argument("--only", default=",".join(VARIANTS), help="variants to run, such as baseline,ours")
    parser.add_argument("--json", type=Path, help="also write all measurements to this file")
    args = parser.parse_args()
    args.device = args.device or ("cpu" if args.size == "nano" else default_device())
    args.clips = args.clips or SIZES[args.size]
    args.only = args.only.split(",")
    if args.size == "full" and args.device == "cpu":
        parser.error("--size full needs a GPU; use --size middle on a CPU")
    if args.own_time and (args.device == "cuda" or torch.get_num_threads() > 1):
        parser.error("--own-time needs a CPU and one thread; set OMP_NUM_THREADS=1")
    if unknown := set(args.only) - VARIANTS.keys():
        parser.error(f"--only: unknown variant {', '.join(sorted(unknown))}; choose from {', '.join(VARIANTS)}")
    if not args.rank and set(args.only) & set(LLM):
        args.only = [name for name in args.only if name not in LLM]  # no parameter would train
    if args.clips < 1 or args.clips % (BATCH * ACCUMULATION) or args.steps < 1:
        parser.error("--clips must be a multiple of 32, and --steps at least 1")
    return args


def line(measured: Measured) -> dict[str, Any]:
    """The results of a variant: memory in bytes; padding and speed relative to the machine's limit as fractions."""
    seconds = median(measured.seconds)
    return {
        "clips_per_second": measured.clips / seconds,
        "audio_seconds_per_second": measured.audio_seconds / seconds,
        "share_of_limit": measured.flops / seconds / measured.limit,
        **asdict(measured),
    }


def header(setup: Setup) -> list[str]:
    """Lines that describe the measurement, the machine and the columns."""
    name = torch.cuda.get_device_name() if setup.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    cuda = setup.device == "cuda"
    clips = (
        "embedded clips (data/vocabulary)"
        if setup.size == "nano"
        else "clips of noise, log-normal durations of 1 to 20 s around 5 s and random words, 3.3 tokens a second"
    )
    return [
        f"{setup.size}: {'embedded weights' if setup.size == 'nano' else 'random weights'}, {name}, "
        f"{'bfloat16' if cuda else 'float32'}, torch {torch.__version__}, transformers {transformers.__version__}",
        f"{setup.clips} {clips}; trained: the projector" + (f" and LoRA of rank {setup.rank}" if setup.rank else ""),
        "memory: "
        + (
            "all that was allocated on the GPU at the peak, weights too"
            if cuda
            else "peak of the resident set above what the process held with the model loaded"
        ),
        f"of limit: operations that the clips need (no padding, nothing twice) against a matrix product in "
        f"{'bfloat16' if cuda else 'float32'}, timed before and after; without the encoder where it is cached",
        f"one process per line, in this order; median of {setup.steps} passes after one to warm up"
        + ("; CPU time, not wall-clock time" if OWN_TIME in os.environ else ""),
        "",
    ]


def main() -> None:
    args = arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # otherwise the Trainer uses all GPUs
    if args.own_time:
        os.environ[OWN_TIME] = "1"
    setup = Setup(args.size, args.device, args.clips, args.steps, args.rank, args.batch_seconds)
    print("\n".join([*header(setup), HEAD]), flush=True)
    lines = dict[str, dict[str, Any]]()
    for variant in [name for name in VARIANTS if name in args.only]:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                row = line(pool.submit(measure, setup, variant).result())
            except Exception as error:  # such as out of memory; the other variants are still measured
                print(f"{VARIANTS[variant]:35}failed: {type(error).__name__}: {str(error).strip()[:200]}", flush=True)
                continue
        lines[variant] = row
        print(
            f"{VARIANTS[variant]:35}{row['clips_per_second']:9.2f}{row['audio_seconds_per_second']:11.1f}"
            f"{row['memory'] / 1e9:11.2f}{row['frame_padding']:15.1%}{row['position_padding']:11.1%}"
            f"{row['share_of_limit']:10.1%}",
            flush=True,
        )
    ratio, reached = dict[str, float](), dict[str, float]()
    if {"baseline", "ours"} <= lines.keys():
        ours, theirs = lines["ours"], lines["baseline"]
        ratio = {key: ours[key] / theirs[key] for key in ("clips_per_second", "memory")}
        print(
            f"\nours / baseline: {ratio['clips_per_second']:.2f} x the utterances per second, "
            f"{ratio['memory']:.2f} x the memory"
        )
    for variant in lines.keys() & {"cache", "cache_embeds"} if "llm" in lines else ():
        reached[variant] = lines[variant]["clips_per_second"] / lines["llm"]["clips_per_second"]
        print(f"{VARIANTS[variant].strip()}: {reached[variant]:.2f} of the speed of the language model alone")
    if args.json:
        args.json.write_text(
            json.dumps(
                {
                    "setup": asdict(setup),
                    "machine": platform.platform(),
                    "header": header(setup),
                    "variants": lines,
                    "ours_over_baseline": ratio,
                    "cached_over_llm": reached,
                },
                indent=2,
            )
            + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
