"""Reads config.json of a model folder or hub name, and refuses what is not a complete model of the family."""

import difflib
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig

from finetune.core.errors import ModelError
from finetune.core.layouts import LAYOUTS, hub_name_hint, unknown_alphabet, unsupported
from finetune.model.folder_checks import check_folder

NOT_FOUND = "not a folder here, and neither in the local cache nor on the hub, or the hub is not reachable"


def is_folder_name(source: str) -> bool:
    """Whether a model source is a local folder and not a hub name, which has at most one slash.

    Raises:
        ModelError: the source is empty, too long or has a null byte.
    """
    if not source:
        raise ModelError("the name of the model is empty; give a model folder or a hub name")
    try:
        exists = Path(source).exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name has a null byte"
        raise ModelError(f"{source[:60]!r}: not the name of a model ({reason})") from error
    return exists or source.startswith((".", "/", "~")) or source.count("/") > 1


def _model_suggestion(folder: Path) -> str:
    """The end of a message about a folder that is not a model: the run's export, a similar name, or general advice."""
    for run in (folder, folder.parent):
        if (run / "export" / "config.json").is_file():
            return f"did you mean {run / 'export'}?"
        if (run / "resolved.json").is_file():
            return f"{run} is a run without an export; run `finetune export {run / 'resolved.json'}` first"
    names = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    similar = difflib.get_close_matches(folder.name, names, 1) if not folder.exists() else []
    return f"did you mean {folder.parent / similar[0]}?" if similar else "give a model folder or a hub name"


def parse_config(content: dict[str, Any]) -> PreTrainedConfig:
    """The content of a config.json in the configuration class of its layout."""
    config_class = getattr(transformers, LAYOUTS[content["model_type"]].config_class)
    config: PreTrainedConfig = config_class.from_dict(content)
    return config


def read_config(source: str, revision: str | None = None) -> PreTrainedConfig:
    """Reads the configuration of a local folder or a hub name, in the class of its layout.

    Raises:
        ModelError: there is no model, the model is not supported, or a local folder has no weights.
    """
    folder = Path(source)
    if is_folder_name(source):
        if not (folder / "config.json").exists():
            problem = "no config.json in this folder" if folder.is_dir() else "no such folder"
            raise ModelError(f"{source[:200]}: {problem}; {_model_suggestion(folder)}")
        check_folder(folder)
    try:
        content, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
        config = None if unsupported(content) else parse_config(content)
    except Exception as error:  # transformers raises errors of any type for a wrong configuration
        # A name such as `data/nano` can be a folder or a hub name.
        if not folder.exists() and folder.parent != Path() and folder.parent.is_dir():
            problem = f"no such folder, and the hub does not give this model ({error})"
            raise ModelError(f"{source}: {problem}; {_model_suggestion(folder)}") from error
        if folder.exists() or not isinstance(error, OSError):
            raise ModelError(f"{source}: config.json: not a valid model configuration ({excerpt(error)})") from error
        raise ModelError(f"{source}: config.json: {NOT_FOUND} ({excerpt(error)}); {hub_name_hint(source)}") from error
    if config is None:
        raise ModelError(f"{source}: {unsupported(content)}")
    if reason := unknown_alphabet(config.encoder_config.output_dim):
        raise ModelError(f"{source}: config.json: {reason}")
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{source}: the weights are quantized (quantization_config in config.json); give the original model, and "
            "set model.quantize: 4bit"
        )
    return config


def excerpt(error: Exception) -> str:
    """The message of a library's error, short and on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
