"""Compares an exported folder with the trained model: loads it in a new process and returns its logits and tokens.

`export` runs `python -m finetune.exporting.verify MODEL_DIR WORK_DIR`.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.core.errors import ModelError
from finetune.core.options import DecodingOptions
from finetune.core.progress import advance
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.data.row_prompt import instruction_of
from finetune.inference.recognize import clip_features, recognize
from finetune.model.granite import SpeechModel, load_model
from finetune.model.prompt import render

RunProcess = Callable[[list[str]], "subprocess.CompletedProcess[str]"]
CLIPS, REQUEST, LOGITS, TOKENS = "clips.jsonl", "request.json", "logits.safetensors", "answer.json"


@dataclass(frozen=True)
class Outputs:
    """Greedy tokens of each clip, and the float32 logits (n, V) of the trained model's tokens by clip id."""

    tokens: list[list[int]]
    logits: dict[str, Tensor]


@torch.inference_mode()
def target_logits(
    model: SpeechModel, utterances: list[Utterance], instruction: str, tokens: list[list[int]]
) -> dict[str, Tensor]:
    """Float32 logits (n, V) of `tokens` with teacher forcing, by utterance id; computes one clip at a time."""
    logits = {}
    for item, target in zip(utterances, tokens, strict=True):
        features, frames = pad_features([clip_features(model, item)])
        count = int(model.num_audio_tokens(frames)[0])
        asked = instruction_of(item, instruction, model.profile)
        prompt = render(model.tokenizer, asked, item.keywords, model.profile).around(model.audio_token_id, count)
        hidden, _ = model(features, frames, torch.tensor([prompt + target], device=model.device))
        advance(item.duration)
        logits[item.id] = model.logits(hidden[0, len(prompt) - 1 :]).cpu()
    return logits


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest absolute difference over all utterances and logits; NaN if any is NaN (Python's `max` could miss it)."""
    return float(torch.stack([(a[key] - b[key]).abs().max() for key in a]).max())


def run_process(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Runs a command and captures its output."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def outputs_in_new_process(
    model_dir: Path,
    work_dir: Path,
    clips: list[Utterance],
    instruction: str,
    decoding: DecodingOptions,
    tokens: list[list[int]],
    run_process: RunProcess = run_process,
) -> Outputs:
    """Loads an exported folder in a new process, and returns its outputs.

    Args:
        model_dir: The exported folder.
        work_dir: A folder for the files that both processes read and write; it is removed at the end.
        clips: Clips to decode.
        instruction: Instruction of the prompt.
        decoding: Decoding options.
        tokens: Tokens of the trained model for each clip, for which logits are computed.
        run_process: Runs a command.

    Raises:
        ModelError: the process failed, which means that the folder cannot be loaded.
    """
    work_dir.mkdir(exist_ok=True)
    write_manifest(work_dir / CLIPS, clips)
    request = {"instruction": instruction, "options": asdict(decoding), "tokens": tokens}
    (work_dir / REQUEST).write_text(json.dumps(request), encoding="utf-8")
    process = run_process([sys.executable, "-m", "finetune.exporting.verify", str(model_dir), str(work_dir)])
    if process.returncode:
        raise ModelError(f"the exported folder cannot be loaded in a new process:\n{process.stderr[-2000:]}")
    outputs = Outputs(json.loads((work_dir / TOKENS).read_text(encoding="utf-8")), dict(load_file(work_dir / LOGITS)))
    shutil.rmtree(work_dir)
    return outputs


def write_outputs(model_dir: str, work_dir: Path) -> None:
    """In the new process: loads the exported folder in float32 and writes its logits and tokens."""
    request = json.loads((work_dir / REQUEST).read_text(encoding="utf-8"))
    instruction, decoding = request["instruction"], DecodingOptions(**request["options"])
    utterances = read_manifest(work_dir / CLIPS)
    model = load_model(model_dir, "float32")
    save_file(target_logits(model, utterances, instruction, request["tokens"]), work_dir / LOGITS)
    tokens = [list(item.tokens) for item in recognize(model, utterances, instruction, decoding)]
    (work_dir / TOKENS).write_text(json.dumps(tokens), encoding="utf-8")


if __name__ == "__main__":
    write_outputs(sys.argv[1], Path(sys.argv[2]))
