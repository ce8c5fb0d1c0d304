#!/usr/bin/env python3
"""Exports and verifies a model with random weights of the dimensions of granite-4.0-1b-speech, and measures it.

    python scripts/check_full_size.py --folder /tmp/full-size            # 15 GB of disk; deleted at the end
    python scripts/check_full_size.py --folder /tmp/full-size --format peft --keep
    python scripts/check_full_size.py --folder /tmp/full-size --format transcribe --keep

It writes the base model (2.31 billion weights in bfloat16, files of 1.99 GB, the tokenizer of the embedded model) and a
run whose adapter has random values (LoRA of rank 32, the projector in full, as in recipes/granite_1b.yaml), then runs
the export on embedded clips. It prints the wall time, the CPU time, and the largest resident memory of the export and
its verification together; `transcribe` instead runs `finetune transcribe` with the base model. The weights are random,
so the text of the model means nothing.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.full_size import write_base  # noqa: E402
from bench.measured_process import run_measured  # noqa: E402
from finetune.core.config import Recipe  # noqa: E402
from finetune.core.files import read_json, write_json  # noqa: E402
from finetune.core.run_dir import RunDir  # noqa: E402
from finetune.data.manifest import Utterance, write_manifest  # noqa: E402
from finetune.model.adapter import save_adapter  # noqa: E402
from finetune.model.granite import on_meta, read_config  # noqa: E402
from finetune.model.trainable import open_parts, trained_parameters  # noqa: E402
from finetune.training.parts import trainable_parts  # noqa: E402

VOCABULARY = ROOT / "data" / "vocabulary"
CLIP = VOCABULARY / "audio" / "canary" / "canary-001-en-us-f3.opus"


def write_run(folder: Path, base: Path, clips: int, tokens: int) -> Recipe:
    """Writes a run with a random adapter and manifests of the shortest embedded clips."""
    recipe = Recipe.model_validate(
        {
            "name": "run",
            "runs": str(folder),
            "model": {"base": str(base)},
            "data": {"train": ["none"], "valid": ["none"], "test": ["none"]},
            "parts": {"lora": {"rank": 32}, "projector": {"mode": "full"}},
            "decode": {"max_new_tokens": tokens},
            "export": {"clips": clips},
        }
    )
    run, model = RunDir(folder / "run"), on_meta(read_config(str(base)), str(base))
    with torch.device("meta"):
        adapted = open_parts(model, trainable_parts(recipe.parts))
    torch.manual_seed(2)
    for name, value in trained_parameters(model).items():
        parent, _, child = name.rpartition(".")
        owner = model.hf.get_submodule(parent)
        random = nn.Parameter(torch.randn(value.shape) * 0.02)
        setattr(owner, child, random)
    save_adapter(model, adapted, run.best)
    for split in ("valid", "test"):
        rows = [json.loads(line) for line in (VOCABULARY / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        shortest = sorted(rows, key=lambda row: row["duration"])[:clips]
        write_manifest(
            run.manifest(split),
            [Utterance(r["id"], str(VOCABULARY / r["audio_filepath"]), r["duration"], r["text"]) for r in shortest],
        )
    write_json(run.resolved, recipe.model_dump(mode="json"))
    return recipe


def run_export(folder: Path, format_name: str) -> None:
    """In the measured process: exports the run, without the stages before."""
    import logging

    from finetune.exporting.export import export
    from finetune.exporting.formats import export_adapter

    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)8d ms  %(message)s")
    recipe = Recipe.model_validate(read_json(folder / "run" / "resolved.json"))
    run = RunDir(folder / "run")
    print(export(recipe, run) if format_name == "hf" else export_adapter(recipe, run, format_name), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder with 15 GB of free space")
    parser.add_argument("--format", choices=("hf", "peft", "vllm-lora", "transcribe"), default="hf")
    parser.add_argument("--clips", type=int, default=2, help="clips of test that are compared, and of valid")
    parser.add_argument("--tokens", type=int, default=12, help="tokens that are generated for each clip")
    parser.add_argument("--keep", action="store_true", help="keep the folder for another run of this script")
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measured:
        run_export(args.folder, args.format)
        return 0
    started = time.monotonic()
    if not (args.folder / "base" / "model.safetensors.index.json").exists():
        write_base(args.folder / "base")
        print(f"wrote the base model in {time.monotonic() - started:.0f} s", flush=True)
    if args.format == "transcribe":
        command = [sys.executable, "-m", "finetune", "transcribe", str(CLIP), "--model", str(args.folder / "base")]
        command += ["--max-new-tokens", str(args.tokens)]
    else:
        write_run(args.folder, args.folder / "base", args.clips, args.tokens)
        command = [sys.executable, __file__, "--measured", "--folder", str(args.folder), "--format", args.format]
    cost = run_measured(command)
    print(
        f"{args.format}: exit code {cost.code}, {cost.seconds:.0f} s, {cost.cpu_seconds:.0f} s of CPU time; resident "
        f"memory at most {cost.resident / 1e9:.2f} GB, of one process {cost.largest / 1e9:.2f} GB"
    )
    if not args.keep:
        shutil.rmtree(args.folder)
    return cost.code


if __name__ == "__main__":
    sys.exit(main())
