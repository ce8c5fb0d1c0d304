"""Prompts: equal to the model card, and no text of a user becomes a special token."""

from pathlib import Path

import pytest
from family import make_tokenizer
from support import INSTRUCTION
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.core.errors import ModelError
from finetune.core.prompts import PROFILES
from finetune.model.prompt import encode_text, render

CARD = "USER: <|audio|>can you transcribe the speech into a written format?\n ASSISTANT:"


@pytest.fixture(scope="module")
def tokenizer(nano: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(nano))
    return loaded


def prompt_text(tokenizer: PreTrainedTokenizerBase, *keywords: str) -> str:
    audio = tokenizer.convert_tokens_to_ids("<|audio|>")
    return str(tokenizer.decode(render(tokenizer, INSTRUCTION, keywords).around(audio, 1)))


def test_prompt_equals_the_model_card(tokenizer: PreTrainedTokenizerBase) -> None:
    assert prompt_text(tokenizer) == CARD


def test_keywords_follow_the_instruction(tokenizer: PreTrainedTokenizerBase) -> None:
    expected = CARD.replace("format?", "format? Keywords: warfarin, New York")
    assert prompt_text(tokenizer, "warfarin", "New York") == expected


SYSTEM = "<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024.\nToday's Date: {date}.\n"
ROLES = (
    SYSTEM + "You are Granite, developed by IBM. You are a helpful AI assistant<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>{request}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
)


@pytest.mark.parametrize(
    ("version", "date", "keywords", "request_text"),
    [
        ("3.3", "April 9, 2025", (), f"<|audio|>{INSTRUCTION}"),
        ("3.3", "April 9, 2025", ("stent",), f"<|audio|>{INSTRUCTION} Keywords: stent"),
        ("4.1-plus", "December 19, 2024", (), f"<|audio|> {INSTRUCTION}"),
        ("4.1-plus", "December 19, 2024", ("a", "b"), "<|audio|> transcribe the speech to text. Keywords: a, b"),
    ],
)
def test_prompts_with_a_system_turn_equal_the_model_cards(
    version: str, date: str, keywords: tuple[str, ...], request_text: str, tmp_path: Path
) -> None:
    make_tokenizer(tmp_path, roles=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    audio = tokenizer.convert_tokens_to_ids("<|audio|>")
    ids = render(tokenizer, INSTRUCTION, keywords, PROFILES[version]).around(audio, 1)
    expected = ROLES.format(date=date, request=request_text)
    assert tokenizer.decode(ids) == expected
    assert ids == tokenizer.encode(expected, add_special_tokens=False)


def test_tokens_equal_those_of_the_complete_string(tokenizer: PreTrainedTokenizerBase) -> None:
    """Prefix and suffix are encoded separately, which is safe because the tokenizer splits at special tokens first."""
    audio = tokenizer.convert_tokens_to_ids("<|audio|>")
    assert render(tokenizer, INSTRUCTION).around(audio, 1) == tokenizer.encode(CARD, add_special_tokens=False)


def test_prompt_contains_every_audio_token(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = render(tokenizer, INSTRUCTION)
    ids = prompt.around(7, 24)
    assert ids.count(7) == 24 and len(ids) == 24 + len(prompt.prefix) + len(prompt.suffix)


@pytest.mark.parametrize("token", ["<|audio|>", "<|end_of_text|>", "<|pad|>"])
def test_special_tokens_in_a_request_are_refused(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    for instruction, keywords in ((f"please {token}", ()), (INSTRUCTION, ("warfarin", f"x{token}"))):
        with pytest.raises(ModelError, match=r"contains the special token <\|"):
            render(tokenizer, instruction, keywords)


@pytest.mark.parametrize("token", ["<|audio|>", "<|end_of_text|>", "<|pad|>"])
def test_special_tokens_in_a_transcript_stay_text(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    ids = encode_text(tokenizer, f"a {token} b")
    assert tokenizer.decode(ids) == f"a {token} b"
    assert not set(ids) & set(tokenizer.get_added_vocab().values())
    assert tokenizer.encode(token, add_special_tokens=False) == [tokenizer.convert_tokens_to_ids(token)], (
        "encode_text leaves the tokenizer unchanged"
    )


@pytest.mark.parametrize("text", ["colchicine at night", "it's 5 o'clock, isn't it?", "pêcheur ß", "日本語 カタ", ""])
def test_transcripts_round_trip_through_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(encode_text(tokenizer, text)) == text


def test_invalid_chat_template_raises_model_error(nano: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(nano))
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="chat template"):
        render(tokenizer, INSTRUCTION)
    tokenizer.chat_template = "USER: ASSISTANT:"
    with pytest.raises(ModelError, match="exactly once"):
        render(tokenizer, INSTRUCTION)
