"""Adds a transcriber to an exported folder: its options, and a copy of the modules that transcribing needs."""

import ast
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath

from finetune.core.config import Recipe
from finetune.core.options import TranscribeOptions
from finetune.inference.saved_options import write_options

ENTRY = "finetune.cli.transcribe"
MAIN = '''"""Transcribes audio with the model in the folder above; needs torch, transformers, soundfile and soxr.
M4A, WebM, WMA and video also need av; https:// needs requests, other URLs fsspec.

    python EXPORT/transcribe call.wav --format srt

The code beside this file is an unchanged part of the toolkit that exported the model; settings.json has the options.
"""

import sys
from pathlib import Path

from {entry} import standalone

sys.exit(standalone(Path(__file__).resolve().parent.parent))
'''


def add_transcriber(folder: Path, recipe: Recipe) -> None:
    """Adds `transcribe/` to an exported folder, for `python FOLDER/transcribe FILE ...`.

    Python finds modules beside `__main__.py` first, so an installed `finetune` of another version is not used.
    """
    for name, content in transcriber_files().items():
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    default = TranscribeOptions()
    decoding = replace(recipe.decode, max_new_tokens=default.decoding.max_new_tokens)
    write_options(folder, replace(default, instruction=recipe.model.instruction, decoding=decoding))


@cache
def transcriber_files() -> Mapping[str, bytes]:
    """The code of the transcriber: the content of each file, by its path in an exported folder."""
    files = {}
    for name, path in modules().items():
        place = PurePosixPath("transcribe", *name.split("."))
        place = place / "__init__.py" if path.name == "__init__.py" else place.with_suffix(".py")
        files[str(place)] = path.read_bytes()
    files["transcribe/finetune/__init__.py"] = b'"""The part of finetune that transcribes."""\n'
    files["transcribe/__main__.py"] = MAIN.format(entry=ENTRY).encode()
    return files


def modules() -> dict[str, Path]:
    """The modules of this package that `ENTRY` imports, directly or indirectly, and their packages, by name."""
    root = Path(__file__).resolve().parents[2]
    paths: dict[str, Path] = {}
    pending = [ENTRY]
    while pending:
        name = pending.pop()
        module_file = root.joinpath(*name.split(".")).with_suffix(".py")
        path = module_file if module_file.is_file() else root.joinpath(*name.split("."), "__init__.py")
        if name in paths or not name.startswith("finetune") or not path.is_file():
            continue
        paths[name] = path
        pending += [name.rpartition(".")[0]] if "." in name else []
        if name == "finetune":  # the export has its own __init__.py, without the Python API
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                pending += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                pending += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return paths
