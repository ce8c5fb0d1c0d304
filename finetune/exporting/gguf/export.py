"""`--format gguf`: the merged model as two files for llama.cpp, in a folder that is replaced as a whole."""

import logging
import os
from pathlib import Path

from finetune.core.errors import CheckpointError
from finetune.core.files import replace_folder
from finetune.core.run_dir import RunDir
from finetune.exporting.card.write import CARD, GGUF_CARD, write_converted_card
from finetune.exporting.gguf.quantize import make_gguf
from finetune.exporting.save import staged_folder

log = logging.getLogger(__name__)


def export_gguf(run: RunDir, dtype: str) -> tuple[Path, Path]:
    """Writes `export-gguf/` of a run whose merged model is in `export/`.

    Args:
        run: The run directory.
        dtype: F32, F16, BF16, Q8_0 or Q4_K_M.

    Returns:
        The paths of the language model and of encoder with projector.

    Raises:
        ModelError: llama.cpp does not know the layout of the model, or `llama-quantize` is missing or failed.
        CheckpointError: the folder has files that no export has written.
        MissingExtraError: the package `gguf` is missing.
    """
    folder = run.exported("gguf")
    if os.path.lexists(folder):
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else ["it"]
        foreign = [name for name in names if not name.endswith(".gguf") and name != CARD]
        if foreign:
            raise CheckpointError(
                f"{folder}: {min(foreign)} was not written by an export and would be deleted; move it away, then rerun"
            )
    with staged_folder(folder, keep=False) as staged:
        text, audio = make_gguf(run.export, staged, dtype)
        write_converted_card(staged, run, GGUF_CARD)
        replace_folder(staged, folder)
    paths = folder / text.name, folder / audio.name
    log.info("wrote %s and %s", *paths)
    return paths
