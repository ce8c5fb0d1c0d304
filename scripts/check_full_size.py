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
import math
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.core.config import Recipe  # noqa: E402
from finetune.core.files import read_json, write_json  # noqa: E402
from finetune.core.run_dir import RunDir  # noqa: E402
from finetune.data.manifest import Utterance, write_manifest  # noqa: E402
from finetune.exporting.shards import TensorSpec, write_weights  # noqa: E402
from finetune.model.adapter import save_adapter  # noqa: E402
from finetune.model.granite import SpeechModel, on_meta, read_config  # noqa: E402
from finetune.model.trainable import open_parts, trained_parameters  # noqa: E402
from finetune.model.weight_files import hub_name  # noqa: E402
from finetune.training.parts import trainable_parts  # noqa: E402

NANO, VOCABULARY = ROOT / "data" / "granite-speech-nano", ROOT / "data" / "vocabulary"
CONFIG = ROOT / "tests" / "fixtures" / "granite-4.0-1b-speech" / "config.json"
CLIP = VOCABULARY / "audio" / "canary" / "canary-001-en-us-f3.opus"
SHARD = 1_990_000_000
BLOCK = 4_194_301  # random numbers that are repeated; a prime number, so that no two rows of a matrix are equal
INTERVAL = 0.1  # seconds between two readings of the memory


def write_base(folder: Path) -> None:
    """Writes the base model; its special tokens are those of the embedded tokenizer."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"):
        shutil.copyfile(NANO / name, folder / name)
    shutil.copyfile(NANO / "processor_config.json", folder / "processor_config.json")
    content, nano = read_json(CONFIG), read_json(NANO / "config.json")
    content["audio_token_index"] = nano["audio_token_index"]
    content["text_config"] |= {
        key: nano["text_config"][key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    write_json(folder / "config.json", content)
    torch.manual_seed(1)
    block = torch.randn(BLOCK).mul(0.02).bfloat16()
    shapes = {name: value.shape for name, value in _config_model(folder).hf.state_dict().items()}
    specs = {
        hub_name(name): TensorSpec(torch.int64 if "num_batches" in name else torch.bfloat16, tuple(shape))
        for name, shape in shapes.items()
    }

    def tensor(name: str) -> Tensor:
        spec = specs[name]
        if spec.dtype == torch.int64 or "running_mean" in name or name.endswith("bias"):
            return torch.zeros(spec.shape, dtype=spec.dtype)
        if "running_var" in name or (name.endswith("weight") and len(spec.shape) == 1):
            return torch.ones(spec.shape, dtype=spec.dtype)
        return block.repeat(-(-spec.bytes // block.nbytes))[: math.prod(spec.shape)].view(spec.shape)

    write_weights(folder, specs, SHARD, tensor, lambda size: None)


def _config_model(folder: Path) -> SpeechModel:
    from transformers import GraniteSpeechConfig

    return on_meta(GraniteSpeechConfig.from_pretrained(folder), str(folder))


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


class MemoryOfTree:
    """The largest sum of the resident memory of a process and its descendants, in bytes."""

    def __init__(self, pid: int) -> None:
        self.pid, self.largest, self.alone = pid, 0, 0
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while sizes := [_resident(pid) for pid in (self.pid, *_descendants(self.pid))]:
            if not sizes[0]:
                return
            self.largest, self.alone = max(self.largest, sum(sizes)), max(self.alone, *sizes)
            time.sleep(INTERVAL)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *_descendants(child))]


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
    started = time.monotonic()
    process = subprocess.Popen(command)
    memory = MemoryOfTree(process.pid)
    code = process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, cpu = time.monotonic() - started, used.ru_utime + used.ru_stime
    print(
        f"{args.format}: exit code {code}, {seconds:.0f} s, {cpu:.0f} s of CPU time; resident memory at most "
        f"{memory.largest / 1e9:.2f} GB, of one process {memory.alone / 1e9:.2f} GB"
    )
    if not args.keep:
        shutil.rmtree(args.folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
