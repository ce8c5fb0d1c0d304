"""Checks on complete test sets that greedy and lossless decoding give the tokens of transformers' `generate`.

    python scripts/check_lossless.py                                         # the base on the quickstart's test set
    python scripts/check_lossless.py --model runs/quickstart/export --manifests runs/quickstart/manifests/test.jsonl
    python scripts/check_lossless.py --model runs/ivr_telephone/export --manifests data/ivr-en/test.jsonl

The reference is transformers' `generate`, greedy and one clip at a time, because its output depends on the padding of a
batch. Greedy and speculative decoding are compared with it for each batch size. Weights are float32. With another
--dtype near ties can resolve differently; for each clip that differs, the script prints the gap between the two most
probable tokens at the first difference. The exit code is 1 if any clip differs.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
import transformers

from bench.decoders import DECODERS, Batch, encode, prompts_of
from bench.material import NANO, VOCABULARY
from finetune.core.options import DecodingOptions
from finetune.data.audio import load_audio
from finetune.data.manifest import read_manifest
from finetune.inference.recognize import Hypothesis
from finetune.inference.session import Session
from finetune.model.granite import SpeechModel, default_device, load_model

CHECKED = ("greedy", "lossless")


def clips_of(manifest: Path) -> Batch:
    """All clips of a manifest, longest first, which is the order of `recognize`."""
    items = sorted(read_manifest(manifest), key=lambda item: -item.duration)
    waves = [load_audio(manifest.parent / item.audio_filepath, item.offset, item.duration) for item in items]
    return Batch(items, waves, DecodingOptions().max_new_tokens)


def decode_in_batches(model: SpeechModel, decoder: str, clips: Batch, size: int) -> list[Hypothesis]:
    """Decodes all clips; the last batch can be smaller."""
    hypotheses: list[Hypothesis] = []
    for start in range(0, len(clips.items), size):
        part = slice(start, start + size)
        hypotheses += DECODERS[decoder](model, Batch(clips.items[part], clips.waves[part], clips.max_new_tokens))
    return hypotheses


def describe_difference(model: SpeechModel, clip: Batch, one: tuple[int, ...], two: tuple[int, ...]) -> str:
    """The first position at which two token sequences differ, and the logit gap of its two most probable tokens."""
    shorter = min(len(one), len(two))
    position = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), shorter)
    audio = encode(model, clip)
    (prompt,) = prompts_of(model, clip, audio.num_tokens.tolist())
    # One pass over the prompt and the tokens up to the position.
    hidden = Session(model, 1).read([[*prompt, *one[:position]]], audio)
    first, second = model.logits(hidden[-1]).topk(2).values.tolist()
    return f"token {position}, where the logits of the two most probable tokens differ by {first - second:.2g}"


@torch.inference_mode()
def check(model: SpeechModel, manifest: Path, sizes: list[int]) -> int:
    """Prints a line for each decoder and batch size, and returns the number of clips that differ in any of them."""
    clips, started = clips_of(manifest), time.monotonic()
    reference = decode_in_batches(model, "generate", clips, 1)
    tokens = sum(len(item.tokens) for item in reference)
    print(
        f"{manifest}: {len(reference)} clips, {sum(item.duration for item in clips.items):.0f} s; generate gave "
        f"{tokens} tokens; {sum(item.truncated for item in reference)} clips reached the limit of "
        f"{clips.max_new_tokens}",
        flush=True,
    )
    different: dict[str, str] = {}
    for decoder in CHECKED:
        for size in sizes:
            hypotheses = decode_in_batches(model, decoder, clips, size)
            wrong = [row for row, (a, b) in enumerate(zip(reference, hypotheses, strict=True)) if a.tokens != b.tokens]
            print(
                f"  {decoder:9}batch {size:<4}{len(reference) - len(wrong):5} of {len(reference)} equal"
                f"{sum(item.passes for item in hypotheses) / len(hypotheses):9.2f} passes per clip",
                flush=True,
            )
            for row in wrong:
                clip = Batch([clips.items[row]], [clips.waves[row]], clips.max_new_tokens)
                where = describe_difference(model, clip, reference[row].tokens, hypotheses[row].tokens)
                different.setdefault(reference[row].id, f"{decoder}, batch {size}: {where}")
    for name, where in different.items():
        print(f"  {name} differs: {where}")
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
    return len(different)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(NANO), help="folder of a base or exported model")
    parser.add_argument("--manifests", type=Path, nargs="+", default=[VOCABULARY / "test.jsonl"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = load_model(args.model, args.dtype, default_device())
    print(f"{args.model}, {args.dtype}, {model.device.type}")
    different = sum(check(model, manifest, args.batches) for manifest in args.manifests)
    print("all equal" if not different else f"{different} clips differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
