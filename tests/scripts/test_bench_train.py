"""The benchmark's arithmetic; both sides train the same parameters on the same tokens."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GraniteSpeechConfig

from bench.count import Amount, Tally, Weights, count_weights, pass_flops
from bench.material import REAL, Material, Setup, gather, middle_config, opened, random_weights, recipe_of
from bench.sides import collate, every_position, open_as_notebook
from finetune.model.granite import SpeechModel, on_meta
from finetune.model.model_summary import count_parts
from finetune.model.trainable import open_parts, trained_parameters
from finetune.training.collate import batch_from_waves
from finetune.training.dataset import SpeechDataset
from finetune.training.loss import IGNORE, token_loss

Load = Callable[[], SpeechModel]
SETUP = Setup("middle", "cpu", 4, 1, 16, None)  # clips of noise, for any model


@pytest.fixture(scope="module")
def base(model: Load) -> SpeechModel:
    return model()


@pytest.fixture(scope="module")
def noise(base: SpeechModel) -> Material:
    return gather(SETUP, base)


@pytest.fixture(scope="module")
def data(base: SpeechModel, noise: Material) -> SpeechDataset:
    return SpeechDataset(base, recipe_of(SETUP, noise.utterances, False), noise.utterances)


def test_operations_of_a_pass_against_a_hand_count() -> None:
    """Forward, to the inputs, to the weights. The encoder has only a forward pass; with a cache, it is not run."""
    weights, amount = Weights(10, 3, 5, 7, 2, 4), Amount(100, 20, 30, 6)
    forward = 2 * (10 * 100 + 3 * 100 + 5 * 20 + 7 * 30 + 2 * 30 + 4 * 6)
    backward = 2 * (5 * 20 + 7 * 30 + 2 * 30 + 4 * 6) + 2 * (3 * 100 + 5 * 20 + 2 * 30)
    assert pass_flops(weights, amount, encoder_runs=True) == forward + backward == 5096
    assert pass_flops(weights, amount, encoder_runs=False) == 5096 - 2 * 10 * 100


def test_weights_of_the_embedded_model_against_a_hand_count(model: Load) -> None:
    """From its config: encoder 6 blocks of 160, projector 2 layers of 160, LLM 5 layers of 192 with 1024 tokens."""
    loaded = model()
    d, h = 160, 192
    block = 16 * d * d + 4 * d * d + (4 + 2) * d * d + 2 * d * 15  # ff1 and ff2, attention, convolution
    layer = 2 * h * h + 2 * h * 64 + 3 * h * 512
    plain = Weights(
        encoder=6 * block + d * d + 2 * 348 * d,
        keys=2 * 2 * d * d,
        projector=2 * (4 + 2 + 8) * d * d + d * h,
        llm=5 * layer,
        lora=0,
        head=1024 * h,
    )
    assert count_weights(loaded.hf) == plain
    open_parts(loaded, opened(4, "full"))
    ends = 2 * (h + h) + 2 * (h + 64) + 3 * (h + 512)  # of q, o, k, v, gate, up, down
    assert count_weights(loaded.hf) == Weights(**{**vars(plain), "lora": 5 * 4 * ends})


def test_operations_are_those_that_torch_counts(model: Load, data: SpeechDataset, noise: Material) -> None:
    """Except for attention and an incomplete last window of the projector, both a few percent."""
    loaded = model()
    open_parts(loaded, opened(16, "full"))
    batch = batch_from_waves(data, [0], [noise.waves[0]], 0)
    with FlopCounterMode(display=False) as counter:
        hidden, audio = loaded(batch.audio, batch.num_frames, batch.ids)
        token_loss(hidden, batch.labels, loaded.logits, 0.0).backward()  # type: ignore[no-untyped-call]
    amount = Amount(int(batch.num_frames[0]), int(audio.num_tokens[0]), data.positions[0], data.tokens([0]))
    counted = counter.get_total_flops()
    assert 0.8 * counted < pass_flops(count_weights(loaded.hf), amount, encoder_runs=True) < counted


@pytest.mark.parametrize("rank", [0, 16])
def test_both_sides_train_the_same_parameters(model: Load, rank: int) -> None:
    ours, theirs = model(), model()
    open_parts(ours, opened(rank, "full"))
    open_as_notebook(theirs, rank)
    shapes = [{name: value.shape for name, value in trained_parameters(side).items()} for side in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert any(".projector." in name for name in shapes[0])
    assert any("lora_" in name for name in shapes[0]) == bool(rank)


def test_both_sides_have_the_same_tokens(base: SpeechModel, data: SpeechDataset, noise: Material) -> None:
    """One clip without padding: the same loss except for `logits_scaling`, which transformers omits."""
    batch = batch_from_waves(data, [1], [noise.waves[1]], 0)
    with torch.inference_mode():
        theirs = base.hf(**collate(data, noise.waves, [1]))
        hidden, _ = base(batch.audio, batch.num_frames, batch.ids)
        unscaled = token_loss(hidden, batch.labels, base.lm_head, 0.0) / data.tokens([1])
    assert theirs.logits.shape[1] == data.positions[1]
    assert theirs.loss.item() == pytest.approx(unscaled.item(), rel=1e-4) or theirs.loss.item() == pytest.approx(
        token_loss(hidden, batch.labels, base.logits, 0.0).item() / data.tokens([1]), rel=1e-4
    )


def test_the_notebooks_batch_is_padded_on_both_sides(base: SpeechModel, data: SpeechDataset, noise: Material) -> None:
    made = collate(data, noise.waves, [0, 1, 2])
    ids, labels, mask = made["input_ids"], made["labels"], made["attention_mask"]
    prompts = [data.positions[index] - data.tokens([index]) for index in range(3)]
    assert ids.shape[1] == max(prompts) + max(data.tokens([index]) for index in range(3))
    assert mask.sum(1).tolist() == data.positions[:3].tolist()
    assert (labels != IGNORE).sum(1).tolist() == [data.tokens([index]) for index in range(3)]
    assert (ids == base.audio_token_id).sum(1).tolist() == made["input_features_mask"].sum(1).tolist()
    assert mask[:, max(prompts) - 1].all() and mask[:, max(prompts)].all()
    assert len(made["input_features"]) == 3


def test_logits_at_every_position_give_the_same_loss(base: SpeechModel, data: SpeechDataset) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2, 9, base.lm_head.in_features)
    labels = torch.randint(0, 1000, (2, 9))
    labels[:, :5] = IGNORE
    assert every_position(hidden, labels, base.logits, 0.0).item() == pytest.approx(
        token_loss(hidden, labels, base.logits, 0.0).item(), rel=1e-5
    )


def test_the_middle_model_has_about_a_hundred_million_parameters() -> None:
    assert 90e6 < sum(count_parts(on_meta(middle_config(), "middle")).values()) < 110e6


def test_the_full_model_has_the_size_of_the_real_model_in_one_dtype() -> None:
    hf = random_weights(GraniteSpeechConfig.from_pretrained(REAL), torch.bfloat16, "meta")
    assert sum(value.numel() for value in hf.parameters()) == 2_313_141_596
    assert {value.dtype for value in hf.parameters()} == {torch.bfloat16}


def test_noise_clips_are_deterministic(base: SpeechModel, noise: Material, data: SpeechDataset) -> None:
    again = gather(SETUP, base)
    assert again.utterances == noise.utterances
    assert all(np.array_equal(one, other) for one, other in zip(again.waves, noise.waves, strict=True))
    for index, item in enumerate(noise.utterances):
        assert 1 <= item.duration <= 20
        assert 2.5 < data.tokens([index]) / item.duration < 7


def test_padding_is_the_difference_of_padded_and_needed() -> None:
    tally = Tally()
    tally.add((30, 8), (40, 10))
    tally.add((10, 2), (10, 10))
    assert tally.padding_fractions() == pytest.approx([0.2, 0.5])
