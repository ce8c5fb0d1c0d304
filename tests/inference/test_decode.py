"""Every batch and every draft, right or wrong, gives token for token what the model writes alone, one at a time."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import INSTRUCTION, hf_tokens, noise, randomize
from torch import Tensor

from finetune.core.options import DecodingOptions
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance
from finetune.inference.decode import FREE_TOKENS, Decoded, decode
from finetune.inference.draft import Draft
from finetune.inference.recognize import recognize
from finetune.model.granite import GraniteSpeech, load_model

FRAMES = [40, 200, 83, 130, 61, 97]
LIMIT = 20
NEVER = 9  # a token that the model below never writes


@pytest.fixture(scope="module")
def granite(model: Callable[[], GraniteSpeech]) -> GraniteSpeech:
    """Writes changing tokens and, often enough, the end of text."""
    made = randomize(model())
    with torch.no_grad():
        made.lm_head.weight[made.tokenizer.eos_token_id] *= 1.9
        made.lm_head.weight[NEVER] = 0
    return made


@pytest.fixture(scope="module")
def prompts(granite: GraniteSpeech) -> list[list[int]]:
    """Of six lengths: a prefix of 3 to 8 tokens, the audio, a suffix."""
    tokens = [granite.num_audio_tokens(torch.tensor(frames)) for frames in FRAMES]
    return [
        [*range(20 + row, 28 - row), *range(50, 50 + 2 * row), *[granite.audio_token_id] * int(count), 11, 12 + row]
        for row, count in enumerate(tokens)
    ]


@pytest.fixture(scope="module")
def alone(granite: GraniteSpeech, prompts: list[list[int]]) -> list[list[int]]:
    """The oracle: whole forward passes over one clip, no cache, one token at a time, the end of text left out."""
    eos, found = granite.tokenizer.eos_token_id, []
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
            found.append([token for token in ids[len(prompt) :] if token != eos])
    return found


def decoded(
    granite: GraniteSpeech, prompts: list[list[int]], drafts: list[list[int]], limit: int = LIMIT
) -> list[Decoded]:
    """All clips in one batch."""
    with torch.inference_mode():
        audio = granite.encode(*pad_features([noise(frames, frames) for frames in FRAMES]))
    return decode(granite, audio, prompts, [Draft(granite.tokenizer, d, [1.0] * len(d)) for d in drafts], limit)


def test_the_oracle_is_worth_something(alone: list[list[int]]) -> None:
    """Rows end at different times, some by the end of text and some by the limit, and never loop."""
    assert len({len(tokens) for tokens in alone}) >= 3
    assert any(len(tokens) == LIMIT for tokens in alone) and any(len(tokens) < LIMIT for tokens in alone)
    assert all(len(set(tokens)) > len(tokens) // 2 for tokens in alone)
    assert not any(NEVER in tokens for tokens in alone)


def test_greedy_in_a_batch_is_greedy_alone(
    granite: GraniteSpeech, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    rows = decoded(granite, prompts, [[]] * 6)
    assert [row.tokens for row in rows] == alone
    for row in rows:
        assert row.truncated == (len(row.tokens) == LIMIT)
        assert row.passes == len(row.tokens) + (not row.truncated)
        assert (row.drafted, row.accepted) == (0, 0)
        assert math.isfinite(row.log_probability) and row.log_probability < 0


def test_a_perfect_draft_takes_one_pass(
    granite: GraniteSpeech, prompts: list[list[int]], alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FREE_TOKENS, "cpu", 256)  # else six rows share what a pass has room for
    plain = decoded(granite, prompts, [[]] * 6)
    rows = decoded(granite, prompts, alone)
    assert [row.tokens for row in rows] == alone
    for row, reference in zip(rows, plain, strict=True):
        assert row.passes == 1
        assert row.drafted == row.accepted == min(len(row.tokens), LIMIT - 1)  # the last one needs no offer
        assert row.truncated == reference.truncated
        assert row.log_probability == pytest.approx(reference.log_probability, abs=1e-3)


def test_a_draft_that_is_never_right_costs_no_pass(
    granite: GraniteSpeech, prompts: list[list[int]], alone: list[list[int]]
) -> None:
    plain = decoded(granite, prompts, [[]] * 6)
    rows = decoded(granite, prompts, [[NEVER] * 30] * 6)
    assert [row.tokens for row in rows] == alone
    assert [row.passes for row in rows] == [row.passes for row in plain]
    assert [row.accepted for row in rows] == [0] * 6
    assert [row.log_probability for row in rows] == pytest.approx([row.log_probability for row in plain], abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_of_drafts_gives_the_greedy_tokens(
    granite: GraniteSpeech, prompts: list[list[int]], alone: list[list[int]], seed: int
) -> None:
    """Rows that are right always, never and sometimes finish at different times and drop out of the batch."""
    rng = random.Random(seed)

    def draft(tokens: list[int]) -> list[int]:
        share = rng.choice([0.0, 0.2, 0.5, 1.0])
        edited: list[int] = []
        for token in tokens:
            if rng.random() >= share:
                edited.append(token)
            else:
                edited += rng.choice([[], [NEVER], [token, NEVER], [rng.randrange(1000)], [token, token]])
        return edited[: rng.choice([3, 40])] + [rng.randrange(1000) for _ in range(rng.choice([0, 0, 5, 40]))]

    drafts = [draft(tokens) for tokens in alone]
    limit = rng.choice([1, 2, 7, LIMIT])
    rows = decoded(granite, prompts, drafts, limit)
    assert [row.tokens for row in rows] == [tokens[:limit] for tokens in alone]
    for row, tokens in zip(rows, alone, strict=True):
        assert row.truncated == (len(tokens) >= limit)
        assert 1 <= row.passes <= len(row.tokens) + 1
        assert row.accepted <= min(row.drafted, len(row.tokens))


def test_a_row_that_is_cut_says_so(granite: GraniteSpeech, prompts: list[list[int]], alone: list[list[int]]) -> None:
    limit = min(len(tokens) for tokens in alone) + 1
    rows = decoded(granite, prompts, [[]] * 6, limit)
    assert {row.truncated for row in rows} == {True, False}
    assert [row.truncated for row in rows] == [len(tokens) >= limit for tokens in alone]


# --- whole clips ---

SHORT = 10


@pytest.fixture(scope="module", params=["embedded", "randomize"])
def either(request: pytest.FixtureRequest, model: Callable[[], GraniteSpeech]) -> GraniteSpeech:
    return model() if request.param == "embedded" else randomize(model())


def options(speculative: bool = False, batch_seconds: float = 240.0) -> DecodingOptions:
    decoder = "speculative" if speculative else "greedy"
    return DecodingOptions(decoder, max_new_tokens=SHORT, batch_seconds=batch_seconds)


def test_clips_are_heard_as_transformers_hears_them(either: GraniteSpeech, clips: list[Utterance]) -> None:
    heard = recognize(either, clips[:4], INSTRUCTION, options())
    assert [item.tokens for item in heard] == [hf_tokens(either, item, SHORT) for item in clips[:4]]


def test_neither_batch_nor_order_nor_draft_changes_a_token(either: GraniteSpeech, clips: list[Utterance]) -> None:
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


def test_no_batch_is_longer_than_batch_seconds(granite: GraniteSpeech, clips: list[Utterance]) -> None:
    batches: list[int] = []
    hook = granite.encoder.input_linear.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    limit = 3 * max(item.duration for item in clips)
    recognize(granite, clips, INSTRUCTION, options(batch_seconds=limit))
    hook.remove()
    assert sum(batches) == len(clips) and max(batches) >= 3
    longest = sorted((item.duration for item in clips), reverse=True)
    for number, count in enumerate(batches):
        assert longest[sum(batches[:number])] * count <= limit


def test_a_clip_that_keeps_its_ctc_text_keeps_the_limit_too(
    model: Callable[[], GraniteSpeech], clips: list[Utterance]
) -> None:
    """A text longer than the limit is left to the language model, which cuts it and says so."""
    loaded, free = model(), DecodingOptions("relaxed", max_entropy=math.inf, min_probability=1.0, max_new_tokens=400)
    whole = recognize(loaded, clips, INSTRUCTION, free)
    assert {item.accepted_by for item in whole} == {"ctc"} and any(len(item.tokens) > SHORT for item in whole)
    for item, cut in zip(
        whole, recognize(loaded, clips, INSTRUCTION, replace(free, max_new_tokens=SHORT)), strict=True
    ):
        assert (cut.accepted_by == "ctc") == (len(item.tokens) < SHORT) and len(cut.tokens) <= SHORT
        assert not (cut.accepted_by == "ctc" and cut.truncated)


def test_bfloat16_is_decoded_and_judged_in_float32(nano: Path, clips: list[Utterance]) -> None:
    """As on CUDA. Near ties may fall otherwise there, so not every clip must be as transformers hears it."""
    narrow = load_model(str(nano), "bfloat16")
    greedy = recognize(narrow, clips[:3], INSTRUCTION, options())
    assert sum(item.tokens == hf_tokens(narrow, clip, SHORT) for item, clip in zip(greedy, clips[:3], strict=True)) >= 2
    with torch.inference_mode():
        assert narrow.logits(torch.zeros(1, narrow.lm_head.in_features, dtype=torch.bfloat16)).dtype == torch.float32
    for decoder in ("speculative", "relaxed"):
        heard = recognize(narrow, clips[:3], INSTRUCTION, replace(options(), decoder=decoder))
        assert all(item.tokens and item.log_probability <= 0 for item in heard)


def test_a_pass_asks_the_device_once(
    granite: GraniteSpeech, prompts: list[list[int]], alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer from a GPU is waited for, so what a pass has found comes in one."""
    asked: list[Tensor] = []
    fetch = Tensor.tolist

    def counted(self: Tensor) -> object:
        asked.append(self)
        return fetch(self)

    monkeypatch.setattr(Tensor, "tolist", counted)
    for name in ("item", "cpu", "numpy", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(Tensor, name, lambda self, name=name: pytest.fail(f"{name} asks the device"))
    rows = decoded(granite, prompts, alone)
    assert len(asked) == max(row.passes for row in rows)


def test_no_clips_give_no_hypotheses(granite: GraniteSpeech) -> None:
    assert recognize(granite, [], INSTRUCTION, options()) == []
