"""Does an exported folder, opened afresh, say what the trained model said? Run by `export` as its own process."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.core.options import DecodingOptions
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance, read_manifest
from finetune.inference.recognize import clip_features, recognize
from finetune.model.granite import GraniteSpeech, load_model
from finetune.model.prompt import render


@torch.inference_mode()
def target_logits(
    model: GraniteSpeech, utterances: list[Utterance], instruction: str, tokens: list[list[int]]
) -> dict[str, Tensor]:
    """By utterance id: float32 logits (n, V) of the given tokens, read with teacher forcing, one clip at a time."""
    found = {}
    for item, target in zip(utterances, tokens, strict=True):
        features, frames = pad_features([clip_features(model, item)])
        count = int(model.num_audio_tokens(frames)[0])
        prompt = render(model.tokenizer, instruction, item.keywords).around(model.audio_token_id, count)
        hidden, _ = model(features, frames, torch.tensor([prompt + target], device=model.device))
        found[item.id] = model.logits(hidden[0, len(prompt) - 1 :]).cpu()
    return found


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest absolute difference over all utterances and logits; NaN where one is (Python's `max` could lose it)."""
    return float(torch.stack([(a[key] - b[key]).abs().max() for key in a]).max())


def write_request(folder: Path, instruction: str, options: DecodingOptions, tokens: list[list[int]]) -> None:
    """What the other process needs besides the manifest."""
    (folder / "request.json").write_text(
        json.dumps({"instruction": instruction, "options": asdict(options), "tokens": tokens}), encoding="utf-8"
    )


def answer(export_dir: str, folder: Path) -> None:
    """Loads the exported folder in float32 and leaves its logits and tokens beside the request."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    instruction, options = request["instruction"], DecodingOptions(**request["options"])
    utterances = read_manifest(folder / "clips.jsonl")
    model = load_model(export_dir, "float32")
    save_file(target_logits(model, utterances, instruction, request["tokens"]), folder / "logits.safetensors")
    heard = [list(item.tokens) for item in recognize(model, utterances, instruction, options)]
    (folder / "answer.json").write_text(json.dumps(heard), encoding="utf-8")


def read_answer(folder: Path) -> tuple[dict[str, Tensor], list[list[int]]]:
    """Logits by utterance id, and tokens."""
    return load_file(folder / "logits.safetensors"), json.loads((folder / "answer.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    answer(sys.argv[1], Path(sys.argv[2]))
