"""Merges the adapter into the base, saves a complete folder in hub layout, and proves that it says the same."""

import json
import logging
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open

from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.files import read_json, replace_folder, write_json
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest, write_manifest
from finetune.export.bundle import add_transcriber
from finetune.export.verify import largest_difference, read_answer, target_logits, write_request
from finetune.inference.recognize import recognize
from finetune.model.adapter import load_adapter, merge
from finetune.model.granite import DTYPES, load_model
from finetune.version import __version__

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """`max_abs_logit_diff` is between the folder opened afresh and the unmerged model (float32 arithmetic);
    `rounded_clips` counts transcripts that rounding to a narrower dtype changed."""

    dir: str
    dtype: str
    max_abs_logit_diff: float
    transcripts_equal: bool
    rounded_clips: int
    clips: int
    seconds: float


def export(recipe: Recipe, run: RunDir) -> ExportResult:
    """Writes `run.export`, complete or not at all.

    The merge is done in float32 and must reproduce the unmerged model's logits; the weights are then
    rounded to the saved dtype, and the folder, opened by a fresh process, must reproduce the rounded
    weights' logits and tokens.

    Raises:
        ModelError: a difference was found; nothing is left at `run.export`.
        CheckpointError: there is no adapter, or it does not fit the base.
    """
    started = time.monotonic()
    base = _base_folder(recipe)
    dtype = _stored_dtype(base) if recipe.export.dtype == "auto" else recipe.export.dtype
    clips = read_manifest(run.manifest("test"))[: recipe.export.clips]
    instruction, options = recipe.model.instruction, replace(recipe.decode, decoder="greedy")
    model = load_model(recipe.model.base, "float32", "cpu", recipe.model.revision)
    adapted = load_adapter(model, run.best)
    tokens = [list(item.tokens) for item in recognize(model, clips, instruction, options)]
    before = target_logits(model, clips, instruction, tokens)
    merge(model, adapted)
    merged = largest_difference(before, target_logits(model, clips, instruction, tokens))
    if not merged <= recipe.export.tolerance:  # so that NaN is refused too
        raise ModelError(
            f"merged logits differ by {merged:.2g} from the unmerged model's (export.tolerance "
            f"{recipe.export.tolerance:g}); nothing was exported"
        )
    rounded, rounded_tokens = before, tokens
    if dtype != "float32":
        for tensor in model.hf.state_dict().values():  # what is saved: the rotary frequencies are not, and stay exact
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(DTYPES[dtype]))
        rounded = target_logits(model, clips, instruction, tokens)
        rounded_tokens = [list(item.tokens) for item in recognize(model, clips, instruction, options)]

    staged = run.export.with_name("export.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    model.hf.to(DTYPES[dtype]).save_pretrained(staged)
    _copy_side_files(base, staged, dtype)
    add_transcriber(staged, recipe)
    write_json(staged / "adaptation.json", _provenance(recipe, run))
    folder = run.root / "parity"
    folder.mkdir(exist_ok=True)
    write_manifest(folder / "clips.jsonl", clips)
    write_request(folder, instruction, options, tokens)
    done = subprocess.run(
        [sys.executable, "-m", "finetune.export.verify", str(staged), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ModelError(f"the exported folder cannot be opened afresh:\n{done.stderr[-2000:]}")
    logits, heard = read_answer(folder)
    shutil.rmtree(folder)
    moved = largest_difference(rounded, logits)
    equal = heard == rounded_tokens
    if not (moved <= recipe.export.tolerance and equal):
        raise ModelError(
            f"opened afresh, the export differs: logits by {moved:.2g}, transcripts "
            f"{'equal' if equal else 'not equal'}; it was left at {staged} and not released"
        )
    replace_folder(staged, run.export)
    result = ExportResult(
        str(run.export),
        dtype,
        largest_difference(before, logits),
        heard == tokens,
        sum(a != b for a, b in zip(heard, tokens, strict=True)),
        len(clips),
        round(time.monotonic() - started, 1),
    )
    same = "equal" if result.transcripts_equal else "differ"
    log.info(
        "exported to %s (%s); logits differ by %.2g from the trained model, transcripts of %d clips %s",
        run.export,
        dtype,
        result.max_abs_logit_diff,
        len(clips),
        same,
    )
    return result


def _base_folder(recipe: Recipe) -> Path:
    """The base model's files on disk."""
    local = Path(recipe.model.base)
    return local if local.is_dir() else Path(snapshot_download(recipe.model.base, revision=recipe.model.revision))


def _stored_dtype(base: Path) -> str:
    """`float32` or `bfloat16`, as the base's weights are saved."""
    with safe_open(str(sorted(base.glob("model*.safetensors"))[0]), "pt") as weights:
        name = next(key for key in weights.keys() if key.endswith("weight"))  # noqa: SIM118 (not a dict)
        return "bfloat16" if weights.get_slice(name).get_dtype() == "BF16" else "float32"


def _copy_side_files(base: Path, staged: Path, dtype: str) -> None:
    """All that is no weight comes from the base as it is, so that every engine that reads the base reads this.

    transformers 5 would write another config (rope_parameters) and no preprocessor_config.json.
    """
    for path in base.iterdir():
        weights = path.name.startswith("model") and ".safetensors" in path.name
        ours = path.name in ("README.md", "decode.json", "adapter_config.json", "adapter_model.safetensors")
        if path.is_file() and not weights and not ours:
            shutil.copyfile(path, staged / path.name)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype
    write_json(staged / "config.json", config)
    for path in staged.iterdir():
        path.chmod(0o644)


def _provenance(recipe: Recipe, run: RunDir) -> dict[str, Any]:
    """What the folder was made from: base, recipe, data hashes, scores."""
    return {
        "toolkit": __version__,
        "torch": torch.__version__,
        "base": recipe.model.base,
        "revision": recipe.model.revision,
        "recipe": recipe.model_dump(),
        "data": (run.done("prepare") or {}).get("hashes", {}),
        "train": run.done("train") or {},
        "scores": read_json(run.scores)["scores"] if run.scores.is_file() else None,
    }
