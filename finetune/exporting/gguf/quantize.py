"""GGUF files of any data type, also of those that llama.cpp's own program `llama-quantize` makes."""

import shutil
import subprocess
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.exporting.engines.registry import GGUF
from finetune.exporting.gguf.write import write_gguf

PROGRAM = "llama-quantize"
QUANTIZED = ("Q4_K_M",)  # by the program, from F16
SHOWN = 1000  # characters at the end of the program's messages in an error


def find_program(dtype: str) -> Path | None:
    """The program that a data type needs; None if it needs none. Raises ModelError if it is missing."""
    if dtype not in QUANTIZED:
        return None
    program = shutil.which(PROGRAM)
    if program is None:
        raise ModelError(
            f"--gguf-dtype {dtype} needs {PROGRAM} of llama.cpp, which is not on the PATH; build it (cmake --build "
            f"build --target {PROGRAM}) and add build/bin to the PATH, or use Q8_0"
        )
    return Path(program)


def check_dtype(name: str, dtype: str) -> None:
    """Raises ModelError if a format of GGUF files lacks a data type, or the program that it needs is missing."""
    if name != GGUF and dtype in QUANTIZED:
        raise ModelError(
            f"--gguf-dtype {dtype} is not written for --format {name}; use Q8_0, or quantize the F16 file with its own "
            "program"
        )
    find_program(dtype)


def make_gguf(folder: Path, target: Path, dtype: str) -> tuple[Path, Path]:
    """`write_gguf` for every data type. With Q4_K_M, encoder and projector are F16.

    Raises:
        ModelError: the folder has a layout that llama.cpp does not know, or `llama-quantize` is missing or failed.
        MissingExtraError: the package `gguf` is missing.
    """
    program = find_program(dtype)
    if program is None:
        return write_gguf(folder, target, dtype)
    text, audio = write_gguf(folder, target, "F16")
    quantized = target / f"model-{dtype}.gguf"
    done = subprocess.run(
        [str(program), str(text), str(quantized), dtype], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode or not quantized.is_file():
        messages = done.stdout.decode(errors="replace").strip()[-SHOWN:]
        raise ModelError(f"{program} failed (exit code {done.returncode}). Its last messages:\n{messages}")
    text.unlink()
    return quantized, audio
