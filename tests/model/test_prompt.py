"""The prompt is the model card's to the letter, and no text of a user becomes a control token."""

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


def written(tokenizer: PreTrainedTokenizerBase, *keywords: str) -> str:
    audio = tokenizer.convert_tokens_to_ids("<|audio|>")
    return str(tokenizer.decode(render(tokenizer, INSTRUCTION, keywords).around(audio, 1)))


def test_the_prompt_is_the_model_cards(tokenizer: PreTrainedTokenizerBase) -> None:
    assert written(tokenizer) == CARD


def test_keywords_end_the_request(tokenizer: PreTrainedTokenizerBase) -> None:
    expected = CARD.replace("format?", "format? Keywords: warfarin, New York")
    assert written(tokenizer, "warfarin", "New York") == expected


def test_the_tokens_are_those_of_the_whole_string(tokenizer: PreTrainedTokenizerBase) -> None:
    """Cut at the audio token, which the tokenizer splits off before anything else."""
    audio = tokenizer.convert_tokens_to_ids("<|audio|>")
    assert render(tokenizer, INSTRUCTION).around(audio, 1) == tokenizer.encode(CARD, add_special_tokens=False)


def test_every_audio_token_has_its_place(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = render(tokenizer, INSTRUCTION)
    ids = prompt.around(7, 24)
    assert ids.count(7) == 24 and len(ids) == 24 + len(prompt.prefix) + len(prompt.suffix)


@pytest.mark.parametrize("mark", ["<|audio|>", "<|end_of_text|>", "<|pad|>"])
def test_control_tokens_are_refused_in_a_request(tokenizer: PreTrainedTokenizerBase, mark: str) -> None:
    for instruction, keywords in ((f"please {mark}", ()), (INSTRUCTION, ("warfarin", f"x{mark}"))):
        with pytest.raises(ModelError, match=r"holds <\|"):
            render(tokenizer, instruction, keywords)


@pytest.mark.parametrize("mark", ["<|audio|>", "<|end_of_text|>", "<|pad|>"])
def test_control_tokens_in_a_transcript_stay_text(tokenizer: PreTrainedTokenizerBase, mark: str) -> None:
    ids = encode_text(tokenizer, f"a {mark} b")
    assert tokenizer.decode(ids) == f"a {mark} b"
    assert not set(ids) & set(tokenizer.get_added_vocab().values())
    assert tokenizer.encode(mark, add_special_tokens=False) == [tokenizer.convert_tokens_to_ids(mark)], "switched back"


@pytest.mark.parametrize("text", ["colchicine at night", "it's 5 o'clock, isn't it?", "pêcheur ß", "日本語 カタ", ""])
def test_transcripts_come_back_from_their_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(encode_text(tokenizer, text)) == text


def test_a_tokenizer_without_a_template_is_an_error_of_the_model(nano: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(nano))
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="chat template"):
        render(tokenizer, INSTRUCTION)
    tokenizer.chat_template = "USER: ASSISTANT:"
    with pytest.raises(ModelError, match="exactly once"):
        render(tokenizer, INSTRUCTION)
