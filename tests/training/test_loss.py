"""The loss is transformers' at the right scale, and a step's gradient does not depend on how it was split."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from support import batch, summed_loss
from torch import Tensor
from torch.nn import functional as F
from trainable_cases import FULL, LORA, perturb

from finetune.data.manifest import Utterance
from finetune.model.granite import SpeechModel
from finetune.model.trainable import open_parts, set_mode, trained_parameters
from finetune.training.loss import CHUNK, IGNORE, ctc_loss, token_loss


@pytest.fixture(scope="module")
def granite(model: Callable[[], SpeechModel]) -> SpeechModel:
    """A model with LoRA weights that are not zero and trainable upper encoder blocks."""
    made = model()
    open_parts(made, replace(LORA, projector=FULL, encoder=FULL, ctc_head=True))
    perturb(made)
    set_mode(made, training=True)
    return made


@torch.no_grad()
def test_loss_equals_transformers_loss_with_scaled_logits(granite: SpeechModel, clips: list[Utterance]) -> None:
    features, frames, ids, labels = batch(granite, clips[:1])
    count = int(granite.num_audio_tokens(frames)[0])
    granite.hf.lm_head.weight.div_(8.0)  # transformers' own loss omits this division
    theirs = granite.hf(
        input_ids=ids,
        input_features=features,
        labels=labels,
        input_features_mask=torch.ones(1, count, dtype=torch.bool),
    ).loss
    granite.hf.lm_head.weight.mul_(8.0)
    ours = summed_loss(granite, clips[:1]) / int((labels != IGNORE).sum())
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def step_gradient(granite: SpeechModel, clips: list[Utterance], size: int) -> tuple[float, dict[str, Tensor]]:
    """One optimizer step over all clips in micro-batches of `size`: the loss, and the gradients."""
    granite.zero_grad()
    tokens = sum(int((batch(granite, [item])[3] != IGNORE).sum()) for item in clips)
    total = 0.0
    for start in range(0, len(clips), size):
        loss = summed_loss(granite, clips[start : start + size]) / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    gradients = {name: value.grad for name, value in trained_parameters(granite).items()}
    return total, {name: value.clone() for name, value in gradients.items() if value is not None}


def test_gradient_does_not_depend_on_the_micro_batch_size(granite: SpeechModel, clips: list[Utterance]) -> None:
    full_loss, full_gradient = step_gradient(granite, clips, 8)
    assert len(full_gradient) == len(trained_parameters(granite))
    largest = max(float(gradient.abs().max()) for gradient in full_gradient.values())
    for size in (4, 1):
        loss, split = step_gradient(granite, clips, size)
        assert loss == pytest.approx(full_loss, rel=1e-5)
        for name, gradient in full_gradient.items():
            scale = max(1e-3 * largest, float(gradient.abs().max()))
            assert float((split[name] - gradient).abs().max()) < 1e-3 * scale, name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_chunked_loss_equals_the_plain_loss(targets: int, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(targets)
    hidden = torch.randn(1, targets + 1, 6, generator=generator, requires_grad=True)
    head = torch.randn(6, 9, generator=generator, requires_grad=True)
    labels = torch.randint(0, 9, (1, targets + 1), generator=generator)
    labels[0, 1 : targets // 3] = IGNORE
    chunks: list[int] = []

    def logits(states: Tensor) -> Tensor:
        chunks.append(len(states))
        return states @ head

    total = token_loss(hidden, labels, logits, smoothing)
    ours = torch.autograd.grad(total, [hidden, head])
    plain = F.cross_entropy(hidden[0, :-1] @ head, labels[0, 1:], reduction="sum", label_smoothing=smoothing)
    assert total.item() == pytest.approx(plain.item(), rel=1e-5)
    for actual, expected in zip(ours, torch.autograd.grad(plain, [hidden, head]), strict=True):
        assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-4)
    targets_left = int((labels[0, 1:] != IGNORE).sum())
    assert max(chunks) <= CHUNK
    assert sum(chunks) == targets_left * (2 if targets_left > CHUNK else 1), (
        "computed again in the backward pass instead of stored"
    )


def test_each_token_is_predicted_from_the_previous_position() -> None:
    hidden = torch.full((1, 4, 5), -30.0)
    labels = torch.tensor([[IGNORE, IGNORE, 2, 4]])
    hidden[0, 1, 2] = hidden[0, 2, 4] = 30.0
    assert float(token_loss(hidden, labels, lambda states: states, 0.0)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("frames", "target"), [(20, [97, 98]), (9, [97, 97, 98]), (3, [97, 98]), (7, [])])
def test_ctc_loss_of_one_clip_equals_torchs(frames: int, target: list[int]) -> None:
    logits = torch.randn(1, frames, 348, generator=torch.Generator().manual_seed(frames))
    ours = ctc_loss(logits, torch.tensor([frames]), [target])
    theirs = F.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        torch.tensor([target], dtype=torch.long),
        torch.tensor([frames]),
        torch.tensor([len(target)]),
        blank=0,
        reduction="sum",
    )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    assert float(ours) > 0


def test_ctc_loss_of_a_batch_is_the_sum_over_its_clips() -> None:
    logits = torch.randn(3, 20, 348, generator=torch.Generator().manual_seed(1))
    targets, frames = [[97, 98, 99], [100], []], [20, 6, 11]
    alone = [ctc_loss(logits[i : i + 1, :n], torch.tensor([n]), [targets[i]]) for i, n in enumerate(frames)]
    together = ctc_loss(logits, torch.tensor(frames), targets)
    assert float(together) == pytest.approx(sum(map(float, alone)), rel=1e-5)


def test_translations_have_no_part_in_the_ctc_loss() -> None:
    logits = torch.randn(3, 20, 348, requires_grad=True)
    frames = torch.tensor([20, 20, 15])
    mixed = ctc_loss(logits, frames, [None, [97, 98], None])
    assert mixed == ctc_loss(logits[1:2], frames[1:2], [[97, 98]])
    alone = ctc_loss(logits, frames, [None, None, None])  # a batch of translations only
    alone.backward()
    assert alone == 0 and logits.grad is not None and not logits.grad.any()


def test_a_clip_with_too_few_frames_has_zero_ctc_loss() -> None:
    logits = torch.randn(1, 2, 348, requires_grad=True)
    loss = ctc_loss(logits, torch.tensor([2]), [[97, 97]])  # a blank is required between them: three frames
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert logits.grad is not None and logits.grad.isfinite().all()
