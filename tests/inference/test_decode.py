"""Decoding: any batch and any draft give the same tokens as one clip decoded without cache and draft."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import INSTRUCTION, hf_tokens, noise, randomize
from torch.overrides import TorchFunctionMode

from finetune.core.errors import ModelError
from finetune.core.options import DecodingOptions
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance
from finetune.inference.decode import DecodedRow, decode
from finetune.inference.draft import Draft
from finetune.inference.recognize import recognize
from finetune.model.granite import SpeechModel, load_model

FRAMES = [40, 200, 83, 130, 61, 97]
LIMIT = 20
NEVER = 9  # a token that the model below never generates


@pytest.fixture(scope="module")
def granite(model: Callable[[], SpeechModel]) -> SpeechModel:
    """Random weights; some rows end with the end of text and some at the limit."""
    granite = randomize(model(), end=1.9)
    with torch.no_grad():
        granite.lm_head.weight[NEVER] = 0
    return granite


@pytest.fixture(scope="module")
def prompts(granite: SpeechModel) -> list[list[int]]:
    """Six prompts of different lengths: prefix, audio tokens, suffix."""
    counts = [granite.num_audio_tokens(torch.tensor(frames)) for frames in FRAMES]
    return [
        [*range(20 + row, 28 - row), *range(50, 50 + 2 * row), *[granite.audio_token_id] * int(count), 11, 12 + row]
        for row, count in enumerate(counts)
    ]


@pytest.fixture(scope="module")
def alone(granite: SpeechModel, prompts: list[list[int]]) -> list[list[int]]:
    """The reference: full forward passes over one clip, without cache, one token at a time, without end of text."""
    eos, rows = granite.tokenizer.eos_token_id, []
    with torch.inference_mode():
        for frames, prompt in zip(FRAMES, prompts, strict=True):
            audio = granite.encode(*pad_features([noise(frames, frames)]))
            ids = list(prompt)
            while len(ids) - len(prompt) < LIMIT:
                embeds = granite.embed(torch.tensor([ids]), audio)
                hidden = granite.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
                ids.append(int(granite.logits(hidden[0, -1]).argmax()))
                if ids[-1] == eos:
                    break
            rows.append([token for token in ids[len(prompt) :] if token != eos])
    return rows


def decode_batch(
    granite: SpeechModel,
    prompts: list[list[int]],
    drafts: list[list[int]],
    limit: int = LIMIT,
    pass_cost: float | None = None,
) -> list[DecodedRow]:
    """Decodes all clips in one batch."""
    with torch.inference_mode():
        audio = granite.encode(*pad_features([noise(frames, frames) for frames in FRAMES]))
    batch_drafts = [Draft(granite.tokenizer, tokens, [1.0] * len(tokens)) for tokens in drafts]
    return decode(granite, audio, prompts, batch_drafts, limit, pass_cost=pass_cost)


def test_reference_covers_the_cases(alone: list[list[int]]) -> None:
    """Rows end at different lengths, some with the end of text and some at the limit, and do not loop."""
    assert len({len(tokens) for tokens in alone}) >= 3
    assert any(len(tokens) == LIMIT for tokens in alone) and any(len(tokens) < LIMIT for tokens in alone)
    assert all(len(set(tokens)) > len(tokens) // 2 for tokens in alone)
    assert not any(NEVER in tokens for tokens in alone)


def test_greedy_batch_equals_single_clips(
    granite: SpeechModel, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    rows = decode_batch(granite, prompts, [[]] * 6)
    assert [row.tokens for row in rows] == alone
    for row in rows:
        assert row.truncated == (len(row.tokens) == LIMIT)
        assert row.passes == len(row.tokens) + (not row.truncated)
        assert (row.drafted, row.accepted) == (0, 0)
        assert math.isfinite(row.log_probability) and row.log_probability < 0


def test_perfect_draft_takes_one_pass(granite: SpeechModel, prompts: list[list[int]], alone: list[list[int]]) -> None:
    plain = decode_batch(granite, prompts, [[]] * 6)
    rows = decode_batch(granite, prompts, alone, pass_cost=256)  # so that each row can propose all its tokens
    assert [row.tokens for row in rows] == alone
    for row, reference in zip(rows, plain, strict=True):
        assert row.passes == 1
        assert row.drafted == row.accepted == min(len(row.tokens), LIMIT - 1)  # the last token is not proposed
        assert row.truncated == reference.truncated
        assert row.log_probability == pytest.approx(reference.log_probability, abs=1e-3)


def test_wrong_draft_costs_no_pass(granite: SpeechModel, prompts: list[list[int]], alone: list[list[int]]) -> None:
    plain = decode_batch(granite, prompts, [[]] * 6)
    rows = decode_batch(granite, prompts, [[NEVER] * 30] * 6)
    assert [row.tokens for row in rows] == alone
    assert [row.passes for row in rows] == [row.passes for row in plain]
    assert [row.accepted for row in rows] == [0] * 6
    assert [row.log_probability for row in rows] == pytest.approx([row.log_probability for row in plain], abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_mixed_drafts_give_the_greedy_tokens(
    granite: SpeechModel, prompts: list[list[int]], alone: list[list[int]], seed: int
) -> None:
    """Rows with right, wrong and partly right drafts finish in different passes and leave the batch."""
    rng = random.Random(seed)

    def draft(tokens: list[int]) -> list[int]:
        error_rate = rng.choice([0.0, 0.2, 0.5, 1.0])
        edited: list[int] = []
        for token in tokens:
            if rng.random() >= error_rate:
                edited.append(token)
            else:
                edited += rng.choice([[], [NEVER], [token, NEVER], [rng.randrange(1000)], [token, token]])
        return edited[: rng.choice([3, 40])] + [rng.randrange(1000) for _ in range(rng.choice([0, 0, 5, 40]))]

    drafts = [draft(tokens) for tokens in alone]
    limit = rng.choice([1, 2, 7, LIMIT])
    rows = decode_batch(granite, prompts, drafts, limit)
    assert [row.tokens for row in rows] == [tokens[:limit] for tokens in alone]
    for row, tokens in zip(rows, alone, strict=True):
        assert row.truncated == (len(tokens) >= limit)
        assert 1 <= row.passes <= len(row.tokens) + 1
        assert row.accepted <= min(row.drafted, len(row.tokens))


def test_row_at_the_limit_is_truncated(granite: SpeechModel, prompts: list[list[int]], alone: list[list[int]]) -> None:
    limit = min(len(tokens) for tokens in alone) + 1
    rows = decode_batch(granite, prompts, [[]] * 6, limit)
    assert {row.truncated for row in rows} == {True, False}
    assert [row.truncated for row in rows] == [len(tokens) >= limit for tokens in alone]


# --- complete clips ---

SHORT = 10


@pytest.fixture(scope="module", params=["embedded", "randomize"])
def either(request: pytest.FixtureRequest, model: Callable[[], SpeechModel]) -> SpeechModel:
    return model() if request.param == "embedded" else randomize(model())


def options(speculative: bool = False, batch_seconds: float = 240.0) -> DecodingOptions:
    decoder = "speculative" if speculative else "greedy"
    return DecodingOptions(decoder, max_new_tokens=SHORT, batch_seconds=batch_seconds)


def test_clips_get_the_tokens_of_transformers(either: SpeechModel, clips: list[Utterance]) -> None:
    hypotheses = recognize(either, clips[:4], INSTRUCTION, options())
    assert [item.tokens for item in hypotheses] == [hf_tokens(either, item, SHORT) for item in clips[:4]]


def test_batch_size_order_and_draft_change_no_token(either: SpeechModel, clips: list[Utterance]) -> None:
    alone = recognize(either, clips, INSTRUCTION, options(batch_seconds=0.1))
    for other in (
        recognize(either, clips, INSTRUCTION, options()),
        recognize(either, clips, INSTRUCTION, options(batch_seconds=8.0)),
        recognize(either, clips, INSTRUCTION, options(speculative=True)),
        recognize(either, clips[::-1], INSTRUCTION, options(speculative=True, batch_seconds=8.0))[::-1],
    ):
        assert [item.tokens for item in other] == [item.tokens for item in alone]
        assert [item.id for item in other] == [item.id for item in clips]
        assert [item.truncated for item in other] == [item.truncated for item in alone]
        for one, two in zip(other, alone, strict=True):
            assert one.log_probability == pytest.approx(two.log_probability, rel=1e-3, abs=1e-2)


def test_no_batch_is_longer_than_batch_seconds(granite: SpeechModel, clips: list[Utterance]) -> None:
    batches: list[int] = []
    hook = granite.encoder.input_linear.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    limit = 3 * max(item.duration for item in clips)
    recognize(granite, clips, INSTRUCTION, options(batch_seconds=limit))
    hook.remove()
    assert sum(batches) == len(clips) and max(batches) >= 3
    longest = sorted((item.duration for item in clips), reverse=True)
    for number, count in enumerate(batches):
        assert longest[sum(batches[:number])] * count <= limit


def test_accepted_ctc_text_respects_the_token_limit(model: Callable[[], SpeechModel], clips: list[Utterance]) -> None:
    """A CTC text longer than the limit is not accepted; the language model truncates its own text and reports it."""
    loaded = model()
    accept_all = DecodingOptions("relaxed", max_entropy=1e6, min_probability=1.0, max_new_tokens=400)
    unlimited = recognize(loaded, clips, INSTRUCTION, accept_all)
    assert {item.accepted_by for item in unlimited} == {"ctc"} and any(len(item.tokens) > SHORT for item in unlimited)
    limited = recognize(loaded, clips, INSTRUCTION, replace(accept_all, max_new_tokens=SHORT))
    for full, item in zip(unlimited, limited, strict=True):
        assert (item.accepted_by == "ctc") == (len(full.tokens) < SHORT) and len(item.tokens) <= SHORT
        assert not (item.accepted_by == "ctc" and item.truncated)


def test_bfloat16_model_gives_float32_logits(nano: Path, clips: list[Utterance]) -> None:
    """The dtype on CUDA. Near ties can resolve differently, so one clip can differ from transformers."""
    narrow = load_model(str(nano), "bfloat16")
    greedy = recognize(narrow, clips[:3], INSTRUCTION, options())
    assert sum(item.tokens == hf_tokens(narrow, clip, SHORT) for item, clip in zip(greedy, clips[:3], strict=True)) >= 2
    with torch.inference_mode():
        assert narrow.logits(torch.zeros(1, narrow.lm_head.in_features, dtype=torch.bfloat16)).dtype == torch.float32
    for decoder in ("speculative", "relaxed"):
        hypotheses = recognize(narrow, clips[:3], INSTRUCTION, replace(options(), decoder=decoder))
        assert all(item.tokens and item.log_probability <= 0 for item in hypotheses)


class DeviceReads(TorchFunctionMode):
    """Records the calls that copy the values of a tensor to the host."""

    NAMES = ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.NAMES:
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


def test_device_reads_are_recorded() -> None:
    with DeviceReads() as reads:
        one = torch.ones(1)
        one.tolist(), one.item(), one.cpu(), one.numpy(), bool(one), int(one), float(one)
    assert tuple(reads.calls) == DeviceReads.NAMES


def test_pass_reads_from_the_device_once(
    granite: SpeechModel, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    """Each read waits until a GPU has finished, so a pass copies all its results at once."""
    with DeviceReads() as reads:
        rows = decode_batch(granite, prompts, alone)
    assert reads.calls == ["tolist"] * max(row.passes for row in rows)


def test_no_clips_give_no_hypotheses(granite: SpeechModel) -> None:
    assert recognize(granite, [], INSTRUCTION, options()) == []


def test_relaxed_decoding_without_a_draft_is_greedy_decoding(
    granite: SpeechModel, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    """With the lowest threshold every draft token is accepted, but the token after the draft is the model's own."""
    with torch.inference_mode():
        audio = granite.encode(*pad_features([noise(frames, frames) for frames in FRAMES]))
        rows = decode(
            granite, audio, prompts, [Draft(granite.tokenizer, [], []) for _ in prompts], LIMIT, min_probability=1e-30
        )
    assert [row.tokens for row in rows] == alone


