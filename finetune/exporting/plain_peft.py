"""Loads an exported adapter as a user would: with PEFT and transformers alone."""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open

from finetune.core.errors import ModelError
from finetune.core.files import read_json
from finetune.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from finetune.model.float32 import compute_in_float32
from finetune.model.granite import SpeechModel

FRAMES, AUDIO_TOKENS, TEXT_TOKENS = 30, 6, 20  # the input of the self-check; two windows of the projector
LOADING = """import torch
from peft import PeftModel
from transformers import {class_name}

base = {class_name}.from_pretrained({base!r}, {revision}dtype=torch.float32)
model = PeftModel.from_pretrained(base, FOLDER).eval()  # FOLDER: the path or hub name of this adapter
"""
SELF_CHECK = """ids = torch.tensor([[{audio_token}] * {audio_tokens} + list(range({text_tokens}))])
features = torch.linspace(-1, 1, {frames} * 160).view(1, {frames}, 160)
mask = torch.ones(1, {audio_tokens}, dtype=torch.bool)
with torch.no_grad():
    logits = model(input_ids=ids, input_features=features, input_features_mask=mask).logits[0, -1]
print([round(value, 3) for value in (logits[:4] / logits.std()).tolist()])
"""


def load_with_peft(model: SpeechModel, folder: Path) -> list[list[float]]:
    """Adds an adapter to a newly loaded base model, in place; then the model computes in float32.

    Returns:
        What `SELF_CHECK` prints without and with the adapter.

    Raises:
        ModelError: a key of the adapter has no place in the model, or a place has no key; PEFT only warns.
    """
    for name in read_json(folder / ADAPTER_CONFIG)["modules_to_save"] or []:
        model.hf.get_submodule(name).float()  # PEFT's copy would round to the type of the base model
    adapted = PeftModel.from_pretrained(model.hf, str(folder))
    with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as file:
        wrong = sorted({*file.keys()} ^ {*get_peft_model_state_dict(adapted, save_embedding_layers=False)})
    if wrong:
        raise ModelError(f"{folder}: {wrong[0]} has no place in the model, or no value in the adapter")
    model.eval()
    compute_in_float32(model)
    with adapted.disable_adapter():
        base = self_check(model)
    return [base, self_check(model)]


@torch.no_grad()
def self_check(model: SpeechModel) -> list[float]:
    """What `SELF_CHECK` prints: the first four logits after a fixed input, divided by the deviation of all."""
    ids = torch.tensor([[model.audio_token_id] * AUDIO_TOKENS + list(range(TEXT_TOKENS))])
    features = torch.linspace(-1, 1, FRAMES * 160).view(1, FRAMES, 160)
    hidden, _ = model(features, torch.tensor([FRAMES]), ids)
    logits = model.logits(hidden[0, -1])
    return [round(value, 3) for value in (logits[:4] / logits.std()).tolist()]


def python_code(class_name: str, base: str, revision: str | None, audio_token: int) -> tuple[str, str]:
    """Python code that loads an adapter into its base, and code that prints its self-check."""
    pinned = f"revision={revision!r}, " if revision else ""
    return LOADING.format(class_name=class_name, base=base, revision=pinned), SELF_CHECK.format(
        audio_token=audio_token, audio_tokens=AUDIO_TOKENS, text_tokens=TEXT_TOKENS, frames=FRAMES
    )
