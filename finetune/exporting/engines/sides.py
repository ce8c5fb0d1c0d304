"""Both sides of a comparison: what an engine loads, and the model of this toolkit that it must reproduce.

A merged folder is loaded by both. Any other format is compared with the run that it was exported from, because only
that shows whether all trained weights arrived: an adapter with `best/`, GGUF and quantized weights with `export/`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from finetune.core.errors import ModelError
from finetune.core.files import read_json
from finetune.core.run_dir import RunDir
from finetune.exporting.engines.folder_safety import check_engine_folder
from finetune.exporting.engines.registry import (
    ADAPTERS,
    CRISPASR,
    ENGINES,
    GGUF,
    GGUF_FORMATS,
    HF,
    MLX,
    ONNX,
    PEFT,
    VLLM_LORA,
)
from finetune.exporting.gguf.write_crispasr import FILE as CRISPASR_FILE
from finetune.exporting.onnx.export import SIZES
from finetune.exporting.vllm_format import max_lora_rank
from finetune.model.adapter import ADAPTER_CONFIG, load_adapter
from finetune.model.float32 import load_for_inference
from finetune.model.granite import SpeechModel

Load = Callable[[], SpeechModel]


@dataclass(frozen=True)
class Sides:
    """Both sides.

    Attributes:
        format: Format of the export, with its data type where the toolkit side has another, such as `gguf Q8_0`.
        request: What the runner of the engine loads.
        load: Loads the model of this toolkit, which computes in float32.
        load_base: Loads the base of an adapter; None for other formats.
    """

    format: str
    request: dict[str, Any]
    load: Load
    load_base: Load | None = None


def format_of(folder: Path) -> str:
    """The format of an exported folder. Raises ModelError if it is none."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; name one that finetune export wrote")
    if (folder / ADAPTER_CONFIG).is_file() and not any(folder.glob("model*.safetensors")):
        return PEFT if _json(folder / ADAPTER_CONFIG).get("modules_to_save") else VLLM_LORA
    if any(folder.glob("*.gguf")):
        return CRISPASR if any(folder.glob(CRISPASR_FILE.format("*"))) else GGUF
    if (folder / SIZES).is_file():
        return ONNX
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no export (no config.json, adapter_config.json, {SIZES} or *.gguf in it)")
    return MLX if "quantization" in _json(folder / "config.json") else HF


def sides_of(folder: Path, engine: str, run: RunDir | None = None) -> Sides:
    """Both sides of a comparison.

    Args:
        folder: The export.
        engine: A name of `ENGINES`.
        run: The run that it was exported from; by default the one that holds the folder.

    Raises:
        ModelError: the folder is no export, the engine does not read it, or its run is not known.
    """
    kind, reads = format_of(folder), ENGINES[engine].reads
    check_engine_folder(folder)
    if kind not in reads:
        fitting = [name for name, spec in ENGINES.items() if kind in spec.reads]
        raise ModelError(
            f"{folder}: --engine {engine} reads the format {' or '.join(reads)}, and this is {kind}, for --engine "
            f"{' or '.join(fitting)}"
        )
    if kind == HF:
        return Sides(kind, {"model": str(folder.resolve())}, partial(load_for_inference, str(folder), "auto", "cpu"))
    run = _run_of(folder, run, "best" if kind in ADAPTERS else "export")
    if kind in ADAPTERS:
        return _adapter_sides(folder, kind, run)
    names: dict[str, Callable[[Path], str]] = {GGUF: _gguf_dtype, CRISPASR: _crispasr_dtype, MLX: _mlx_bits}
    name = names[kind](folder) if kind in names else kind
    key = "gguf" if kind in GGUF_FORMATS else "model"
    return Sides(name, {key: str(folder.resolve())}, partial(load_for_inference, str(run.export), "auto", "cpu"))


def _adapter_sides(folder: Path, kind: str, run: RunDir) -> Sides:
    config = _json(folder / ADAPTER_CONFIG)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    try:
        base = str(name) if Path(str(name)).is_dir() else snapshot_download(str(name), revision=revision)
    except Exception as error:  # the hub has many kinds
        raise ModelError(f"{folder / ADAPTER_CONFIG}: the base model {name!r} cannot be loaded ({error})") from error
    request: dict[str, Any] = {"model": base, "adapter": str(folder.resolve())}
    if kind == VLLM_LORA:
        request["max_lora_rank"] = max_lora_rank(int(config.get("r") or 1))
    load = partial(load_for_inference, base, "auto", "cpu")

    def adapt(model: SpeechModel, keep_float32: bool) -> None:
        load_adapter(model, run.best, keep_float32)

    return Sides(kind, request, partial(load, adapt=adapt), load)


def _gguf_dtype(folder: Path) -> str:
    """The data type in the name of the language model's file. Raises ModelError if a file is missing."""
    names = [sorted(folder.glob(f"{part}-*.gguf")) for part in ("model", "mmproj")]
    if any(len(files) != 1 for files in names):
        raise ModelError(f"{folder} needs one model-*.gguf and one mmproj-*.gguf, as finetune export writes them")
    return f"{GGUF} {names[0][0].stem.removeprefix('model-')}"


def _crispasr_dtype(folder: Path) -> str:
    names = [path.stem for path in folder.glob("*.gguf")]
    if len(names) != 1:
        raise ModelError(f"{folder} needs one {CRISPASR_FILE.format('*')}, as finetune export writes it")
    return f"{CRISPASR} {names[0].rpartition('-')[2]}"


def _mlx_bits(folder: Path) -> str:
    quantization = _json(folder / "config.json")["quantization"]
    return f"{MLX} {quantization.get('bits', '?') if isinstance(quantization, dict) else '?'} bit"


def _run_of(folder: Path, run: RunDir | None, needed: str) -> RunDir:
    """The run of an export. Raises ModelError if it is not known or lacks the folder `needed`."""
    source_run = run or RunDir(folder.resolve().parent)
    if not (source_run.root / needed).is_dir():
        hint = f"it has no folder {needed}" if run else "name the run directory that it was exported from with --run"
        raise ModelError(f"{folder} is compared with the run that it was exported from, not {source_run.root}: {hint}")
    return source_run


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
        if isinstance(content, dict):
            return content
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error})") from error
    raise ModelError(f"{path} is damaged (not a JSON object)")
