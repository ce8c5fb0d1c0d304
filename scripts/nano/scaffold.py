"""Configuration, tokenizer and other files of the embedded model, in hub layout; the weights are random or grown."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoTokenizer, GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

from finetune.core.prompts import DEFAULT_PROFILE
from finetune.model.granite import SpeechModel, load_model

PAD, EOS, AUDIO = "<|pad|>", "<|end_of_text|>", "<|audio|>"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {{ message['content'] }}\n"
    " ASSISTANT:{% else %}{{ message['content'] }}<|end_of_text|>{% endif %}{% endfor %}"
)
TARGETS = ("en", "es", "fr", "pt", "de")  # languages of the phrase book
ACCENTS = "áéíóúüñàâçèêëîïôùûœãõäöß"
KANA = "".join(map(chr, (*range(0x3041, 0x3097), *range(0x30A1, 0x30FB), 0x30FC)))
CHARACTERS = 600_000  # of each language, from which the tokenizer learns
OFTEN = 4000  # times that a letter which must be one token occurs alone


@dataclass(frozen=True)
class Sizes:
    """The sizes of the model; the default is that of `data/granite-speech-nano`."""

    blocks: int = 6
    width: int = 160
    text_width: int = 256
    text_layers: int = 6
    text_inner: int = 704
    key_heads: int = 2
    vocabulary: int = 2048
    head: int = 32


def config(sizes: Sizes = Sizes()) -> GraniteSpeechConfig:
    """The configuration of granite-4.0-1b-speech with fewer layers, smaller widths and a smaller vocabulary."""
    heads, end = sizes.width // sizes.head, sizes.vocabulary
    return GraniteSpeechConfig(
        encoder_config={
            "model_type": "granite_speech_encoder",
            "num_layers": sizes.blocks,
            "hidden_dim": sizes.width,
            "num_heads": heads,
            "dim_head": sizes.head,
            "input_dim": 160,
            "output_dim": 348,
            "context_size": 200,
            "max_pos_emb": 512,
            "conv_kernel_size": 15,
            "conv_expansion_factor": 2,
            "feedforward_mult": 4,
            "dropout": 0.1,
        },
        projector_config={
            "model_type": "blip_2_qformer",
            "num_hidden_layers": 2,
            "hidden_size": sizes.width,
            "intermediate_size": 4 * sizes.width,
            "num_attention_heads": heads,
            "encoder_hidden_size": sizes.width,
            "cross_attention_frequency": 1,
            "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "vocab_size": 30522,
        },
        text_config={
            "model_type": "granite",
            "architectures": ["GraniteForCausalLM"],  # converters of engines look it up
            "num_hidden_layers": sizes.text_layers,
            "hidden_size": sizes.text_width,
            "intermediate_size": sizes.text_inner,
            "num_attention_heads": sizes.text_width // sizes.head,
            "num_key_value_heads": sizes.key_heads,
            "vocab_size": end,
            "max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "attention_multiplier": 1 / sizes.head,
            "residual_multiplier": 0.22,
            "tie_word_embeddings": False,
            "bos_token_id": end - 2,
            "eos_token_id": end - 2,
            "pad_token_id": end - 3,
        },
        audio_token_index=end - 1,
        downsample_rate=5,
        window_size=15,
        has_lora_adapter=False,
        tie_word_embeddings=False,
        dtype="float32",
        architectures=["GraniteSpeechForConditionalGeneration"],
    )


def build_tokenizer(texts: Mapping[str, Sequence[str]], folder: Path, vocabulary: int = Sizes.vocabulary) -> None:
    """Trains the byte-level BPE and writes all files except config and weights to `folder`.

    As many characters of each language are used. Every accented letter and kana is a token of its own.

    Args:
        texts: sentences of each language.
        folder: of the model.
        vocabulary: number of tokens, with the special ones.

    Raises:
        SystemExit: the sentences have too few different words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 3, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(_material(texts), trainer)
    if bpe.get_vocab_size() < vocabulary - 3:
        raise SystemExit(f"too little text: the tokenizer has only {bpe.get_vocab_size() + 3} of {vocabulary} tokens")
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (PAD, EOS, AUDIO)])
    bpe.save(str(folder / "tokenizer.json"))
    for name, content in _side_files().items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def _material(texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """As many characters of each language; sentences of a language with fewer occur several times."""
    limit = min(CHARACTERS, max((sum(map(len, sentences)) for sentences in texts.values()), default=0))
    for sentences in texts.values():
        count = 0
        for text in cycle(sentences):
            if count >= limit:
                break
            count += max(1, len(text))
            yield text
    for prompt in (DEFAULT_PROFILE.transcribe(), *map(DEFAULT_PROFILE.translate, TARGETS)):
        yield from [f"USER: {prompt} Keywords: a, b\n ASSISTANT:"] * 300
    for letter in ACCENTS + KANA:
        yield f"{letter}\n" * OFTEN


def _side_files() -> dict[str, Any]:
    return {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "bos_token": EOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "padding_side": "left",
            "model_max_length": 4096,
            "model_input_names": ["input_ids", "attention_mask"],  # the model takes no token_type_ids
            "clean_up_tokenization_spaces": False,
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "GraniteSpeechFeatureExtractor",
            "processor_class": "GraniteSpeechProcessor",
            "melspec_kwargs": {"sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80},
            "sampling_rate": 16000,
            "projector_window_size": 15,
            "projector_downsample_rate": 5,
        },
        "processor_config.json": {"processor_class": "GraniteSpeechProcessor", "audio_token": AUDIO},
    }


def build_model(folder: Path, sizes: Sizes = Sizes(), seed: int = 0) -> SpeechModel:
    """The model with random weights and the tokenizer in `folder`."""
    torch.manual_seed(seed)
    hf = GraniteSpeechForConditionalGeneration(config(sizes))
    # The default of 0.02 suits wide models; this narrow model trains faster with larger embeddings.
    hf.model.language_model.embed_tokens.weight.data.normal_(0.0, 0.08)
    return SpeechModel(hf, AutoTokenizer.from_pretrained(folder), str(folder))


def copy_model(source: Path, folder: Path) -> SpeechModel:
    """The model in `source`; its files except config, weights and scores go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", *_side_files(), "chat_template.jinja"):
        shutil.copyfile(source / name, folder / name)
    model = load_model(str(source), "float32")
    model.hf.config.text_config.architectures = config().text_config.architectures
    return model


@torch.no_grad()
def keep(model: SpeechModel, before: Mapping[str, Tensor], share: float) -> None:
    """Moves each weight by `share` of the way back to that before the training, in place.

    The mean of the weights before and after a training keeps more of what the model could do before than training does:
    WiSE-FT (Wortsman et al., CVPR 2022, arXiv 2109.01903).
    """
    for name, value in model.hf.state_dict().items():
        if value.is_floating_point():
            value.lerp_(before[name], share)


def grow(model: SpeechModel, old: SpeechModel) -> None:
    """Copies encoder and projector of an older model with at most as many blocks, in place.

    New blocks follow the old ones of each half, because the middle layer feeds its CTC output back. They add nothing at
    first: their last linear layers are zero. A block ends with a norm; its scale and shift move to the last new block,
    so that the norms before it change nothing.

    Raises:
        SystemExit: the older model has another width or more blocks.
    """
    new_blocks, old_blocks = model.encoder.layers, old.encoder.layers
    halves = [len(old_blocks) // 2, len(new_blocks) // 2]
    added = [halves[1] - halves[0], len(new_blocks) - len(old_blocks) - halves[1] + halves[0]]
    if (
        not halves[0]
        or min(added) < 0
        or model.encoder.input_linear.weight.shape != old.encoder.input_linear.weight.shape
    ):
        raise SystemExit("--start: this model has more blocks or another width; use --start none to train from scratch")
    ends = {halves[0] - 1: added[0], len(old_blocks) - 1: added[1]}
    place = 0
    with torch.no_grad():
        for number, block in enumerate(old_blocks):
            new_blocks[place].load_state_dict(block.state_dict())
            for extra in range(1, ends.get(number, 0) + 1):
                _move_norm(new_blocks[place + extra - 1].post_norm, new_blocks[place + extra].post_norm)
                for layer in _last_layers(new_blocks[place + extra]):
                    layer.weight.zero_()
                    if layer.bias is not None:
                        layer.bias.zero_()
            place += 1 + ends.get(number, 0)
        for name in ("input_linear", "out", "out_mid"):
            getattr(model.encoder, name).load_state_dict(getattr(old.encoder, name).state_dict())
        known = model.projector.state_dict()
        fits = {name: value for name, value in old.projector.state_dict().items() if known[name].shape == value.shape}
        model.projector.load_state_dict(fits, strict=False)


def _last_layers(block: Any) -> tuple[nn.Module, ...]:
    return block.ff1.down_proj, block.attn.to_out, block.conv.down_conv, block.ff2.down_proj


def _move_norm(source: Any, target: Any) -> None:
    """Gives scale and shift of a layer norm to another one that directly follows it."""
    target.load_state_dict(source.state_dict())
    source.weight.fill_(1.0)
    source.bias.zero_()
