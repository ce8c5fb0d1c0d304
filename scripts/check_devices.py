"""Runs commands with tensors that claim to be on a GPU, and finds operations that mix devices, without a GPU.

    python scripts/check_devices.py --run runs/quickstart    # a finished run; minutes on one core

It trains a few steps in bfloat16 under CUDA's autocast, with LoRA and in full, evaluates, and transcribes, compares,
segments and labels with the export of the run. Decoding replays recorded passes too (`decode.cuda_graphs`);
here a replay computes them again. The texts must be those of the CPU.

It needs a CUDA build of torch, as `pip install torch` gives on Linux. CUDA's kernels do not run, so speed, memory and
rounding are not those of a GPU. Gradients are constants, because torch's backward pass would start CUDA.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

torch.inference_mode = lambda *_: torch.no_grad()  # before it decorates functions: a ClaimedTensor does not support it

from bench.claimed_cuda import ClaimedTensor, claimed_cuda, move  # noqa: E402
from finetune.cli.main import main as finetune  # noqa: E402
from finetune.core.options import DecodingOptions  # noqa: E402
from finetune.core.prompts import INSTRUCTION  # noqa: E402
from finetune.data.manifest import read_manifest  # noqa: E402
from finetune.inference.recognize import recognize  # noqa: E402
from finetune.model import granite, pass_graphs  # noqa: E402
from finetune.planning import fits  # noqa: E402
from finetune.training import step  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CLIPS = 8
GRADIENT = 1e-3
DECODERS = [
    DecodingOptions("greedy"),
    DecodingOptions("speculative", batch_seconds=8),
    DecodingOptions("relaxed"),
    DecodingOptions("beam", num_beams=3),
    DecodingOptions("speculative", keyword_method="ctc", terms=("losartan", "adalimumab")),
    DecodingOptions("greedy", cuda_graphs=True),
    DecodingOptions("speculative", batch_seconds=8, cuda_graphs=True),
    DecodingOptions("beam", num_beams=3, cuda_graphs=True),
]


def load_and_move(load: Callable[..., Any]) -> Callable[..., Any]:
    """`load_weights` that loads on the CPU and then moves the model to the claimed GPU."""

    def load_weights(source: str, config: Any, dtype: Any, device: Any, *others: Any) -> Any:
        loaded = load(source, config, dtype, "cpu", *others)
        return move(loaded) if torch.device(device).type == "cuda" else loaded

    return load_weights


def record_again(run: Callable[[], Any], _: Any) -> tuple[Callable[[], Any], Any]:
    """A recorded pass that is computed again by each replay."""
    run()
    result = run().clone()
    return lambda: result.copy_(run()), result


def set_gradients(loss: Any, **_: Any) -> None:
    """Instead of a backward pass: constant gradients."""
    assert isinstance(loss, ClaimedTensor) and loss.requires_grad
    for module in gc.get_objects():
        if isinstance(module, torch.nn.Module):
            for value in module._parameters.values():
                if value is not None and value.requires_grad and value.grad is None:
                    value.grad = torch.full_like(value, GRADIENT)


def recipe_of(folder: Path) -> Path:
    """A recipe that trains on a few clips."""

    def few(split: str, clips: int) -> list[dict[str, Any]]:
        return [{"path": str(ROOT / "data" / "vocabulary" / f"{split}.jsonl"), "max_clips": clips}]

    recipe = {
        "name": "devices",
        "runs": str(folder),
        "model": {"base": str(ROOT / "data" / "granite-speech-nano")},
        "data": {split: few(split, 24 if split == "train" else 4) for split in ("train", "valid", "test", "canary")},
        "train": {"goal": "vocabulary", "epochs": 1, "batch_seconds": 15},
        "evaluate": {"replicas": 200},
    }
    path = folder / "devices.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def commands(run: Path, folder: Path) -> list[list[str]]:
    """The commands to run; `folder` gets their files."""
    export, manifest, audio_only = run / "export", folder / "clips.jsonl", folder / "audio.jsonl"
    items = read_manifest(run / "manifests" / "test.jsonl")[:CLIPS]
    audios = [{"audio_filepath": item.audio_filepath, "duration": item.duration} for item in items]
    texts = [{**audio, "text": item.text} for audio, item in zip(audios, items, strict=True)]
    for path, rows in ((manifest, texts), (audio_only, audios)):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe, audio = str(recipe_of(folder)), str(items[0].audio_filepath)
    return [
        ["evaluate", recipe],
        ["train", recipe, "--set", "name=full", "--set", "train.goal=full"],
        ["transcribe", audio, "--model", str(export), "--format", "json", "--cuda-graphs"],
        ["compare", str(export), str(ROOT / "data" / "granite-speech-nano"), "--manifest", str(manifest)],
        ["segment", str(export), str(manifest), "-o", str(folder / "segments")],
        ["pseudo-label", str(run), str(audio_only), "-o", str(folder / "labels.jsonl")],
        ["suggest", str(run), str(audio_only), "-o", str(folder / "suggested.jsonl")],
        ["doctor"],
    ]


def decode(run: Path) -> list[list[str]]:
    """The texts of each decoder on the default device."""
    model = granite.load_model(str(run / "export"), "float32", granite.default_device())
    items = read_manifest(run / "manifests" / "test.jsonl")[:CLIPS]
    return [[row.text for row in recognize(model, items, INSTRUCTION, options)] for options in DECODERS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "quickstart", help="a finished run")
    args = parser.parse_args()
    if torch.version.cuda is None:
        parser.error("this torch has no CUDA; install a CUDA build (no GPU is needed)")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    expected, failed = decode(args.run.resolve()), list[str]()
    with (
        tempfile.TemporaryDirectory(prefix="devices-") as folder,
        mock.patch.object(granite, "load_weights", load_and_move(granite.load_weights)),
        mock.patch.object(pass_graphs.PassGraphs.__init__, "__defaults__", (record_again,)),
        mock.patch.object(torch.Tensor, "backward", set_gradients),
        mock.patch.object(step, "check_changed", lambda *_: None),  # the gradients are no real ones
        mock.patch.object(fits, "check_training", lambda *_, **__: None),  # it counts memory on the meta device
        claimed_cuda(),
    ):
        found = decode(args.run.resolve())
        pairs = zip(DECODERS, expected, found, strict=True)
        failed += [f"{options}: other texts" for options, one, two in pairs if one != two]
        for command in commands(args.run.resolve(), Path(folder)):
            print("finetune", *command, flush=True)
            try:
                code = finetune(command)
            except Exception:
                traceback.print_exc()
                code = 1
            failed += [f"finetune {' '.join(command)}"] * (code != 0)
    print(*failed or [f"{len(DECODERS)} decoders have the texts of the CPU; no command mixed devices"], sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
