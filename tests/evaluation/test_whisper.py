"""Whisper: the choice of the engine, the calls of each, and transcription with a tiny random model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.core.errors import ModelError
from finetune.data.manifest import Utterance
from finetune.evaluation import whisper
from finetune.evaluation.systems import System, run_system


class FakePackages(whisper.Packages):
    """Packages of version 9.9; loads the given modules, and others if they are installed."""

    def __init__(self, names: set[str], **modules: Any) -> None:
        self.names, self.modules = names, modules

    def has(self, module: str) -> bool:
        return module in self.names

    def load(self, module: str) -> Any:
        return self.modules.get(module) or super().load(module)

    def version(self, distribution: str) -> str:
        return "9.9"


def test_faster_whisper_is_the_first_choice(clips: list[Utterance]) -> None:
    calls: list[Any] = []

    class WhisperModel:
        def __init__(self, name: str) -> None:
            calls.append(name)

        def transcribe(self, wave: Any, language: str | None) -> tuple[Any, None]:
            calls.append((round(len(wave) / 16_000, 2), str(wave.dtype), language))
            return iter([SimpleNamespace(text=" Two parts,"), SimpleNamespace(text=" one  text.")]), None

    module = SimpleNamespace(WhisperModel=WhisperModel)
    packages = FakePackages({"faster_whisper", "whisper", "transformers"}, faster_whisper=module)
    utterances = [Utterance("a", clips[0].audio_filepath, clips[0].duration, "", language="de-DE"), clips[1]]
    outputs, name = whisper.transcribe("small", utterances, packages)
    assert [output.text for output in outputs] == ["Two parts, one text."] * 2 and name == "faster-whisper 9.9"
    assert calls == [
        "small",
        (pytest.approx(clips[0].duration, abs=0.02), "float32", "de"),
        (pytest.approx(clips[1].duration, abs=0.02), "float32", None),
    ]


def test_openai_whisper_is_the_second_choice(clips: list[Utterance]) -> None:
    module = SimpleNamespace(
        load_model=lambda name: SimpleNamespace(transcribe=lambda wave, language: {"text": f" {name} in {language}"})
    )
    packages = FakePackages({"whisper", "transformers"}, whisper=module)
    outputs, name = whisper.transcribe("turbo", clips[:1], packages)
    assert outputs[0].text == "turbo in None" and outputs[0].seconds > 0 and name == "openai-whisper 9.9"


def test_without_an_engine_the_error_names_the_package(clips: list[Utterance], tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match="whisper:small: needs faster-whisper or openai-whisper or transformers.*pip install faster-whisper",
    ):
        whisper.transcribe("small", clips, FakePackages(set()))
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelError, match="needs faster-whisper, which is not installed"):
        whisper.transcribe(str(tmp_path), clips, FakePackages({"transformers"}))


def test_weights_that_cannot_be_loaded_are_an_error(clips: list[Utterance]) -> None:
    with pytest.raises(ModelError, match=r"whisper:tiny: transformers cannot load it (.|\n)*whisper:FOLDER"):
        whisper.transcribe("tiny", clips, FakePackages({"transformers"}))


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
    token_ids = {name: len(words) + number for number, name in enumerate(special)}
    config = WhisperConfig(
        vocab_size=len(words) + len(special),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        pad_token_id=token_ids["<|endoftext|>"],
        bos_token_id=token_ids["<|endoftext|>"],
        eos_token_id=token_ids["<|endoftext|>"],
        decoder_start_token_id=token_ids["<|startoftranscript|>"],
    )
    torch.manual_seed(0)  # with some random weights the output is only spaces
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        max_length=12,
        suppress_tokens=list(range(len(words), len(words) + len(special))),
        eos_token_id=token_ids["<|endoftext|>"],
        pad_token_id=token_ids["<|endoftext|>"],
        bos_token_id=token_ids["<|endoftext|>"],
        decoder_start_token_id=token_ids["<|startoftranscript|>"],
        no_timestamps_token_id=token_ids["<|notimestamps|>"],
        is_multilingual=True,
        lang_to_id={"<|en|>": token_ids["<|en|>"], "<|de|>": token_ids["<|de|>"]},
        task_to_id={"transcribe": token_ids["<|transcribe|>"], "translate": token_ids["<|translate|>"]},
    )
    model.save_pretrained(folder)
    return folder


def test_a_folder_is_transcribed_with_transformers(random_whisper: Path, clips: list[Utterance]) -> None:
    utterances = [Utterance("a", clips[0].audio_filepath, clips[0].duration, "", language="de"), clips[1]]
    outputs, name = whisper.transcribe(str(random_whisper), utterances)
    assert len(outputs) == 2 and all(output.text and output.seconds > 0 for output in outputs)
    assert name.startswith("transformers 5")
    hypotheses = run_system(System("whisper:x", "whisper", str(random_whisper)), utterances)
    assert [output.text for output in hypotheses.outputs if output] == [output.text for output in outputs]
    assert hypotheses.about == f"{name}, one clip at a time" and hypotheses.failures == {}
