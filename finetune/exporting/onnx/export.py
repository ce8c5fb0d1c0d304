"""`--format onnx`: the merged model as three graphs for onnxruntime, in a folder that is replaced as a whole.

`audio.onnx` is encoder with projector, `embedding.onnx` the embedding of tokens, `decoder.onnx` the language model with
its cache; `onnx.json` has the sizes that a program needs to run them.
"""

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.core.errors import ModelError
from finetune.core.extras import require
from finetune.core.files import replace_folder, write_json
from finetune.core.run_dir import RunDir
from finetune.exporting import engine_checks
from finetune.exporting.card.write import CARD, ONNX_CARD, write_converted_card
from finetune.exporting.onnx.graphs import AudioGraph, DecoderGraph, EmbeddingGraph, frame_unit
from finetune.exporting.save import refuse_foreign_files, staged_folder
from finetune.model.granite import SpeechModel, load_model

log = logging.getLogger(__name__)

EXTRA = "onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
AUDIO, EMBEDDING, DECODER, SIZES = "audio.onnx", "embedding.onnx", "decoder.onnx", "onnx.json"
COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "limits.json",
    "adaptation.json",
)
OWN = {name for graph in (AUDIO, EMBEDDING, DECODER) for name in (graph, f"{graph}.data")} | {
    SIZES,
    CARD,
    engine_checks.FILE,
    *COPIED,
}
TOLERANCE = 1e-3  # of outputs, relative to the largest
MAX_UNITS, MAX_TOKENS = 600, 1 << 20  # larger than any clip and context


def check_packages() -> None:
    """Raises MissingExtraError if a package of the extra is missing."""
    for name in PACKAGES:
        require(name, extra=EXTRA)


def export_onnx(run: RunDir) -> Path:
    """Writes `export-onnx/` of a run whose merged model is in `export/`, in float32, and runs the graphs once.

    Raises:
        ModelError: a graph cannot be written, or its output differs from that of torch.
        CheckpointError: the folder has files that no export has written.
        MissingExtraError: a package of the extra `onnx` is missing.
    """
    folder = run.exported("onnx")
    refuse_foreign_files(folder, lambda path: path.name in OWN)
    check_packages()
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they warn about packages and folding that are not needed
        logging.getLogger(name).setLevel(logging.ERROR)
    model = load_model(str(run.export), "float32")
    with staged_folder(folder, keep=False) as staged, torch.no_grad():
        write_graphs(model, staged)
        for name in COPIED:
            if (run.export / name).is_file():
                shutil.copyfile(run.export / name, staged / name)
        write_json(staged / SIZES, sizes(model))
        write_converted_card(staged, run, ONNX_CARD)
        replace_folder(staged, folder)
    log.info("exported to %s", folder)
    return folder


def sizes(model: SpeechModel) -> dict[str, object]:
    """What a program needs to run the graphs."""
    llm = model.language_model
    return {
        "frame_unit": frame_unit(model),
        "window": int(model.window),
        "queries": int(model.queries),
        "end_token": int(model.tokenizer.eos_token_id),
        "empty_cache": [len(llm.layers), 2, int(llm.config.num_key_value_heads), 0, _head_size(model)],
    }


def write_graphs(model: SpeechModel, folder: Path) -> None:
    """Writes the three graphs and compares their outputs with torch, on inputs of two lengths each."""
    unit, dim = frame_unit(model), torch.export.Dim
    features = 0.5 * torch.randn(1, 2 * unit, 160, generator=torch.Generator().manual_seed(0))
    units = dim("units", min=1, max=MAX_UNITS)
    short = (features[:, :unit], torch.tensor([unit // 2 + 1]))
    _write(
        AudioGraph(model),
        folder / AUDIO,
        {"features": (features, {1: unit * units}), "frames": (torch.tensor([2 * unit - 7]), {})},
        ["embeds"],
        short,
    )
    ids = torch.arange(9)[None]
    _write(
        EmbeddingGraph(model),
        folder / EMBEDDING,
        {"ids": (ids, {1: dim("tokens", min=1, max=MAX_TOKENS)})},
        ["embeds"],
        (ids[:, :1],),
    )
    embeds = model.embed(ids)
    decoder = DecoderGraph(model)
    llm = model.language_model
    empty = torch.zeros(len(llm.layers), 2, llm.config.num_key_value_heads, 0, _head_size(model))
    _, cache = decoder(embeds[:, :4], empty)
    _write(
        decoder,
        folder / DECODER,
        {
            "embeds": (embeds[:, 4:], {1: dim("length", min=1, max=MAX_TOKENS)}),
            "cache": (cache, {3: dim("past", min=0, max=MAX_TOKENS)}),
        },
        ["logits", "new_cache"],
        (embeds, empty),
    )


def _head_size(model: SpeechModel) -> int:
    return int(model.language_model.layers[0].self_attn.head_dim)


def _write(
    graph: nn.Module,
    path: Path,
    inputs: dict[str, tuple[Tensor, dict[int, object]]],
    outputs: list[str],
    other: tuple[Tensor, ...],
) -> None:
    """Writes a graph and runs it on its inputs and on others.

    Args:
        graph: The module.
        path: The file; weights of more than 1 kB are in a file beside it.
        inputs: By name, a value and its dynamic dimensions.
        outputs: Names of the outputs.
        other: Values with other lengths.
    """
    values = tuple(value for value, _ in inputs.values())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.eval(),
                values,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=tuple(shape for _, shape in inputs.values()),
                dynamo=True,
                verbose=False,
            )
        assert program is not None, "dynamo returns a program"
        _without_traces(program.model)
        program.save(path, external_data=True)
        session = require("onnxruntime", extra=EXTRA).InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for chosen in (values, other):
            results = session.run(None, {name: value.numpy() for name, value in zip(inputs, chosen, strict=True)})
            expected = graph(*chosen)
            for a, b in zip(results, expected if isinstance(expected, tuple) else (expected,), strict=True):
                _compare(path, a, b.numpy())
    except (ModelError, OSError):
        raise
    except Exception as error:  # of torch, onnx and onnxruntime, of any type
        raise ModelError(f"--format onnx: {path.name} cannot be written ({str(error)[:500]})") from error


def _without_traces(model: Any) -> None:
    """Removes the stack trace of each node, which has the paths of this machine. `model` is an `onnx_ir.Model`."""
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()


def _compare(path: Path, actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    difference = float(np.abs(actual - expected).max(initial=0)) if actual.shape == expected.shape else float("nan")
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0))):
        raise ModelError(f"--format onnx: {path.name} gives other numbers in onnxruntime (difference {difference:.2g})")
