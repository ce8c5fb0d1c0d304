"""`--format gguf` and `crispasr`: the merged model as GGUF files, in a folder that is replaced as a whole."""

import logging
import shutil
from pathlib import Path

from finetune.core.files import replace_folder
from finetune.core.model_limits import ADAPTATION
from finetune.core.run_dir import RunDir
from finetune.exporting import engine_checks
from finetune.exporting.card.write import CARD, CRISPASR_CARD, GGUF_CARD, write_converted_card
from finetune.exporting.engines.registry import CRISPASR, GGUF
from finetune.exporting.gguf.formats import WRITERS
from finetune.exporting.save import refuse_foreign_files, staged_folder

OWN = (CARD, ADAPTATION, engine_checks.FILE)

log = logging.getLogger(__name__)

CARDS = {GGUF: GGUF_CARD, CRISPASR: CRISPASR_CARD}


def export_gguf(run: RunDir, dtype: str, name: str = GGUF) -> tuple[Path, ...]:
    """Writes `export-NAME/` of a run whose merged model is in `export/`.

    Args:
        run: The run directory.
        dtype: F32, F16, BF16, Q8_0 or Q4_K_M.
        name: A name of `WRITERS`.

    Returns:
        The paths of the files; for llama.cpp of the language model, then of encoder with projector.

    Raises:
        ModelError: the program does not know the layout of the model, or `llama-quantize` is missing or failed.
        CheckpointError: the folder has files that no export has written.
        MissingExtraError: the package `gguf` is missing.
    """
    folder = run.exported(name)
    refuse_foreign_files(folder, lambda path: path.name.endswith(".gguf") or path.name in OWN)
    with staged_folder(folder, keep=False) as staged:
        written = WRITERS[name](run.export, staged, dtype)
        if (run.export / ADAPTATION).is_file():
            shutil.copyfile(run.export / ADAPTATION, staged / ADAPTATION)
        write_converted_card(staged, run, CARDS[name])
        replace_folder(staged, folder)
    paths = tuple(folder / path.name for path in written)
    log.info("wrote %s", " and ".join(map(str, paths)))
    return paths
