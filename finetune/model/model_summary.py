"""Counts the parameters of a base model and of its trainable parts, on the meta device, without reading weights."""

from pathlib import Path

import torch

from finetune.core.errors import ModelError
from finetune.model.granite import SpeechModel, check_size, is_folder_name, on_meta, read_config
from finetune.model.trainable import TrainableParts, open_parts, summarize_parts


def count_parts(model: SpeechModel) -> dict[str, int]:
    """Number of parameters of encoder, projector, language model body and head."""
    parts = {
        "encoder": model.encoder,
        "projector": model.projector,
        "language model": model.language_model,
        "lm_head": model.lm_head,
    }
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def summarize_model(base: str, revision: str | None, parts: TrainableParts) -> list[str]:
    """Lines for `finetune check`: the parts of the base model, then the trainable parts, with parameter counts.

    If `base` is a hub name and its configuration cannot be read, the only line is this error.

    Raises:
        ModelError: `parts` names modules or layers that the base does not have, or a local folder is not a model.
    """
    try:
        config = read_config(base, revision)
    except ModelError as error:
        parent = Path(base).parent
        if is_folder_name(base) or (parent != Path() and parent.is_dir()):  # a wrong path, not a hub name
            raise
        return [f"base model not checked: {str(error).splitlines()[0]}"]
    check_size(config, Path(base))
    model = on_meta(config, base)
    lines = [f"{name:15} {count:>15,} parameters" for name, count in count_parts(model).items()]
    with torch.device("meta"):
        open_parts(model, parts)
    trainable = [
        f"{row.part:15} {row.parameters:>15,} parameters  in {row.tensors} tensors of {row.modules} modules"
        for row in summarize_parts(model)
    ]
    return [*lines, "", "trainable:", *trainable]
