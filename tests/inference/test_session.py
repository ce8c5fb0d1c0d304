"""Passes of fixed shapes, as a GPU replays them, give the texts of ordinary passes. Here a replay computes again."""

import random
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from support import encoded_noise, randomize
from torch import Tensor

from finetune.inference import beam_search as beam_module
from finetune.inference.beam_search import beam_search
from finetune.inference.decode import DecodedRow, decode
from finetune.inference.draft import Draft
from finetune.inference.session import GraphSession, Session, open_session
from finetune.model.granite import EncodedAudio, SpeechModel, on_meta
from finetune.model.model_config import read_config
from finetune.model.pass_graphs import SLOT_STEP, WIDTHS, PassGraphs, can_record
from tests.family import NANO

FRAMES = [40, 200, 83, 130, 61]
LIMIT = 20
LONG = 1  # a clip whose text is longer than one token


def repeat(run: Callable[[], Tensor], _: torch.device) -> tuple[Callable[[], object], Tensor]:
    """Records a pass without a GPU: a replay runs it again, with the same memory for its result."""
    run()
    result = run().clone()
    return lambda: result.copy_(run()), result


@pytest.fixture(scope="module")
def granite(model: Callable[[], SpeechModel]) -> SpeechModel:
    return randomize(model(), end=1.9)


@pytest.fixture(scope="module")
def audio(granite: SpeechModel) -> EncodedAudio:
    return encoded_noise(granite, FRAMES)


@pytest.fixture(scope="module")
def prompts(granite: SpeechModel, audio: EncodedAudio) -> list[list[int]]:
    return [
        [*range(20 + row, 28 - row), *[granite.audio_token_id] * count, 11, 12 + row]
        for row, count in enumerate(audio.num_tokens.tolist())
    ]


@pytest.fixture
def graphs(granite: SpeechModel) -> PassGraphs:
    return PassGraphs(granite.language_model, repeat)


def decoded(
    granite: SpeechModel,
    audio: EncodedAudio,
    prompts: list[list[int]],
    drafts: list[list[int]],
    graphs: PassGraphs | None = None,
) -> list[DecodedRow]:
    """Decodes a batch, with replayed passes if there are `graphs`."""
    started = [Draft(granite.tokenizer, tokens, [1.0] * len(tokens)) for tokens in drafts]
    longest = max(map(len, prompts)) + LIMIT
    session = None if graphs is None else GraphSession(granite, len(prompts), longest, graphs)
    return decode(granite, audio, prompts, started, LIMIT, session=session)


