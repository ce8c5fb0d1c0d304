"""The layouts of the Granite Speech family: their configurations in full size, and folders of tiny random models.

Sources of the configurations: config.json of granite-speech-3.3-2b and 3.3-8b (text_config: that of
granite-3.3-instruct), 4.1-2b and 4.1-2b-plus; for 5.0-2b and the plus model of October 2026, mlx-audio 0.6.2.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoTokenizer

from finetune.core.layouts import BPE_HEAD
from finetune.model.load_weights import model_class
from finetune.model.model_config import parse_config

ROOT = Path(__file__).resolve().parent
NANO = ROOT.parent / "data" / "granite-speech-nano"
REAL = json.loads((ROOT / "fixtures" / "granite-4.0-1b-speech" / "config.json").read_text(encoding="utf-8"))
RANK, ALPHA = 64, 32
ROLES = (  # the role template of granite-3.3-instruct and of 4.1-2b-plus; its default system turn depends on the day
    "{% if messages[0]['role'] != 'system' %}<|start_of_role|>system<|end_of_role|>Today's Date: {{ 'now' }}."
    "<|end_of_text|>\n{% endif %}{% for message in messages %}<|start_of_role|>{{ message['role'] }}<|end_of_role|>"
    "{{ message['content'] }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "rope_theta": 10000.0}


def changed(config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of a configuration with other values; a mapping changes some values of a section."""
    result = copy.deepcopy(dict(config))
    for key, value in changes.items():
        result[key] = {**result.get(key, {}), **value} if isinstance(value, Mapping) else value
    return result


