"""Sets of trainable parts for the tests of parts and adapters, and helpers to perturb and read such models."""

from collections.abc import Callable
from dataclasses import replace

import torch
from peft import PeftModel
from support import batch
from torch import Tensor, nn

from finetune.data.manifest import Utterance
from finetune.model.granite import SpeechModel
from finetune.model.trainable import LoraSpec, PartSpec, TrainableParts, trained_parameters

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FROZEN, FULL = PartSpec("frozen", 1, 1.0), PartSpec("full", 1, 1.0)
NOTHING = TrainableParts(LoraSpec(0, 8.0, 0.0, "lora", ALL), FROZEN, FROZEN, 2, False, False, 0)
LORA = replace(NOTHING, lora=LoraSpec(4, 8.0, 0.0, "lora", ALL))
LORA_EVERYWHERE = replace(LORA, projector=PartSpec("lora", 2, 6.0), encoder=PartSpec("lora", 8, 4.0))
CASES = {
    "lora": LORA,
    "rslora everywhere": replace(LORA_EVERYWHERE, lora=LoraSpec(4, 8.0, 0.0, "rslora", ALL)),
    "dora everywhere": replace(LORA_EVERYWHERE, lora=LoraSpec(4, 8.0, 0.0, "dora", ALL)),
    "all parts": replace(LORA, projector=FULL, encoder=FULL, ctc_head=True, lm_head=True, llm_layers=2),
    "no lora": replace(NOTHING, projector=FULL),
    "lora in the encoder alone": replace(NOTHING, encoder=PartSpec("lora", 2, 4.0)),
}
Load = Callable[[], SpeechModel]


def adapted_layers(model: SpeechModel) -> dict[str, nn.Module]:
    """The layers with LoRA, by name."""
    return {name: module for name, module in model.hf.named_modules() if hasattr(module, "lora_A")}


def perturb(model: SpeechModel) -> None:
    """Adds noise to all trainable parameters, as a stand-in for training: LoRA's B starts at zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def merge(model: SpeechModel, adapted: PeftModel | None) -> None:
    """PEFT's merge of the whole model in memory, the reference of `exporting.trained_weights`."""
    if adapted is not None:
        model.hf = adapted.merge_and_unload(safe_merge=True)


@torch.no_grad()
def logits(model: SpeechModel, clips: list[Utterance]) -> Tensor:
    """Logits (2, L, V) of two clips."""
    features, frames, ids, _ = batch(model, clips[:2])
    return model.logits(model(features, frames, ids)[0])


@torch.no_grad()
def ctc_logits(model: SpeechModel, clips: list[Utterance]) -> Tensor:
    """CTC logits (1, T, 348) of one clip."""
    features, frames, _, _ = batch(model, clips[:1])
    return model.ctc_logits(model.encode(features, frames).states)
