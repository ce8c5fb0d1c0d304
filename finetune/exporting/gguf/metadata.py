"""Metadata of both GGUF files: sizes and scales of the language model, tokenizer, sizes of encoder and projector."""

import json
from pathlib import Path
from typing import Any

from finetune.core.errors import ModelError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's types of tokens
QUERY_LAYERS = 2  # of the projector; llama.cpp reads exactly two
LAYER_NORM_EPS = 1e-5
ACTIVATION = "silu"  # of the language model
# Of transformers, which llama.cpp computes with too. None in a configuration is the default.
YARN_DEFAULTS = {
    "beta_fast": 32,
    "beta_slow": 1,
    "truncate": True,
    "attention_factor": None,
    "mscale": None,
    "mscale_all_dim": None,
}
# llama.cpp implements the splitting of text before BPE once for each model family, and knows it by name.
DIGITS_BY_THREE = r"\p{N}{1,3}"
SPLITTERS = "the tokenizer splits text in a way that this export does not know"


def add_text_metadata(writer: Any, config: dict[str, Any], name: str) -> None:
    """Architecture `granite` with its four scales.

    Args:
        writer: A `gguf.GGUFWriter`.
        config: The whole config.json.
        name: Name of the model.

    Raises:
        ModelError: the activation is not SiLU, or the positions are scaled in a way other than YaRN with the usual
            values.
    """
    text = config["text_config"]
    if text["hidden_act"] != ACTIVATION:
        raise ModelError(f"config.json: hidden_act {text['hidden_act']!r}; llama.cpp's Granite has only {ACTIVATION}")
    usual_size = text["hidden_size"] // text["num_attention_heads"]
    head_size = text.get("head_dim") or usual_size
    if head_size != usual_size:
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    writer.add_name(name)
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_vocab_size(text["vocab_size"])
    writer.add_rope_dimension_count(head_size)
    writer.add_attention_scale(text["attention_multiplier"])
    writer.add_embedding_scale(text["embedding_multiplier"])
    writer.add_residual_scale(text["residual_multiplier"])
    writer.add_logit_scale(text["logits_scaling"])
    _add_rope(writer, text)


def _add_rope(writer: Any, text: dict[str, Any]) -> None:
    from gguf import RopeScalingType

    rope, kind, theta = rope_of(text)
    writer.add_rope_freq_base(theta)
    if kind == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for key, default in YARN_DEFAULTS.items():
            if rope.get(key, default) not in (default, None):
                raise ModelError(f"config.json: YaRN with {key} {rope[key]} is not known to the GGUF export")
    elif kind != "default":
        raise ModelError(f"config.json: positions of type {kind!r} are not known to the GGUF export")


def rope_of(text: dict[str, Any]) -> tuple[dict[str, Any], str, float]:
    """The rotary positions of a `text_config`: all their settings, the type (`default`, `yarn`, ...) and theta."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return rope, rope.get("rope_type", "default"), rope.get("rope_theta") or text["rope_theta"]


def add_audio_metadata(writer: Any, config: dict[str, Any], name: str) -> None:
    """Projector type `granite_speech`.

    Raises:
        ModelError: llama.cpp's implementation does not cover this encoder or projector.
    """
    from gguf import VisionProjectorType

    encoder, projector = config["encoder_config"], config["projector_config"]
    if projector["num_hidden_layers"] != QUERY_LAYERS or projector["hidden_size"] != encoder["hidden_dim"]:
        raise ModelError(
            f"llama.cpp expects a projector of {QUERY_LAYERS} layers that is as wide as the encoder "
            f"({encoder['hidden_dim']}); this one has {projector['num_hidden_layers']} layers of "
            f"{projector['hidden_size']}"
        )
    writer.add_name(name)
    writer.add_clip_has_audio_encoder(True)
    writer.add_clip_projector_type(VisionProjectorType.GRANITE_SPEECH)
    writer.add_audio_projection_dim(config["text_config"]["hidden_size"])
    writer.add_audio_embedding_length(encoder["hidden_dim"])
    writer.add_audio_feed_forward_length(encoder["hidden_dim"] * encoder["feedforward_mult"])
    writer.add_audio_block_count(encoder["num_layers"])
    writer.add_audio_head_count(encoder["num_heads"])
    writer.add_audio_num_mel_bins(encoder["input_dim"])
    writer.add_audio_attention_layernorm_eps(LAYER_NORM_EPS)
    writer.add_audio_chunk_size(encoder["context_size"])
    writer.add_audio_conv_kernel_size(encoder["conv_kernel_size"])
    writer.add_audio_max_pos_emb(encoder["max_pos_emb"])
    writer.add_audio_projector_window_size(config["window_size"])
    writer.add_audio_projector_downsample_rate(config["downsample_rate"])
    writer.add_audio_projector_head_count(projector["num_attention_heads"])
    if layers := encoder.get("cat_hidden_layers"):
        writer.add_array("clip.audio.feature_layer", list(layers))


def add_tokenizer(writer: Any, folder: Path, config: dict[str, Any]) -> dict[str, int]:
    """The byte-level BPE vocabulary with its merges, special tokens and chat template.

    Returns:
        The ids of the special tokens that the model has: `bos`, `eos`, `pad`.

    Raises:
        ModelError: the tokenizer is of another kind.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise ModelError(f"{folder / 'tokenizer.json'}: the GGUF export needs byte-level BPE, not {model.get('type')}")
    size = config["text_config"]["vocab_size"]
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for token, index in model["vocab"].items():
        tokens[index], types[index] = token, NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], CONTROL if added["special"] else USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitter(tokenizer, folder))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    special = dict[str, int]()
    for kind, write in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        if (token := _special_token(folder, kind, tokens, config["text_config"])) is not None:
            special[kind] = token
            write(token)
    writer.add_add_bos_token(False)
    if template := _chat_template(folder):
        writer.add_chat_template(template)
    return special


def _special_token(folder: Path, kind: str, tokens: list[str], text: dict[str, Any]) -> int | None:
    """The token `bos`, `eos` or `pad`: that of the tokenizer, with which this toolkit decodes, else of config.json."""
    stored = _tokenizer_config(folder).get(f"{kind}_token")
    name = stored.get("content") if isinstance(stored, dict) else stored
    if name in tokens:
        return tokens.index(name)
    token = text.get(f"{kind}_token_id")
    return token if isinstance(token, int) else None


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _chat_template(folder: Path) -> str:
    """The chat template, which older folders have in tokenizer_config.json; "" if there is none, or several."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    stored = _tokenizer_config(folder).get("chat_template")
    return stored if isinstance(stored, str) else ""


def _splitter(tokenizer: dict[str, Any], folder: Path) -> str:
    """The name of llama.cpp's implementation of the tokenizer's pre-tokenizer."""
    parts = tokenizer["pre_tokenizer"].get("pretokenizers", [tokenizer["pre_tokenizer"]])
    kinds = [part["type"] for part in parts]
    if kinds == ["Split", "ByteLevel"] and DIGITS_BY_THREE in parts[0]["pattern"].get("Regex", ""):
        return "dbrx"
    if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"]:
        return "refact"
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    raise ModelError(f"{folder / 'tokenizer.json'}: {SPLITTERS} ({', '.join(kinds)})")
