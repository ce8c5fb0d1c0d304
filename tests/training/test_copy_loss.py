"""The copy loss finds the tokens that a prompt contains, and equals the one from transformers' attention weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from finetune.model.granite import SpeechModel
from finetune.training.copy_loss import FLOOR, CopyLoss, copied_tokens
from finetune.training.loss import IGNORE

# prompt 9 | 5 6 7 , 8 6 | text
PROMPT = [9, 5, 6, 7, 3, 8, 6]


def rows(*texts: list[int]) -> tuple[Tensor, Tensor]:
    """Token ids and labels of texts after PROMPT, right-padded."""
    width = max(map(len, texts))
    ids = [PROMPT + text + [0] * (width - len(text)) for text in texts]
    labels = [[IGNORE] * len(PROMPT) + text + [IGNORE] * (width - len(text)) for text in texts]
    return torch.tensor(ids), torch.tensor(labels)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ([5, 6, 7], [[1], [2], [3]]),  # the first token by what follows it, the last one by what precedes it
        ([2, 6, 7, 2], [[], [2], [3], []]),  # from inside of a keyword
        ([8, 6], [[5], [6]]),  # the second 6 of the prompt, not the first one
        ([5], [[]]),  # a token without a neighbour
        ([6, 5], [[], []]),  # neighbours in another order
        ([6, 8], [[], []]),
    ],
)
def test_a_token_is_copied_if_the_prompt_has_it_beside_the_same_token(text: list[int], places: list[list[int]]) -> None:
    copied = copied_tokens(*rows(text))
    assert [row.nonzero()[:, 0].tolist() for row in copied.places[0]] == places
    assert copied.queries[0].tolist() == [len(PROMPT) + number - 1 for number in range(len(text))]


def test_rows_of_different_lengths_match_only_their_own_tokens() -> None:
    alone = [copied_tokens(*rows(text)).places[0] for text in ([5, 6, 7], [6, 7])]
    together = copied_tokens(*rows([5, 6, 7], [6, 7])).places
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[1, :2, : alone[1].shape[1]], alone[1])
    assert not together[1, 2:].any()


def test_a_short_text_after_a_long_prompt_counts_once() -> None:
    ids = torch.tensor([[*PROMPT, 5, 6, 7], [9, *PROMPT, 6, 7]])
    labels = torch.tensor([[IGNORE] * 7 + [5, 6, 7], [IGNORE] * 8 + [6, 7]])
    assert copied_tokens(ids, labels).places.any(2).tolist() == [[True] * 3, [True, True, False]]


def losses(model: SpeechModel, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The copy loss, and the same from the attention weights and values of transformers."""
    embeds, copy_loss = model.embed(ids), CopyLoss(model)
    with copy_loss.recording():
        model.language_model(inputs_embeds=embeds, use_cache=False)
    value = copy_loss(ids, labels)
    llm = model.language_model
    kept: dict[int, Tensor] = {}
    hooks = [
        layer.self_attn.v_proj.register_forward_hook(lambda _m, _a, out, number=number: kept.update({number: out}))
        for number, layer in enumerate(llm.layers)
    ]
    llm.set_attn_implementation("eager")
    attentions = llm(inputs_embeds=embeds, use_cache=False, output_attentions=True).attentions
    for hook in hooks:
        hook.remove()
    copied, expected = copied_tokens(ids, labels), torch.zeros(())
    for row, query, place in copied.places.nonzero().tolist():
        weights = [attentions[layer][row, :, copied.queries[row, query], place].mean() for layer in copy_loss.layers]
        expected = expected - (torch.stack(weights).mean() + FLOOR).log()
        for layer in copy_loss.layers:
            attn = llm.layers[layer].self_attn
            groups = kept[layer][row, place].view(-1, attn.head_dim).repeat_interleave(attn.num_key_value_groups, 0)
            logits = model.logits(llm.norm(attn.o_proj(groups.flatten())))
            expected = expected + F.cross_entropy(logits, ids[row, place]) / len(copy_loss.layers)
    return value, expected


def test_the_loss_is_that_of_transformers_attention_and_values(model: Callable[[], SpeechModel]) -> None:
    value, expected = losses(model(), *rows([5, 6, 7, 2, 6, 7], [2, 8, 6, 4, 1]))  # 7 is copied twice
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    assert expected.item() > 1


@torch.no_grad()
def test_the_loss_is_the_sum_of_those_of_its_clips(model: Callable[[], SpeechModel]) -> None:
    texts = [[5, 6, 7], [2, 8, 6, 4, 1], [2, 4]]
    made = model()
    copy_loss = CopyLoss(made)

    def loss(*chosen: list[int]) -> float:
        ids, labels = rows(*chosen)
        with copy_loss.recording():
            made.language_model(inputs_embeds=made.embed(ids), use_cache=False)
        return float(copy_loss(ids, labels))

    assert loss(*texts) == pytest.approx(sum(map(loss, texts)), rel=1e-4)


def test_a_batch_without_copied_tokens_has_no_loss_and_a_gradient_of_zero(model: Callable[[], SpeechModel]) -> None:
    made = model()
    layer = made.language_model.layers[-1].self_attn.q_proj
    layer.requires_grad_(True)
    ids, labels = rows([2, 4])
    copy_loss = CopyLoss(made)
    with copy_loss.recording():
        made.language_model(inputs_embeds=made.embed(ids), use_cache=False)
    loss = copy_loss(ids, labels)
    assert loss.item() == 0
    loss.backward()
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


def test_training_steps_on_the_copy_loss_move_attention_to_the_keywords(model: Callable[[], SpeechModel]) -> None:
    made = model()
    trained = list(made.language_model.layers.parameters())
    for parameter in trained:
        parameter.requires_grad_(True)
    copy_loss, optimizer = CopyLoss(made), torch.optim.AdamW(trained, 1e-3)
    ids, labels = rows([5, 6, 7], [2, 8, 6])
    values = []
    for _ in range(4):
        with copy_loss.recording():
            made.language_model(inputs_embeds=made.embed(ids), use_cache=False)
        loss = copy_loss(ids, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]
