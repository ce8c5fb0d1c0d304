"""`--format gguf`: the merged model as two files for llama.cpp, in a folder that is replaced as a whole."""

import logging
import os
from pathlib import Path

from finetune.core.errors import CheckpointError
from finetune.core.files import replace_folder
from finetune.core.run_dir import RunDir
from finetune.exporting.gguf.write import write_gguf
from finetune.exporting.save import staged_folder

log = logging.getLogger(__name__)


def export_gguf(run: RunDir, dtype: str) -> tuple[Path, Path]:
    """Writes `export-gguf/` of a run whose merged model is in `export/`.

    Args:
        run: The run directory.
        dtype: F32, F16, BF16 or Q8_0.

    Returns:
        The paths of the language model and of encoder with projector.

    Raises:
        ModelError: llama.cpp does not know the layout of the model.
        CheckpointError: the folder has files that no export has written.
        MissingExtraError: the package `gguf` is missing.
    """
    folder = run.exported("gguf")
    if os.path.lexists(folder):
        foreign = [path.name for path in folder.iterdir() if path.suffix != ".gguf"] if folder.is_dir() else ["it"]
        if foreign:
            raise CheckpointError(
                f"{folder}: {min(foreign)} was not written by an export and would be deleted; move it away, then rerun"
            )
    with staged_folder(folder) as staged:
        text, audio = write_gguf(run.export, staged, dtype)
        replace_folder(staged, folder)
    paths = folder / text.name, folder / audio.name
    log.info("wrote %s and %s", *paths)
    return paths
