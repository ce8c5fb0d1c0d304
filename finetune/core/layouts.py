"""The layouts of the Granite Speech family: model types, versions, files and weight names, from config.json alone.

Other files ask here. Sources: the configurations of granite-speech-3.3, granite-4.0-1b-speech, granite-speech-4.1-2b,
4.1-2b-plus (April and October 2026) and 5.0-2b, and the classes of transformers 5.23.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BPE_HEAD = "out_llm.safetensors"  # weights of a second CTC head, in 4.1 and 5.0
NOTEBOOK = (
    "https://github.com/ibm-granite/granite-speech-models/blob/main/notebooks/finetune_granite_speech_5_turboctc.ipynb"
)


@dataclass(frozen=True)
class Layout:
    """The classes of a model type in transformers."""

    config_class: str
    model_class: str


LAYOUTS = {
    "granite_speech": Layout("GraniteSpeechConfig", "GraniteSpeechForConditionalGeneration"),
    "granite_speech_plus": Layout("GraniteSpeechPlusConfig", "GraniteSpeechPlusForConditionalGeneration"),
}
HUB_NAMES = (  # of the supported models
    "ibm-granite/granite-4.0-1b-speech",
    "ibm-granite/granite-speech-3.3-2b",
    "ibm-granite/granite-speech-3.3-8b",
    "ibm-granite/granite-speech-4.1-2b",
    "ibm-granite/granite-speech-4.1-2b-plus",
    "ibm-granite/granite-speech-5.0-2b",
)
REFUSED = {
    "granite_speech5_ctc": "granite-speech-5.0-470m-turboctc is an encoder with a CTC head and has no language model; "
    f"this toolkit does not train it. Use IBM's notebook: {NOTEBOOK}",
    "nle": "granite-speech-4.1-2b-nar edits a CTC text in one pass with its own code; this toolkit does not train it. "
    "Use granite-speech-4.1-2b",
}
ALPHABETS = (256, 348)  # sizes of the character CTC head: code points (3.3), and katakana after them
LAYER_NAMES = {  # the setting with a number of layers, and how the weights of a layer are named
    ("text_config", "num_hidden_layers"): re.compile(r"language_model\.(?:model\.)*layers\.(\d+)\."),
    ("encoder_config", "num_layers"): re.compile(r"encoder\.layers\.(\d+)\.conv\."),
    ("projector_config", "num_hidden_layers"): re.compile(r"projector\.qformer\.encoder\.layer\.(\d+)\."),
}


def hub_name_hint(name: str) -> str:
    """What to write instead of a hub name that is not there: the most similar name of the family, or all of them."""
    similar = difflib.get_close_matches(name, HUB_NAMES, 1, cutoff=0.7)
    if similar and similar[0] != name:
        return f"did you mean {similar[0]}?"
    return f"models of the family: {', '.join(HUB_NAMES)}"


def unsupported(config: Mapping[str, Any]) -> str:
    """Why a configuration is not a model that this toolkit supports; "" if it is one."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in LAYOUTS:
        reason = REFUSED.get(kind) if isinstance(kind, str) else None
        return f"model_type is {str(kind)[:80]!r}; " + (reason or f"this toolkit supports only {' and '.join(LAYOUTS)}")
    projector = _mapping(config.get("projector_config")).get("model_type")
    if projector == "granite_speech_qformer":
        return "the projector is that of granite-speech-3.2, which needs its own code; use granite-speech-3.3"
    return ""


def unknown_alphabet(num_labels: object) -> str:
    """Why the character CTC head of a model cannot be read; "" if it can."""
    if num_labels in ALPHABETS:
        return ""
    return f"encoder_config.output_dim is {str(num_labels)[:40]}; the CTC alphabet is known for {ALPHABETS} labels only"


def version_of(source: str, config: Mapping[str, Any], has_bpe_head: bool) -> str:
    """The version of a base model or of a model trained from it, such as 4.0.

    The files decide if they can, because an export has the name of its run; then the name, which is all that is known
    of a model on the hub.

    Args:
        source: hub name or folder; its last part can state the version, as in `granite-speech-4.1-2b`.
        config: the content of its config.json.
        has_bpe_head: whether it has a second CTC head (BPE_HEAD), as 4.1 and 5.0.
    """
    if config.get("model_type") == "granite_speech_plus":
        return "4.1-plus"
    encoder, text = _mapping(config.get("encoder_config")), _mapping(config.get("text_config"))
    if config.get("has_lora_adapter") or encoder.get("output_dim") == ALPHABETS[0]:
        return "3.3"
    if is_yarn(_mapping(text.get("rope_parameters")) or _mapping(text.get("rope_scaling"))):
        return "5.0"
    name = re.split(r"[/\\]", source.rstrip("/\\"))[-1].lower()
    stated = re.search(r"granite.*?(?<!\d)(3\.3|4\.0|4\.1|5\.0)(?!\d)(.*)", name)
    if stated:
        return "4.1-plus" if stated[1] == "4.1" and "plus" in stated[2] else stated[1]
    return "4.1" if has_bpe_head else "4.0"


def is_yarn(rope: Mapping[str, Any]) -> bool:
    """Whether rotary positions are extended by YaRN (arXiv 2309.00071), from the rope settings of text_config."""
    return "yarn" in (rope.get("rope_type"), rope.get("type"))


def max_positions(stated: int, rope: Mapping[str, Any]) -> int:
    """Context length: `max_position_embeddings`, or for YaRN the length that it was extended to if that is longer."""
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    if is_yarn(rope) and original and factor:
        return max(stated, int(original * factor))
    return stated


def plain_name(name: str) -> str:
    """A weight's name without the parts that differ between hub files, PEFT files and transformers' modules.

    `language_model.model.layers.0...` (hub), `model.language_model.layers.0...` (transformers since 5.10) and
    `base_model.model.language_model.model.layers.0...` (PEFT) all give `language_model.layers.0...`.
    """
    return re.sub(r"^(?:base_model\.)?(?:model\.)*(language_model\.)?(?:model\.)*", r"\1", name)


def _mapping(value: object) -> Mapping[str, Any]:
    """A mapping; an empty one for another type, in a damaged file that loading the model will report."""
    return value if isinstance(value, Mapping) else {}
