"""Prompts: equal to the model card, and no text of a user becomes a special token."""

from pathlib import Path

import pytest
from support import INSTRUCTION
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.core.errors import ModelError
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
