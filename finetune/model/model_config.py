"""Reads config.json of a model folder or hub name, and refuses what is not a complete model of the family."""

from typing import Any

import transformers
from transformers import PreTrainedConfig

from finetune.core.errors import ModelError
from finetune.core.layouts import LAYOUTS, unknown_alphabet, unsupported
from finetune.model.model_source import check_source, excerpt


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
    check_source(source, revision)
    try:
        content, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
        config = None if unsupported(content) else parse_config(content)
    except Exception as error:  # transformers raises errors of any type for a wrong configuration
        raise ModelError(f"{source}: config.json: not a valid model configuration ({excerpt(error)})") from error
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
