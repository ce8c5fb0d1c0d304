"""Tensor names of Granite Speech in the GGUF file of CrispASR, from those of the hub layout.

One file holds all parts. The names are those that CrispASR reads (src/granite_speech.cpp).
"""

from finetune.exporting.gguf.tensor_names import (
    ENCODER_LAYER,
    PROJECTOR_LAYER,
    TEXT_LAYER,
    TEXT_LAYER_NAMES,
    TEXT_NAMES,
    renamed,
)

QUERY = "proj.query"
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
NAMES = TEXT_NAMES | {
    "encoder.input_linear": "enc.input",
    "encoder.out": "enc.ctc_out",
    "encoder.out_mid": "enc.ctc_mid",
    "projector.qformer.layernorm": "proj.ln",
    "projector.linear": "proj.linear",
}
ENCODER_LAYER_NAMES = {
    "ff1.pre_norm": "ff1_norm",
    "ff1.up_proj": "ff1_up",
    "ff1.down_proj": "ff1_down",
    "attn.pre_norm": "attn_norm",
    "attn.to_q": "attn_q",
    "attn.to_kv": "attn_kv",
    "attn.to_out": "attn_out",
    "attn.rel_pos_emb": "attn_rel_pos",
    "conv.norm": "conv_norm",
    "conv.up_conv": "conv_up",
    "conv.depth_conv.conv": "conv_dw",
    "conv.batch_norm": "conv_bn",
    "conv.down_conv": "conv_down",
    "ff2.pre_norm": "ff2_norm",
    "ff2.up_proj": "ff2_up",
    "ff2.down_proj": "ff2_down",
    "post_norm": "post_norm",
}
PROJECTOR_LAYER_NAMES = {
    "attention.attention.query": "sa_query",
    "attention.attention.key": "sa_key",
    "attention.attention.value": "sa_value",
    "attention.output.dense": "sa_out",
    "attention.output.LayerNorm": "sa_norm",
    "crossattention.attention.query": "ca_query",
    "crossattention.attention.key": "ca_key",
    "crossattention.attention.value": "ca_value",
    "crossattention.output.dense": "ca_out",
    "crossattention.output.LayerNorm": "ca_norm",
    "intermediate_query.dense": "ffn_up",
    "output_query.dense": "ffn_down",
    "output_query.LayerNorm": "ffn_norm",
}
LAYERS = (
    (ENCODER_LAYER, "enc.blk", ENCODER_LAYER_NAMES),
    (PROJECTOR_LAYER, "proj.blk", PROJECTOR_LAYER_NAMES),
    (TEXT_LAYER, "blk", TEXT_LAYER_NAMES),
)


def crispasr_name(name: str) -> str:
    """The name of a tensor, such as `enc.blk.3.attn_q.weight`, from that of the hub layout.

    Raises:
        KeyError: CrispASR has no such tensor.
    """
    if name == "projector.query":
        return QUERY
    stored = renamed(name, NAMES, LAYERS)
    if stored.startswith("blk.") and stored.endswith(".bias"):  # its language model ignores them
        raise KeyError(name)
    return stored