@pytest.mark.parametrize("seed", range(4))
def test_replayed_passes_write_the_same_tokens(
    granite: SpeechModel, audio: EncodedAudio, prompts: list[list[int]], graphs: PassGraphs, seed: int
) -> None:
    """Also in batches that come later, with another number of rows, and with drafts of any quality."""
    rng = random.Random(seed)
    for size in (5, 1, 3):
        rows = rng.sample(range(len(prompts)), size)
        part, some = audio.select(rows), [prompts[row] for row in rows]
        plain = decoded(granite, part, some, [[]] * size)
        drafts = [[token if rng.random() > 0.2 else 9 for token in row.tokens] for row in plain]
        expected = decoded(granite, part, some, drafts)
        found = decoded(granite, part, some, drafts, graphs)
        assert [row.tokens for row in found] == [row.tokens for row in plain]
        assert [row.passes for row in found] == [row.passes for row in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
    assert {size for size, _, _ in graphs._passes} <= {1, 2, 4, 8} and {width for _, width, _ in graphs._passes} <= {
        *WIDTHS
    }


def test_beam_search_replays_its_passes(
    granite: SpeechModel,
    audio: EncodedAudio,
    prompts: list[list[int]],
    graphs: PassGraphs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rows become more after the first pass, and change places."""
    expected = beam_search(granite, audio, prompts, 3, LIMIT)
    longest = max(map(len, prompts)) + LIMIT
    monkeypatch.setattr(beam_module, "open_session", lambda *_: GraphSession(granite, len(prompts), longest, graphs))
    found = beam_search(granite, audio, prompts, 3, LIMIT, cuda_graphs=True)
    assert [[beam.tokens for beam in search.best] for search in found] == [
        [beam.tokens for beam in search.best] for search in expected
    ]
    assert {16} <= {size for size, _, _ in graphs._passes}  # 5 clips with 3 texts each


def test_a_pass_is_recorded_once(
    granite: SpeechModel, audio: EncodedAudio, prompts: list[list[int]], graphs: PassGraphs
) -> None:
    part = audio.select([LONG])
    decoded(granite, part, [prompts[LONG]], [[]], graphs)
    (first,) = graphs._passes.values()
    decoded(granite, part, [prompts[LONG]], [[]], graphs)
    assert [*graphs._passes.values()] == [first]


def test_passes_are_recorded_again_if_the_weights_move(
    granite: SpeechModel, audio: EncodedAudio, prompts: list[list[int]], graphs: PassGraphs
) -> None:
    """A graph reads the addresses of its recording: other weights there would give a wrong text without a word."""
    part, norm = audio.select([LONG]), granite.language_model.norm
    decoded(granite, part, [prompts[LONG]], [[]], graphs)
    (first,) = graphs._passes.values()
    before = norm.weight
    norm.weight = torch.nn.Parameter(before.clone(), requires_grad=False)
    try:
        decoded(granite, part, [prompts[LONG]], [[]], graphs)
    finally:
        norm.weight = before
    (second,) = graphs._passes.values()
    assert second is not first


def test_a_larger_batch_gets_more_memory(
    granite: SpeechModel, audio: EncodedAudio, prompts: list[list[int]], graphs: PassGraphs
) -> None:
    decoded(granite, audio.select([LONG]), [prompts[LONG]], [[]], graphs)
    assert {size for size, _, _ in graphs._passes} == {1}
    decoded(granite, audio, prompts, [[]] * 5, graphs)
    assert 8 in {size for size, _, _ in graphs._passes}
    slots = {slots for _, _, slots in graphs._passes}
    assert len(graphs._memory) == max(graphs.keys_and_values(8, count).numel() for count in slots)
    assert all(count % SLOT_STEP == 0 for count in slots)


def test_no_pass_waits_for_the_gpu() -> None:
    """A tensor on the meta device has no values, so a step that reads one on the host, or needs a copy, is an error."""
    meta = on_meta(read_config(str(NANO)), "meta")
    graphs = PassGraphs(meta.language_model, lambda run, _: (run, run()))
    graphs._memory = graphs._memory.to("meta")
    with torch.inference_mode():
        for rows in ([[1]], [[1, 2, 3], [4]], [[5]] * 7):
            hidden = graphs.read(rows, [11] * len(rows), SLOT_STEP)
            assert hidden.shape == (sum(map(len, rows)), meta.language_model.config.hidden_size)


def test_a_cpu_records_nothing(granite: SpeechModel) -> None:
    assert can_record(granite.language_model)
    assert type(open_session(granite, [[1, 2]], 100, cuda_graphs=True)) is Session


def test_passes_are_recorded_again_after_a_switch_of_lora(
    model: Callable[[], SpeechModel], audio: EncodedAudio, prompts: list[list[int]]
) -> None:
    """The text is that of the active LoRA, although the addresses of all weights stay."""
    adapted = randomize(model())
    lora = inject_adapter_in_model(LoraConfig(target_modules=["q_proj"], init_lora_weights=False), adapted.hf)
    graphs = PassGraphs(adapted.language_model, repeat)
    part, some, texts = audio.select([LONG]), [prompts[LONG]], list[list[int]]()
    for enabled in (True, False, True):
        for layer in (part for part in lora.modules() if hasattr(part, "lora_A")):
            layer.enable_adapters(enabled)
        (row,) = decoded(adapted, part, some, [[]], graphs)
        assert row.tokens == decoded(adapted, part, some, [[]])[0].tokens
        texts.append(row.tokens)
    assert texts[0] == texts[2] != texts[1]
