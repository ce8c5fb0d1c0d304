"""Model, clips and trainable parts for both sides of the benchmark, in three sizes."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

from finetune.core.config import LoraPart, Recipe
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import Utterance, read_manifest
from finetune.model.granite import SpeechModel, load_model
from finetune.model.prompt import encode_text
from finetune.model.trainable import LoraSpec, PartSpec, TrainableParts

ROOT = Path(__file__).resolve().parents[2]
NANO, VOCABULARY = ROOT / "data" / "granite-speech-nano", ROOT / "data" / "vocabulary"
REAL = ROOT / "tests" / "fixtures" / "granite-4.0-1b-speech"  # only its config.json
BATCH, ACCUMULATION = 16, 2  # as in the notebook
SIZES = {"nano": 128, "middle": 32, "full": 256}  # clips of each
TOKENS_PER_SECOND = 3.3  # of text: 150 English words a minute in the real model's vocabulary
LORA = LoraPart()

# nano's configuration, widened to 99 million parameters in the proportions of the real model.
MIDDLE: dict[str, dict[str, float]] = {
    "encoder_config": {"num_layers": 8, "hidden_dim": 320, "num_heads": 5, "dim_head": 64},
    "projector_config": {"hidden_size": 320, "encoder_hidden_size": 320, "intermediate_size": 1280},
    "text_config": {
        "num_hidden_layers": 16,
        "hidden_size": 640,
        "intermediate_size": 1280,
        "num_attention_heads": 10,
        "num_key_value_heads": 2,
        "vocab_size": 16384,
        "attention_multiplier": 1 / 64,
    },
}


@dataclass(frozen=True)
class Setup:
    """The arguments of the command."""

    size: str
    device: str
    clips: int
    steps: int
    rank: int
    batch_seconds: float | None


@dataclass(frozen=True, eq=False)
class Material:
    """Utterances with their waveforms (N,) at 16 kHz, decoded before the clock starts."""

    utterances: list[Utterance]
    waves: list[np.ndarray]


def middle_config() -> GraniteSpeechConfig:
    """A model of about 100 million parameters, with nano's tokenizer and constants."""
    config = GraniteSpeechConfig.from_pretrained(NANO)
    for section, values in MIDDLE.items():
        for name, value in values.items():
            setattr(getattr(config, section), name, value)
    return config


def build_model(size: str, device: str) -> SpeechModel:
    """The embedded model, or random weights made on the device; bfloat16 on CUDA, all frozen.

    All sizes use nano's tokenizer, because the real model's is not included; every vocabulary contains its tokens.
    """
    if size == "nano":
        return load_model(str(NANO), "auto", device)
    config = middle_config() if size == "middle" else GraniteSpeechConfig.from_pretrained(REAL)
    hf = random_weights(config, torch.bfloat16 if device == "cuda" else torch.float32, device)
    return SpeechModel(hf.requires_grad_(False), AutoTokenizer.from_pretrained(NANO), size).eval()


def random_weights(
    config: GraniteSpeechConfig, dtype: torch.dtype, device: str
) -> GraniteSpeechForConditionalGeneration:
    """A model with seeded random weights, made on the device in the dtype."""
    for part in (config, config.encoder_config, config.projector_config, config.text_config):
        part.dtype = dtype  # each part is made in its own
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    try:
        with torch.device(device):
            return GraniteSpeechForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(usual)


def gather(setup: Setup, model: SpeechModel) -> Material:
    """The clips of a size, the same in every process.

    nano has embedded ones. The other sizes have noise: durations log-normal around 5 s (sigma 0.6), limited to 1 to
    20 s, and random words of the embedded sentences until there are 3.3 tokens per second.
    """
    if setup.size == "nano":
        chosen = random.Random(0).sample(read_manifest(VOCABULARY / "train.jsonl"), setup.clips)
        return Material(
            chosen, [load_audio(VOCABULARY / item.audio_filepath, item.offset, item.duration) for item in chosen]
        )
    rng = np.random.default_rng(0)
    rows = (VOCABULARY / "sentences.tsv").read_text(encoding="utf-8").splitlines()[1:]
    words = sorted({word for row in rows for word in row.split("\t")[2].split()})
    cost = {word: len(encode_text(model.tokenizer, f" {word}")) for word in words}
    material = Material([], [])
    for index in range(setup.clips):
        samples = round(float(np.clip(np.exp(rng.normal(np.log(5), 0.6)), 1, 20)) * SAMPLE_RATE)
        text, tokens = list[str](), 0
        while tokens < TOKENS_PER_SECOND * samples / SAMPLE_RATE:
            text.append(words[rng.integers(len(words))])
            tokens += cost[text[-1]]
        material.utterances.append(Utterance(f"noise-{index}", "", samples / SAMPLE_RATE, " ".join(text)))
        material.waves.append(rng.standard_normal(samples, dtype=np.float32) * np.float32(0.1))
    return material


def recipe_of(setup: Setup, utterances: list[Utterance], checkpointing: bool) -> Recipe:
    """The recipe of this toolkit's side.

    By default a batch can hold 16 clips of the mean duration, so that an optimizer step has about as many clips as
    the notebook's.
    """
    durations = [item.duration for item in utterances]
    seconds = setup.batch_seconds or max(BATCH * sum(durations) / len(durations), *durations)
    return Recipe.model_validate(
        {
            "name": "bench",
            "model": {"base": "-"},
            "data": {"train": ["-"], "valid": ["-"], "test": ["-"]},
            "parts": {"lora": {"rank": setup.rank}, "projector": {"mode": "full"}},
            "train": {"batch_seconds": seconds, "accumulation": ACCUMULATION, "learning_rate": 3e-5},
            "machine": {"gradient_checkpointing": checkpointing},
        }
    )


def opened(rank: int, projector: str) -> TrainableParts:
    """LoRA on the language model, and the projector full or frozen; the notebook trains the case of rank 0 and full."""
    return TrainableParts(
        LoraSpec(rank, LORA.alpha, 0.0, "lora", LORA.modules),
        PartSpec(projector, 1, 1.0),
        PartSpec("frozen", 1, 1.0),
        1,
        False,
        False,
        0,
    )
