"""The bytes counted on shapes are those that a real forward pass keeps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import noise
from torch.nn.utils.rnn import pad_sequence
from trainable_cases import FULL, LORA

from finetune.core.config import MachineSection, Recipe
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import PartSpec, TrainableParts, open_parts, set_mode
from finetune.planning.activations import LargestBatch, _Saved, count_activations
from finetune.planning.memory import plan_memory
from finetune.training.parts import checkpoint_activations

CLIPS, FRAMES, POSITIONS, TARGETS = 6, 120, 60, 60
BATCH = LargestBatch(CLIPS, FRAMES, CLIPS, POSITIONS, TARGETS)
PARTS = {
    "lora": LORA,
    "projector": replace(LORA, projector=FULL),
    "encoder": replace(LORA, projector=FULL, encoder=FULL, ctc_head=False),
    "encoder lora": replace(LORA, encoder=PartSpec("lora", 4, 8.0)),
}


def kept_bytes(model: SpeechModel) -> int:
    """Bytes that autograd keeps in a real forward pass of BATCH."""
    ids = torch.zeros(CLIPS, POSITIONS, dtype=torch.long)
    ids[:, 3 : 3 + int(model.num_audio_tokens(torch.tensor([FRAMES]))[0])] = model.audio_token_id
    features = pad_sequence([noise(FRAMES, seed) for seed in range(CLIPS)], True)
    saved = _Saved(model)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor), model.autocast():
        hidden, _ = model(features, torch.full((CLIPS,), FRAMES), ids)
    assert hidden.requires_grad
    return saved.bytes


def opened(nano: Path, parts: TrainableParts, dtype: str, device: str) -> SpeechModel:
    model = load_model(str(nano), dtype, device)
    with torch.device(device):
        open_parts(model, parts)
    set_mode(model, training=True)
    return model


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        ("lora", "bfloat16"),
        ("encoder", "float32"),
        *(
            pytest.param(case, dtype, marks=pytest.mark.slow)
            for case in PARTS
            for dtype in ("float32", "bfloat16")
            if (case, dtype) not in (("lora", "bfloat16"), ("encoder", "float32"))
        ),
    ],
)
def test_counted_bytes_are_those_of_a_real_forward_pass(nano: Path, case: str, dtype: str) -> None:
    """In bfloat16, CUDA's autocast keeps more than the CPU's: layer norms and softmax in float32."""
    real = kept_bytes(opened(nano, PARTS[case], dtype, "cpu"))
    counted = count_activations(opened(nano, PARTS[case], dtype, "meta"), BATCH, dtype == "bfloat16")
    total = counted.audio + counted.language_model
    assert 0.95 * real < total < (1.10 if dtype == "float32" else 1.35) * real, total / real


def test_checkpointing_keeps_the_inputs_of_the_layers_and_one_layer(nano: Path) -> None:
    model = opened(nano, LORA, "float32", "cpu")
    model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    set_mode(model, training=True)
    inputs = kept_bytes(model)
    counted = count_activations(opened(nano, LORA, "float32", "meta"), BATCH, False)
    layer = counted.language_model // len(model.language_model.layers)
    assert inputs + layer == pytest.approx(counted.audio + counted.checkpointed, rel=0.1)
    assert counted.checkpointed < 0.5 * counted.language_model


@pytest.mark.parametrize("case", ["encoder", "lora"])
def test_a_checkpointed_encoder_keeps_the_inputs_of_the_layers_that_train(nano: Path, case: str) -> None:
    model = opened(nano, PARTS[case], "float32", "cpu")
    checkpoint_activations(model, MachineSection(encoder_checkpointing=True))
    inputs = kept_bytes(model)
    counted = count_activations(opened(nano, PARTS[case], "float32", "meta"), BATCH, False)
    assert inputs == pytest.approx(counted.audio_checkpointed + counted.language_model, rel=0.1)
    if case == "lora":
        assert counted.audio_checkpointed == counted.audio and not counted.encoder_layer
    else:
        assert counted.audio_checkpointed < 0.2 * counted.audio
        saved = counted.audio - counted.audio_checkpointed
        assert counted.encoder_layer == saved // PARTS[case].encoder_blocks


def test_bytes_grow_with_the_batch_and_need_no_encoder_with_a_cache(nano: Path) -> None:
    model = opened(nano, PARTS["projector"], "float32", "meta")
    one, two = (
        count_activations(model, LargestBatch(size, FRAMES, size, POSITIONS, size * 10), False) for size in (3, 6)
    )
    assert two.language_model == pytest.approx(2 * one.language_model, rel=0.02)
    assert two.audio == pytest.approx(2 * one.audio, rel=0.1) and two.loss == 2 * one.loss
    states = count_activations(model, replace(BATCH, kind="states"), False)
    embeds = count_activations(opened(nano, LORA, "float32", "meta"), replace(BATCH, kind="embeds"), False)
    assert states.audio > 0 and embeds.audio == 0 and embeds.language_model > 0
    most = count_activations(model, replace(BATCH, targets=5_000), False).loss
    assert most == count_activations(model, replace(BATCH, targets=1_024), False).loss  # the loss works in chunks


Tiny = Callable[..., Recipe]


def test_memory_is_the_sum_of_its_parts(nano: Path, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(tmp_path, "x")
    parts = PARTS["encoder"]
    plan = plan_memory(opened(nano, parts, "float32", "meta"), recipe, BATCH, "cpu", 1, 10**9)
    model = opened(nano, parts, "float32", "cpu")
    trained = sum(value.numel() for value in model.hf.parameters() if value.requires_grad)
    frozen = sum(value.nbytes for value in model.hf.parameters() if not value.requires_grad)
    buffers = sum(value.nbytes for value in model.hf.buffers())
    assert (plan.trained, plan.gradients, plan.moments) == (4 * trained, 4 * trained, 8 * trained)
    assert plan.weights == pytest.approx(frozen + buffers, rel=0.01) and plan.available == 10**9
    parts_sum = plan.weights + plan.trained + plan.gradients + plan.moments + plan.activations + plan.loss
    assert plan.low == parts_sum + plan.encoder + 400_000_000 < plan.high
    settings = [
        "train.optimizer: adamw-8bit",
        *(f"machine.{name}_checkpointing: true" for name in ("gradient", "encoder")),
    ]
    assert [item.setting for item in plan.less] == settings
    lows, highs = [plan.low, *(item.low for item in plan.less)], [plan.high, *(item.high for item in plan.less)]
    assert lows == sorted(lows, reverse=True) and highs == sorted(highs, reverse=True) and lows[0] > lows[-1]
    both = {"gradient_checkpointing": True, "encoder_checkpointing": True}
    small = tiny(tmp_path, "x", machine=both, optimizer="adamw-8bit")
    less = plan_memory(opened(nano, parts, "float32", "meta"), small, BATCH, "cpu", 1, 10**9)
    assert (less.low, less.high) == (lows[-1], highs[-1]) and not less.less
    assert less.activations < plan.activations and less.moments == pytest.approx(2.03 * trained, rel=0.01)
    for accumulation, copies in ((1, 1), (2, 2)):  # DDP copies gradients that it has accumulated outside of its buckets
        changed = tiny(tmp_path, "x", accumulation=accumulation)
        several = plan_memory(opened(nano, parts, "float32", "meta"), changed, BATCH, "cpu", 2, None)
        assert several.gradients == 4 * copies * trained
    assert several.less[0].setting == "machine.shard_optimizer: true"
    assert "adamw-8bit" not in str(several.less), "moments that are divided have no 8-bit form"
    sharded = tiny(tmp_path, "x", machine={"shard_optimizer": True})
    alone = plan_memory(opened(nano, parts, "float32", "meta"), sharded, BATCH, "cpu", 1, None)
    assert alone.less[0].setting == "train.optimizer: adamw-8bit, machine.shard_optimizer: false"
    card = plan_memory(opened(nano, parts, "float32", "meta"), recipe, BATCH, "cuda", 1, None)
    assert card.dtype == "bfloat16" and card.weights < 0.6 * plan.weights and card.trained == plan.trained
    assert card.activations < plan.activations


def test_four_bits_shrink_the_linear_layers_of_the_language_model_only(nano: Path, tiny: Tiny, tmp_path: Path) -> None:
    recipe = tiny(tmp_path, "x")
    quantized = recipe.model_copy(update={"model": recipe.model.model_copy(update={"quantize": "4bit"})})
    whole, small = (
        plan_memory(opened(nano, LORA, "float32", "meta"), item, BATCH, "cuda", 1, None).weights
        for item in (recipe, quantized)
    )
    layers = opened(nano, LORA, "float32", "meta").language_model.layers
    linear = sum(value.numel() for name, value in layers.named_parameters() if "base_layer.weight" in name)
    assert whole - small == pytest.approx(linear * (2 - 0.5625), rel=1e-6)
