"""A base model with random weights in the dimensions of granite-4.0-1b-speech, or in tiny ones, in hub layout."""

import math
import shutil
from pathlib import Path

import torch
from torch import Tensor

from finetune.core.files import read_json, write_json
from finetune.exporting.shards import TensorSpec, write_weights
from finetune.model.granite import on_meta
from finetune.model.weight_files import hub_name

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "data" / "granite-speech-nano"
CONFIG = ROOT / "tests" / "fixtures" / "granite-4.0-1b-speech" / "config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
SHARD = 1_990_000_000
BLOCK = 4_194_301  # random numbers that are repeated; a prime number, so that no two rows of a matrix are equal
TINY: dict[str, dict[str, float]] = {
    "encoder_config": {"num_layers": 2, "hidden_dim": 64, "num_heads": 2, "dim_head": 32},
    "projector_config": {
        "num_hidden_layers": 1,
        "hidden_size": 64,
        "encoder_hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
    },
    "text_config": {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attention_multiplier": 1 / 16,
    },
}


def config_of(tiny: bool) -> dict[str, object]:
    """The real configuration with the special tokens of the embedded tokenizer, which stands in for the real one."""
    content, nano = read_json(CONFIG), read_json(NANO / "config.json")
    content["audio_token_index"] = nano["audio_token_index"]
    content["text_config"] |= {
        key: nano["text_config"][key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    if tiny:
        content["text_config"]["vocab_size"] = nano["text_config"]["vocab_size"]
        for section, values in TINY.items():
            content[section] |= values
    return content


def write_base(folder: Path, tiny: bool = False) -> int:
    """Writes the base model in bfloat16, one tensor after the other. Returns the number of its parameters.

    Args:
        folder: a new folder.
        tiny: few and small layers instead of the real ones, for tests.
    """
    from transformers import GraniteSpeechConfig

    folder.mkdir(parents=True)
    for name in TOKENIZER:
        shutil.copyfile(NANO / name, folder / name)
    write_json(folder / "config.json", config_of(tiny))
    torch.manual_seed(1)
    block = torch.randn(BLOCK).mul(0.02).bfloat16()
    model = on_meta(GraniteSpeechConfig.from_pretrained(folder), str(folder)).hf
    specs = {
        hub_name(name): TensorSpec(torch.int64 if "num_batches" in name else torch.bfloat16, tuple(value.shape))
        for name, value in model.state_dict().items()
    }

    def tensor(name: str) -> Tensor:
        spec = specs[name]
        if spec.dtype == torch.int64 or "running_mean" in name or name.endswith("bias"):
            return torch.zeros(spec.shape, dtype=spec.dtype)
        if "running_var" in name or (name.endswith("weight") and len(spec.shape) == 1):
            return torch.ones(spec.shape, dtype=spec.dtype)
        return block.repeat(-(-spec.bytes // block.nbytes))[: math.prod(spec.shape)].view(spec.shape)

    write_weights(folder, specs, SHARD, tensor, lambda size: None)
    return sum(value.numel() for value in model.parameters())
