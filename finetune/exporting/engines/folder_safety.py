"""Checks a folder before another engine opens it: no pickles, no code, no links that lead out of it.

A folder can come from anybody. This toolkit reads only safetensors, GGUF and JSON; an engine can read more.
"""

import json
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.core.files import read_bytes
from finetune.model.folder_checks import CODE_KEYS, MAX_TOKENIZER

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib")
TRANSCRIBER = "transcribe"  # the only folder of an export with code; no engine runs it


def check_engine_folder(folder: Path) -> None:
    """Refuses a folder that can run code in an engine.

    Files of a snapshot in the hub's cache are links to the `blobs` beside it; other links that lead out are refused.

    Raises:
        ModelError: it has a pickle, code, a link that leads out, or a JSON file that asks to run code.
    """
    root, blobs = folder.resolve(), folder.resolve().parent.parent / "blobs"
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        target = path.resolve()
        if path.is_symlink() and not (target.is_relative_to(root) or target.is_relative_to(blobs)):
            raise ModelError(f"{path}: a symbolic link that leads out of the folder; replace it by the file")
        if path.suffix.lower() in PICKLES:
            raise ModelError(f"{path}: a pickle can run code when an engine loads it; delete it")
        if path.suffix.lower() in (".py", ".so", ".pyc") and name.parts[0] != TRANSCRIBER:
            raise ModelError(f"{path}: code of the model folder, which an engine could run; delete it")
        if path.suffix.lower() == ".json" and len(name.parts) == 1:
            _refuse_code_keys(path)


def _refuse_code_keys(path: Path) -> None:
    try:
        content = json.loads(read_bytes(path, MAX_TOKENIZER))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({str(error)[:200]})") from error
    for key in CODE_KEYS:
        if isinstance(content, dict) and content.get(key):
            raise ModelError(f"{path}: {key} asks to run code of the model folder; remove it, or use another model")