def _granite_3_3(**text: Any) -> dict[str, Any]:
    plain = {key: value for key, value in REAL.items() if key != "tie_word_embeddings"}  # true by default
    shared = {
        "vocab_size": 49160, "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 1e7,
        "max_position_embeddings": 131072, "tie_word_embeddings": True,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    return changed(
        plain, has_lora_adapter=True, audio_token_index=49159, encoder_config={"output_dim": 256},
        text_config={**shared, **text},
    )  # fmt: skip


CONFIGS: dict[str, dict[str, Any]] = {
    "3.3-2b": _granite_3_3(hidden_size=2048, intermediate_size=8192, attention_multiplier=0.015625, logits_scaling=8.0),
    "3.3-8b": _granite_3_3(
        hidden_size=4096, intermediate_size=12800, attention_multiplier=0.0078125, logits_scaling=16.0
    ),
    "4.0-1b": REAL,
    "4.1-2b": changed(REAL, projector_config={"max_position_embeddings": 2048}),
    "4.1-2b-plus": changed(
        REAL,
        model_type="granite_speech_plus",
        architectures=["GraniteSpeechPlusForConditionalGeneration"],
        tie_word_embeddings=True,
        encoder_config={"cat_hidden_layers": [3], "model_type": "granite_speech_plus_encoder"},
        projector_config={"encoder_hidden_size": 2048},
        text_config={"tie_word_embeddings": True},
    ),
    "5.0-2b": changed(REAL, text_config={"max_position_embeddings": 16384, "rope_parameters": YARN}),
}
CONFIGS["4.1-2b-plus October"] = changed(
    CONFIGS["4.1-2b-plus"], text_config={"max_position_embeddings": 16384, "rope_parameters": YARN}
)
WITH_BPE_HEAD = ("4.1-2b", "5.0-2b")
VERSIONS = {name: name.split()[0].replace("-2b", "").replace("-8b", "").replace("-1b", "") for name in CONFIGS}


def tiny_config(name: str, ids: Mapping[str, int]) -> dict[str, Any]:
    """The configuration of a layout with few layers, small widths and another vocabulary."""
    config = CONFIGS[name]
    text, encoder_states = config["text_config"], config["projector_config"]["encoder_hidden_size"] // 1024
    return changed(
        config,
        audio_token_index=ids["audio"],
        encoder_config={"num_layers": 6, "hidden_dim": 32, "num_heads": 2, "dim_head": 16},
        projector_config={
            "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64,
            "encoder_hidden_size": 32 * encoder_states,
        },
        text_config={
            "num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 96, "num_key_value_heads": 1,
            "num_attention_heads": text["num_attention_heads"] // text["num_key_value_heads"],
            "attention_multiplier": 0.25, "vocab_size": ids["size"],
            "bos_token_id": ids["eos"], "eos_token_id": ids["eos"], "pad_token_id": ids["pad"],
        },
        torch_dtype="float32",
    )  # fmt: skip


def make_tokenizer(folder: Path, roles: bool) -> dict[str, int]:
    """Writes the embedded model's tokenizer, with the role tokens and their template if `roles`. Returns ids."""
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    if roles:
        tokens = [AddedToken(f"<|{name}|>", special=True) for name in ("start_of_role", "end_of_role")]
        tokenizer.add_special_tokens({"additional_special_tokens": tokens})
        tokenizer.chat_template = ROLES
    tokenizer.save_pretrained(folder)
    audio = tokenizer.convert_tokens_to_ids("<|audio|>")
    return {"audio": audio, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id, "size": len(tokenizer)}


def make_model(name: str, folder: Path, seed: int = 5) -> Path:
    """Writes a tiny model of a layout with random weights, in the files of the hub; greedy text does not loop."""
    folder.mkdir(parents=True)
    config = tiny_config(name, make_tokenizer(folder, roles=name.startswith("3.3") or "plus" in name))
    parsed = parse_config(config)
    torch.manual_seed(seed)
    hf = model_class(parsed)(parsed)
    with torch.no_grad():
        # A tied head would repeat the last token if its embedding were large in the residual stream.
        layers, head = (0.3, 0.01) if hf.config.tie_word_embeddings else (0.15, 1.0)
        for parameter in hf.model.language_model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, layers)
        hf.lm_head.weight.normal_(0, head)
        hf.lm_head.weight[config["audio_token_index"]] = 0
        for buffer in (value for key, value in hf.named_buffers() if "running_" in key):
            buffer.uniform_(0.5, 1.5)
    hf.config.has_lora_adapter = False
    hf.save_pretrained(folder, max_shard_size="200KB" if name == "4.1-2b" else "1GB")
    (folder / "config.json").write_text(json.dumps(config))
    if config["has_lora_adapter"]:
        make_adapter(folder)
    if name in WITH_BPE_HEAD:
        make_bpe_head(folder, torch.randn(config["text_config"]["vocab_size"], 32))
    if name.endswith("October"):
        rename(folder / "model.safetensors", "language_model.model.", "language_model.model.model.")
    return folder


def make_adapter(folder: Path) -> None:
    """Writes a LoRA adapter as in granite-speech-3.3: on q_proj and v_proj, with the names of older transformers."""
    weights, adapter = load_file(folder / "model.safetensors"), {}
    for name, value in weights.items():
        if name.startswith("language_model.") and name.endswith(("q_proj.weight", "v_proj.weight")):
            key = f"base_model.model.{name.removesuffix('.weight')}"
            adapter[f"{key}.lora_A.weight"] = 0.2 * torch.randn(RANK, value.shape[1])
            adapter[f"{key}.lora_B.weight"] = 0.2 * torch.randn(value.shape[0], RANK)
    save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.1,
        "target_modules": ["q_proj", "v_proj"], "bias": "none", "inference_mode": True, "fan_in_fan_out": False,
        "base_model_name_or_path": "ibm-granite/granite-speech-3.3-2b", "use_dora": False, "use_rslora": False,
        "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "init_lora_weights": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


def make_bpe_head(folder: Path, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """Writes the second CTC head."""
    bias = torch.zeros(len(weight)) if bias is None else bias
    save_file({"weight": weight.contiguous(), "bias": bias.contiguous()}, folder / BPE_HEAD, metadata={"format": "pt"})


def rename(path: Path, old: str, new: str) -> None:
    """Renames the beginning of the names of weights in a file."""
    weights = {new + name.removeprefix(old) if name.startswith(old) else name: v for name, v in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
