"""Metadata of the GGUF file of CrispASR: sizes and scales of encoder, projector and language model."""

import math
from typing import Any

from finetune.core.errors import ModelError
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import NUM_MELS
from finetune.exporting.gguf.metadata import ACTIVATION, YARN_DEFAULTS, rope_of

ARCHITECTURE = "granite_speech"
FIXED = ("truncate", "mscale", "mscale_all_dim")  # settings of YaRN that the file cannot state


def add_sizes(writer: Any, config: dict[str, Any]) -> None:
    """Sizes and scales of all parts.

    Raises:
        ModelError: the activation is not SiLU, or the positions are scaled in another way than by YaRN.
    """
    encoder, projector, text = config["encoder_config"], config["projector_config"], config["text_config"]
    if text["hidden_act"] != ACTIVATION:
        raise ModelError(f"config.json: hidden_act {text['hidden_act']!r}; CrispASR's Granite has only {ACTIVATION}")
    heads = text["num_attention_heads"]
    numbers = {
        "sample_rate": SAMPLE_RATE,
        "n_mels": NUM_MELS,
        "enc.n_layers": encoder["num_layers"],
        "enc.d_model": encoder["hidden_dim"],
        "enc.n_heads": encoder["num_heads"],
        "enc.head_dim": encoder["dim_head"],
        "enc.input_dim": encoder["input_dim"],
        "enc.conv_kernel": encoder["conv_kernel_size"],
        "enc.ff_dim": encoder["hidden_dim"] * encoder["feedforward_mult"],
        "enc.context_size": encoder["context_size"],
        "enc.max_pos_emb": encoder["max_pos_emb"],
        "proj.n_layers": projector["num_hidden_layers"],
        "proj.d_model": projector["hidden_size"],
        "proj.n_heads": projector["num_attention_heads"],
        "proj.ff_dim": projector["intermediate_size"],
        "proj.encoder_hidden_size": projector["encoder_hidden_size"],
        "llm.n_layers": text["num_hidden_layers"],
        "llm.d_model": text["hidden_size"],
        "llm.n_heads": heads,
        "llm.n_kv_heads": text["num_key_value_heads"],
        "llm.head_dim": text.get("head_dim") or text["hidden_size"] // heads,
        "llm.ff_dim": text["intermediate_size"],
        "llm.vocab_size": text["vocab_size"],
        "downsample_rate": config["downsample_rate"],
        "window_size": config["window_size"],
        "audio_token_index": config["audio_token_index"],
    }
    for key, value in numbers.items():
        writer.add_uint32(f"{ARCHITECTURE}.{key}", value)
    for key in (
        "rms_norm_eps",
        "embedding_multiplier",
        "attention_multiplier",
        "residual_multiplier",
        "logits_scaling",
    ):
        writer.add_float32(f"{ARCHITECTURE}.llm.{key}", text[key])
    _add_rope(writer, text)
    if layers := encoder.get("cat_hidden_layers"):
        writer.add_string(f"{ARCHITECTURE}.proj.cat_layers", ",".join(map(str, layers)))


def _add_rope(writer: Any, text: dict[str, Any]) -> None:
    rope, kind, theta = rope_of(text)
    writer.add_float32(f"{ARCHITECTURE}.llm.rope_theta", theta)
    if kind == "default":
        return
    if kind != "yarn":
        raise ModelError(f"config.json: positions of type {kind!r} are not known to the export for CrispASR")
    for key in FIXED:
        if rope.get(key, YARN_DEFAULTS[key]) not in (YARN_DEFAULTS[key], None):
            raise ModelError(f"config.json: YaRN with {key} {rope[key]} is not known to the export for CrispASR")
    scaling = f"{ARCHITECTURE}.llm.rope_scaling"
    writer.add_string(f"{scaling}.type", kind)
    writer.add_uint32(f"{scaling}.original_context", rope["original_max_position_embeddings"])
    writer.add_float32(f"{scaling}.factor", rope["factor"])
    usual = 0.1 * math.log(rope["factor"]) + 1  # of transformers
    writer.add_float32(f"{scaling}.attention_factor", rope.get("attention_factor") or usual)
    for key in ("beta_fast", "beta_slow"):
        writer.add_float32(f"{scaling}.{key}", rope.get(key) or YARN_DEFAULTS[key])
