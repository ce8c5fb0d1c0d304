"""Whisper: the engine that is there is taken, and a tiny random model goes through transformers' own."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from finetune.core.errors import ModelError
from finetune.data.manifest import Utterance
from finetune.evaluation import whisper


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Which engines seem to be installed."""
    names: set[str] = set()
    monkeypatch.setattr(whisper, "find_spec", lambda name: name in names or None)
    monkeypatch.setattr(whisper, "version", lambda name: "9.9")
    yield names


def test_faster_whisper_goes_first(
    clips: list[Utterance], installed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class WhisperModel:
        def __init__(self, name: str) -> None:
            asked.append(name)

        def transcribe(self, wave: Any, language: str | None) -> tuple[Any, None]:
            asked.append((round(len(wave) / 16_000, 2), str(wave.dtype), language))
            return iter([SimpleNamespace(text=" Two parts,"), SimpleNamespace(text=" one  text.")]), None

    engine = ModuleType("faster_whisper")
    engine.WhisperModel = WhisperModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", engine)
    installed |= {"faster_whisper", "whisper", "transformers"}
    spoken = [Utterance("a", clips[0].audio_filepath, clips[0].duration, "", language="de-DE"), clips[1]]
    found, name = whisper.transcribe("small", spoken)
    assert [text for text, _ in found] == ["Two parts, one text."] * 2 and name == "faster-whisper 9.9"
    assert asked == [
        "small",
        (pytest.approx(clips[0].duration, abs=0.02), "float32", "de"),
        (pytest.approx(clips[1].duration, abs=0.02), "float32", None),
    ]


def test_openai_whisper_goes_second(
    clips: list[Utterance], installed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ModuleType("whisper")
    engine.load_model = lambda name: SimpleNamespace(  # type: ignore[attr-defined]
        transcribe=lambda wave, language: {"text": f" {name} in {language}"}
    )
    monkeypatch.setitem(sys.modules, "whisper", engine)
    installed |= {"whisper", "transformers"}
    found, name = whisper.transcribe("turbo", clips[:1])
    assert found[0][0] == "turbo in None" and found[0][1] > 0 and name == "openai-whisper 9.9"


def test_none_is_said_with_what_to_install(clips: list[Utterance], installed: set[str], tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match="whisper:small: needs one of faster-whisper, openai-whisper, transformers.*pip install faster-whisper",
    ):
        whisper.transcribe("small", clips)
    (tmp_path / "model.bin").touch()
    installed |= {"transformers"}
    with pytest.raises(ModelError, match="needs one of faster-whisper, and none"):
        whisper.transcribe(str(tmp_path), clips)


def test_weights_that_are_not_here_are_said(clips: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper, "find_spec", lambda name: name == "transformers" or None)
    with pytest.raises(ModelError, match=r"whisper:tiny: transformers cannot load it (.|\n)*whisper:FOLDER"):
        whisper.transcribe("tiny", clips)


@pytest.fixture(scope="module")
def random_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of one layer and random weights, with a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("whisper")
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|de|>",
        "<|transcribe|>",
        "<|translate|>",
        "<|notimestamps|>",
        *(f"<|{number / 50:.2f}|>" for number in range(1501)),
    ]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = WhisperTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=special[0],
        bos_token=special[0],
        eos_token=special[0],
        pad_token=special[0],
    )
    fast.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    place = {name: len(words) + number for number, name in enumerate(special)}
    config = WhisperConfig(
        vocab_size=len(words) + len(special),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        pad_token_id=place["<|endoftext|>"],
        bos_token_id=place["<|endoftext|>"],
        eos_token_id=place["<|endoftext|>"],
        decoder_start_token_id=place["<|startoftranscript|>"],
    )
    torch.manual_seed(0)  # whatever ran before: with some weights it writes nothing but spaces
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        max_length=12,
        suppress_tokens=list(range(len(words), len(words) + len(special))),
        eos_token_id=place["<|endoftext|>"],
        pad_token_id=place["<|endoftext|>"],
        bos_token_id=place["<|endoftext|>"],
        decoder_start_token_id=place["<|startoftranscript|>"],
        no_timestamps_token_id=place["<|notimestamps|>"],
        is_multilingual=True,
        lang_to_id={"<|en|>": place["<|en|>"], "<|de|>": place["<|de|>"]},
        task_to_id={"transcribe": place["<|transcribe|>"], "translate": place["<|translate|>"]},
    )
    model.save_pretrained(folder)
    return folder


def test_a_folder_goes_through_transformers(random_whisper: Path, clips: list[Utterance]) -> None:
    spoken = [Utterance("a", clips[0].audio_filepath, clips[0].duration, "", language="de"), clips[1]]
    found, name = whisper.transcribe(str(random_whisper), spoken)
    assert len(found) == 2 and all(text and seconds > 0 for text, seconds in found)
    assert name.startswith("transformers 5")
    assert whisper.transcribe(str(random_whisper), spoken)[0][0][0] == found[0][0]
