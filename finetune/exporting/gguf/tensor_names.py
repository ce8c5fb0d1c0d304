"""Tensor names of Granite Speech in llama.cpp's GGUF files, from those of the hub layout.

A model is two files: the language model (architecture `granite`), and encoder with projector (`mmproj`, projector type
`granite_speech`). The names are those that llama.cpp reads (src/llama-arch.cpp, tools/mtmd/clip-impl.h).
"""

import re
from collections.abc import Mapping, Sequence

Layers = Sequence[tuple[re.Pattern[str], str, Mapping[str, str]]]

ENCODER_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
PROJECTOR_LAYER = re.compile(r"projector\.qformer\.encoder\.layer\.(\d+)\.(.+)")
TEXT_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
TEXT_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
TEXT_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
AUDIO_NAMES = {
    "encoder.input_linear": "a.input_projection",
    "encoder.out": "a.enc_ctc_out",
    "encoder.out_mid": "a.enc_ctc_out_mid",
    "projector.query": "a.proj_query",
    "projector.qformer.layernorm": "a.proj_norm",
    "projector.linear": "a.proj_linear",
}
ENCODER_LAYER_NAMES = {
    "ff1.pre_norm": "ffn_norm",
    "ff1.up_proj": "ffn_up",
    "ff1.down_proj": "ffn_down",
    "attn.pre_norm": "ln1",
    "attn.to_q": "attn_q",
    "attn.to_k": "attn_k",  # `to_kv` is split
    "attn.to_v": "attn_v",
    "attn.to_out": "attn_out",
    "attn.rel_pos_emb": "attn_rel_pos_emb",
    "conv.norm": "norm_conv",
    "conv.up_conv": "conv_pw1",
    "conv.depth_conv.conv": "conv_dw",
    "conv.batch_norm": "conv_norm",
    "conv.down_conv": "conv_pw2",
    "ff2.pre_norm": "ffn_norm_1",
    "ff2.up_proj": "ffn_up_1",
    "ff2.down_proj": "ffn_down_1",
    "post_norm": "ln2",
}
PROJECTOR_LAYER_NAMES = {
    "attention.attention.query": "self_attn_q",
    "attention.attention.key": "self_attn_k",
    "attention.attention.value": "self_attn_v",
    "attention.output.dense": "self_attn_out",
    "attention.output.LayerNorm": "self_attn_norm",
    "crossattention.attention.query": "cross_attn_q",
    "crossattention.attention.key": "cross_attn_k",
    "crossattention.attention.value": "cross_attn_v",
    "crossattention.output.dense": "cross_attn_out",
    "crossattention.output.LayerNorm": "cross_attn_norm",
    "intermediate_query.dense": "ffn_up",
    "output_query.dense": "ffn_down",
    "output_query.LayerNorm": "ffn_norm",
}
BARE = ("attn_rel_pos_emb",)  # without `.weight`
LAYERS = (
    (ENCODER_LAYER, "a.blk", ENCODER_LAYER_NAMES),
    (PROJECTOR_LAYER, "a.proj_blk", PROJECTOR_LAYER_NAMES),
    (TEXT_LAYER, "blk", TEXT_LAYER_NAMES),
)


def gguf_name(name: str) -> str:
    """The GGUF name of a tensor, such as `blk.3.attn_q.weight`, from that of the hub layout.

    Raises:
        KeyError: llama.cpp has no such tensor.
    """
    if name == "projector.query":
        return "a.proj_query"
    full_name = renamed(name, TEXT_NAMES | AUDIO_NAMES, LAYERS)
    bare, _, _ = full_name.rpartition(".")
    return bare if bare.endswith(BARE) else full_name


def renamed(name: str, modules: Mapping[str, str], layers: Layers) -> str:
    """A tensor's name in a GGUF file, from that of the hub layout.

    Args:
        name: The name of the hub layout; `language_model.` at its start is ignored.
        modules: Names of modules that are in no layer.
        layers: For modules in layers: a pattern with the number of the layer and the rest of the name, what replaces
            the part before the number, and the names for the rest.

    Raises:
        KeyError: the name has no counterpart.
    """
    module, _, parameter = name.removeprefix("language_model.").rpartition(".")
    for pattern, prefix, names in layers:
        if match := pattern.fullmatch(module):
            return f"{prefix}.{match[1]}.{names[match[2]]}.{parameter}"
    return f"{modules[module]}.{parameter}"
