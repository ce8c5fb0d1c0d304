"""The formats of GGUF files by name: how a merged folder is written in each."""

from collections.abc import Callable, Mapping
from pathlib import Path

from finetune.exporting.engines.registry import CRISPASR, GGUF
from finetune.exporting.gguf.quantize import make_gguf
from finetune.exporting.gguf.write_crispasr import write_crispasr

# From a merged folder, an existing target folder and a data type to the paths of the files.
WRITERS: Mapping[str, Callable[[Path, Path, str], tuple[Path, ...]]] = {GGUF: make_gguf, CRISPASR: write_crispasr}
