"""Checks on whole test sets that every way to decode writes the same tokens, in batches of any size.

    python scripts/check_lossless.py                                         # the base on the quickstart's test set
    python scripts/check_lossless.py --model runs/quickstart/export --manifests runs/quickstart/manifests/test.jsonl
    python scripts/check_lossless.py --model runs/ivr_telephone/export --manifests data/ivr-en/test.jsonl

The oracle is transformers' `generate`, greedy and one clip at a time, for it hears the padding of a batch. Compared
with it in each batch size: our greedy, and speculative decoding. Weights are float32; with others (--dtype) near ties
may fall otherwise, and so each clip that differs is named with the gap between the two likeliest tokens where it does.
Exit code 1 where any clip differs.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
import transformers

from bench.decoders import WAYS, Batch, hear, prompts_of
from bench.material import NANO, VOCABULARY
from finetune.core.options import DecodingOptions
from finetune.data.audio import load_audio
from finetune.data.manifest import read_manifest
from finetune.inference.recognize import Hypothesis
from finetune.inference.session import Session
from finetune.model.granite import GraniteSpeech, load_model

OURS = ("greedy", "lossless")


def clips_of(manifest: Path) -> Batch:
    """All clips of a manifest, the longest first, as `recognize` sorts them."""
    items = sorted(read_manifest(manifest), key=lambda item: -item.duration)
    waves = [load_audio(manifest.parent / item.audio_filepath, item.offset, item.duration) for item in items]
    return Batch(items, waves, DecodingOptions().max_new_tokens)


def in_batches(model: GraniteSpeech, way: str, clips: Batch, size: int) -> list[Hypothesis]:
    """Every clip; the last batch has what is left."""
    found: list[Hypothesis] = []
    for start in range(0, len(clips.items), size):
        part = slice(start, start + size)
        found += WAYS[way](model, Batch(clips.items[part], clips.waves[part], clips.max_new_tokens))
    return found


def gap(model: GraniteSpeech, clip: Batch, one: tuple[int, ...], two: tuple[int, ...]) -> str:
    """Where two texts of a clip part, and by how much the likeliest token leads there, in logits."""
    place = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    audio = hear(model, clip)
    (prompt,) = prompts_of(model, clip, audio.num_tokens.tolist())
    # A session reads one row with its audio at once: the prompt, and the text up to the place.
    hidden = Session(model, 1).read([[*prompt, *one[:place]]], audio)
    first, second = model.logits(hidden[-1]).topk(2).values.tolist()
    return f"token {place}, where the first leads the second by {first - second:.2g}"


@torch.inference_mode()
def check(model: GraniteSpeech, manifest: Path, sizes: list[int]) -> int:
    """Prints a line for each way and size; the number of clips that differ in any."""
    clips, started = clips_of(manifest), time.monotonic()
    oracle = in_batches(model, "generate", clips, 1)
    tokens = sum(len(item.tokens) for item in oracle)
    print(
        f"{manifest}: {len(oracle)} clips, {sum(item.duration for item in clips.items):.0f} s; generate wrote "
        f"{tokens} tokens, {sum(item.truncated for item in oracle)} clips up to the limit of {clips.max_new_tokens}",
        flush=True,
    )
    different: dict[str, str] = {}
    for way in OURS:
        for size in sizes:
            heard = in_batches(model, way, clips, size)
            wrong = [row for row, (a, b) in enumerate(zip(oracle, heard, strict=True)) if a.tokens != b.tokens]
            print(
                f"  {way:9}batch {size:<4}{len(oracle) - len(wrong):5} of {len(oracle)} equal"
                f"{sum(item.passes for item in heard) / len(heard):9.2f} passes a clip",
                flush=True,
            )
            for row in wrong:
                clip = Batch([clips.items[row]], [clips.waves[row]], clips.max_new_tokens)
                where = gap(model, clip, oracle[row].tokens, heard[row].tokens)
                different.setdefault(oracle[row].id, f"{way} in batches of {size}: {where}")
    for name, where in different.items():
        print(f"  {name} differs, {where}")
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
    return len(different)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(NANO), help="folder of a base or an export")
    parser.add_argument("--manifests", type=Path, nargs="+", default=[VOCABULARY / "test.jsonl"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = load_model(given.model, given.dtype, "cuda" if torch.cuda.is_available() else "cpu")
    print(f"{given.model}, {given.dtype}, {model.device.type}")
    different = sum(check(model, manifest, given.batches) for manifest in given.manifests)
    print("all equal" if not different else f"{different} clips differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
