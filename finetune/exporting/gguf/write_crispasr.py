"""Writes a merged folder as one GGUF file for CrispASR: encoder, projector and language model.

Encoder and projector stay in float32, as in the files of CrispASR's own converter.
"""

import re
from functools import partial
from pathlib import Path

import torch

from finetune.core.errors import ModelError
from finetune.core.extras import require
from finetune.data.features import N_FFT, NUM_MELS, mel_filters
from finetune.exporting.gguf.crispasr_metadata import ARCHITECTURE, add_sizes
from finetune.exporting.gguf.crispasr_names import EMBEDDING, OUTPUT, crispasr_name
from finetune.exporting.gguf.metadata import add_tokenizer
from finetune.exporting.gguf.tensors import HubWeights, StoredTensor
from finetune.exporting.gguf.write import merged_config, write_tensors

FILE = "granite-speech-{}.gguf"
FLOAT32_ONLY = re.compile(r"^(enc|proj|audio)\.")
UNUSED = ".num_batches_tracked"


def write_crispasr(folder: Path, target: Path, dtype: str) -> tuple[Path]:
    """Writes `granite-speech-DTYPE.gguf` into an existing folder.

    Args:
        folder: A model in hub layout with merged weights.
        target: Where the file goes.
        dtype: F32, F16, BF16 or Q8_0, for the matrices of the language model. In a Q8_0 file, a matrix with rows that
            are no multiple of 32 is F16.

    Returns:
        The path of the file, alone.

    Raises:
        ModelError: the folder has a layout that CrispASR does not know.
        MissingExtraError: the package `gguf` is missing.
    """
    gguf = require("gguf", extra="gguf")
    config = merged_config(folder)
    tensors = _tensors(HubWeights(folder))
    path = target / FILE.format(dtype)
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_name(folder.resolve().name)
    add_sizes(writer, config)
    special = add_tokenizer(writer, folder, config)
    for kind in ("bos", "eos"):
        if kind in special:
            writer.add_uint32(f"{ARCHITECTURE}.llm.{kind}_token_id", special[kind])
    write_tensors(writer, tensors, dtype, FLOAT32_ONLY)
    return (path,)


def _tensors(weights: HubWeights) -> list[StoredTensor]:
    tensors = {}
    for name in weights:
        if name.endswith(UNUSED):
            continue
        try:
            stored = crispasr_name(name)
        except KeyError:
            raise ModelError(f"{name}: CrispASR's Granite Speech has no such tensor, so there is no file") from None
        tensors[stored] = StoredTensor(stored, weights.shape(name), partial(weights.read, name))
    for name, other in ((EMBEDDING, OUTPUT), (OUTPUT, EMBEDDING)):  # one matrix for both is stored once in the folder
        if name not in tensors:
            tensors[name] = StoredTensor(name, tensors[other].shape, tensors[other].read)
    filters = StoredTensor("audio.mel_filters", (N_FFT // 2 + 1, NUM_MELS), partial(mel_filters, torch.device("cpu")))
    return [filters, *tensors.values()]