def test_the_batch_changes_no_token_of_relaxed_decoding(granite: SpeechModel, prompts: list[list[int]]) -> None:
    """What is proposed is kept, so it depends on its own row only."""

    def decoded(rows: list[int]) -> list[list[int]]:
        drafts = [Draft(granite.tokenizer, range(60, 75), [0.7] * 15) for _ in rows]
        with torch.inference_mode():
            audio = granite.encode(*pad_features([noise(FRAMES[row], FRAMES[row]) for row in rows]))
        batch = [prompts[row] for row in rows]
        return [row.tokens for row in decode(granite, audio, batch, drafts, LIMIT, min_probability=1e-30)]

    assert decoded([*range(6)]) == [tokens for row in range(6) for tokens in decoded([row])]


@pytest.mark.parametrize("decoder", ["greedy", "speculative", "relaxed", "beam"])
def test_a_model_with_nan_is_an_error(model: Callable[[], SpeechModel], clips: list[Utterance], decoder: str) -> None:
    """Its text would be the first token of the vocabulary, again and again."""
    damaged = model()
    with torch.no_grad():
        damaged.language_model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    with pytest.raises(ModelError, match=r"computes NaN .* weights are damaged"):
        recognize(damaged, clips[:2], INSTRUCTION, DecodingOptions(decoder, max_new_tokens=SHORT, max_entropy=0))  # type: ignore[arg-type]
