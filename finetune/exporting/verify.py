"""Compares an exported folder with the trained model: loads it in a new process and returns its logits and tokens.

`export` runs `python -m finetune.exporting.verify WORK_DIR`. The process computes in float32.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.options import DecodingOptions
from finetune.core.progress import advance
from finetune.core.run_dir import RunDir
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.data.row_prompt import instruction_of
from finetune.exporting.plain_peft import load_with_peft
from finetune.inference.encode import clip_features
from finetune.inference.recognize import recognize
from finetune.model.float32 import compute_in_float32, load_as_stored
from finetune.model.granite import SpeechModel
from finetune.model.prompt import render

RunProcess = Callable[[list[str]], "subprocess.CompletedProcess[str]"]
CLIPS, REQUEST, LOGITS, ANSWER = "clips.jsonl", "request.json", "logits.safetensors", "answer.json"


@dataclass(frozen=True)
class Opened:
    """What the new process opens.

    Attributes:
        source: a folder in hub layout, or a hub name.
        files: folder of its files.
        revision: commit of a hub name.
        adapter: a folder that plain PEFT loads into it; "" for none.
    """

    source: str
    files: str
    revision: str | None = None
    adapter: str = ""


@dataclass(frozen=True)
class Outputs:
    """What a model writes.

    Attributes:
        tokens: greedy tokens of each clip.
        logits: float32 logits (n, V) of the trained model's tokens, by clip id.
        self_check: without and with an adapter, see `load_with_peft`.
    """

    tokens: list[list[int]]
    logits: dict[str, Tensor]
    self_check: list[list[float]] = field(default_factory=list)


@torch.inference_mode()
def target_logits(
    model: SpeechModel, utterances: list[Utterance], instruction: str, tokens: list[list[int]]
) -> dict[str, Tensor]:
    """Float32 logits (n, V) of `tokens` with teacher forcing, by utterance id; computes one clip at a time."""
    logits = {}
    for item, target in zip(utterances, tokens, strict=True):
        features, frames = pad_features([clip_features(model, item)])
        count = int(model.num_audio_tokens(frames)[0])
        text = instruction_of(item, instruction, model.profile)
        prompt = render(model.tokenizer, text, item.keywords, model.profile).around(model.audio_token_id, count)
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


def reopen(
    opened: Opened,
    recipe: Recipe,
    run: RunDir,
    clips: list[Utterance],
    tokens: list[list[int]],
    run_process: RunProcess,
) -> Outputs:
    """Opens an export in a new process, and returns its outputs with greedy decoding.

    Args:
        opened: The exported folder, or an adapter and its base.
        recipe: The recipe of the run, with the decoding options.
        run: The run directory; `parity/` in it has the files that both processes read and write, until the end.
        clips: Clips to decode.
        tokens: Tokens of the trained model for each clip, for which logits are computed.
        run_process: Runs a command.

    Raises:
        ModelError: the process failed, which means that the folder cannot be loaded.
    """
    work_dir, decoding = run.root / "parity", replace(recipe.decode, decoder="greedy")
    work_dir.mkdir(exist_ok=True)
    write_manifest(work_dir / CLIPS, clips)
    request = {
        "opened": asdict(opened),
        "instruction": recipe.model.instruction,
        "options": asdict(decoding),
        "tokens": tokens,
    }
    (work_dir / REQUEST).write_text(json.dumps(request), encoding="utf-8")
    process = run_process([sys.executable, "-m", "finetune.exporting.verify", str(work_dir)])
    if process.returncode:
        raise ModelError(f"the exported folder cannot be loaded in a new process:\n{process.stderr[-2000:]}")
    answer = json.loads((work_dir / ANSWER).read_text(encoding="utf-8"))
    outputs = Outputs(answer["tokens"], dict(load_file(work_dir / LOGITS)), answer["self_check"])
    shutil.rmtree(work_dir)
    return outputs


def write_outputs(work_dir: Path) -> None:
    """In the new process: opens the export and writes its logits and tokens."""
    request = json.loads((work_dir / REQUEST).read_text(encoding="utf-8"))
    instruction, decoding = request["instruction"], DecodingOptions(**request["options"])
    utterances, opened = read_manifest(work_dir / CLIPS), Opened(**request["opened"])
    model = load_as_stored(opened.source, Path(opened.files), opened.revision)
    self_check = []
    if opened.adapter:
        self_check = load_with_peft(model, Path(opened.adapter))
    else:
        compute_in_float32(model)
    save_file(target_logits(model, utterances, instruction, request["tokens"]), work_dir / LOGITS)
    tokens = [list(item.tokens) for item in recognize(model, utterances, instruction, decoding)]
    (work_dir / ANSWER).write_text(json.dumps({"tokens": tokens, "self_check": self_check}), encoding="utf-8")


if __name__ == "__main__":
    write_outputs(Path(sys.argv[1]))
