"""The Granite Speech model of any layout: loading, audio encoding, embedding and logits.

No other file accesses attributes of transformers' Granite Speech classes, because transformers 5.10 to 5.23 has two
pitfalls: its submodules moved to `model.model`, and its `forward` omits the division by `logits_scaling`. Here logits
are always `lm_head(h) / logits_scaling`, and `forward` of the transformers class is never called.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.errors import ModelError
from finetune.core.layouts import max_positions
from finetune.core.prompts import PromptProfile, profile_of
from finetune.model.bpe_head import BpeHead, check_bpe_head, find_bpe_head
from finetune.model.conformer import Block, conformer_block, encode, frame_mask, project
from finetune.model.ctc import BLANK, NUM_LABELS
from finetune.model.folder_checks import count_weights
from finetune.model.load_weights import check_quantization, load_weights, model_class
from finetune.model.model_config import read_config
from finetune.model.model_source import excerpt

MAX_GROWTH = 1.5  # parameters of the configuration for each value in the weights
AUDIO_TOKEN = "<|audio|>"
NO_LABEL = -1e4  # logit of a label that a CTC head does not have; the minimum of the dtype would overflow in sums
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class EncodedAudio:
    """A batch of clips after the encoder and the projector."""

    states: Tensor  # (B, T, D) encoder states
    num_frames: Tensor  # (B,) real encoder frames
    embeds: Tensor  # (B, A, H) audio embeddings
    num_tokens: Tensor  # (B,) real audio tokens
    speech: Tensor | None = None  # (B, T) 1 - posterior of the blank in the middle layer, for models with a BPE head

    def select(self, rows: list[int]) -> "EncodedAudio":
        """The clips with these row indices."""
        tensors = (self.states, self.num_frames, self.embeds, self.num_tokens, self.speech)
        return EncodedAudio(*(None if tensor is None else tensor[rows] for tensor in tensors))  # type: ignore[arg-type]

    @staticmethod
    def concat(parts: "Sequence[EncodedAudio]") -> "EncodedAudio":
        """The clips of several batches, in order; zeros pad them to the longest."""
        if len(parts) == 1:
            return parts[0]
        speech = [part.speech for part in parts if part.speech is not None]
        return EncodedAudio(
            _concat_padded([part.states for part in parts]),
            torch.cat([part.num_frames for part in parts]),
            _concat_padded([part.embeds for part in parts]),
            torch.cat([part.num_tokens for part in parts]),
            _concat_padded(speech) if speech else None,
        )


def _concat_padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors (B, T, ...) one after another, with zeros up to the largest T."""
    longest = max(tensor.shape[1] for tensor in tensors)
    padding = [[0, 0] * (tensor.ndim - 2) + [0, longest - tensor.shape[1]] for tensor in tensors]
    return torch.cat([nn.functional.pad(tensor, pad) for tensor, pad in zip(tensors, padding, strict=True)])


class SpeechModel(nn.Module):
    """A Granite Speech model with its tokenizer; `hf` is the transformers model, which training changes in place.

    `bpe_file` has the weights of a second CTC head for drafts; None without one. `encoder_block` runs a layer of the
    encoder.
    """

    def __init__(self, hf: Any, tokenizer: Tokenizer, source: str, bpe_file: Path | None = None) -> None:
        super().__init__()
        self.hf = hf
        self.tokenizer = tokenizer
        self.source = source
        self.bpe_file = bpe_file
        self.encoder_block: Block = conformer_block
        config = hf.config
        self.hidden = int(config.encoder_config.hidden_dim)
        self.num_ctc_labels = int(config.encoder_config.output_dim)
        self.cat_layers = tuple(getattr(config.encoder_config, "cat_hidden_layers", None) or ())
        self.logits_scaling = float(config.text_config.logits_scaling)
        self.audio_token_id = int(config.audio_token_id)
        self.window, self.queries = config.window_size, config.window_size // config.downsample_rate
        # torch prefers cuDNN attention on an H100. It builds a new plan for each shape, and here the shape differs
        # in each batch and decoding pass. At some lengths its gradients under a mask are NaN (pytorch#196678).
        torch.backends.cuda.enable_cudnn_sdp(False)

    @cached_property
    def profile(self) -> PromptProfile:
        """The prompts of this version of the model."""
        return profile_of(self.source, self.hf.config.to_dict(), self.bpe_file is not None)

    @cached_property
    def bpe_head(self) -> BpeHead | None:
        """The second CTC head, read when the first draft needs it. It is frozen, and no part of `hf`."""
        return None if self.bpe_file is None else BpeHead.read(self.bpe_file, self.encoder.input_linear.weight)

    # The return types are Any because torch types each attribute of an nn.Module as Tensor | Module.
    @property
    def encoder(self) -> Any:
        return self.hf.model.encoder

    @property
    def projector(self) -> Any:
        return self.hf.model.projector

    @property
    def language_model(self) -> Any:
        return self.hf.model.language_model

    @property
    def lm_head(self) -> Any:
        return self.hf.lm_head

    @property
    def device(self) -> torch.device:
        return self.encoder.input_linear.weight.device

    def autocast(self) -> torch.autocast:
        """Autocast to bfloat16 on CUDA and for bfloat16 weights, because trainable parameters are float32."""
        low = self.device.type == "cuda" or self.encoder.input_linear.weight.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    @property
    def max_positions(self) -> int:
        """Context length of the language model: audio tokens, prompt text and generated text together."""
        text = self.hf.config.text_config
        return max_positions(int(text.max_position_embeddings), text.rope_parameters or {})

    def num_audio_tokens(self, num_frames: Tensor) -> Tensor:
        """Audio tokens (B,) of clips with `num_frames` (B,) encoder frames: 3 for each full or partial window of 15."""
        return (num_frames + self.window - 1) // self.window * self.queries

    def encode(self, features: Tensor, num_frames: Tensor) -> EncodedAudio:
        """Encodes features (B, T, 160) with frame counts (B,). The result of a clip is independent of its batch."""
        features = features.to(self.encoder.input_linear.weight.dtype)
        trains = any(p.requires_grad for p in self.encoder.parameters())
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            states, middle = encode(self.encoder, features, num_frames, self.cat_layers, self.encoder_block)
        embeds = project(self.projector, states, num_frames)
        speech = None
        if self.bpe_file is not None:
            speech = 1 - middle.detach().float().softmax(-1)[..., BLANK]
        return EncodedAudio(states, num_frames, embeds, self.num_audio_tokens(num_frames), speech)

    def last_layer(self, states: Tensor) -> Tensor:
        """The states of the last encoder layer: states (B, T, D) without those of `cat_layers`, which precede them."""
        return states[..., -self.hidden :]

    def ctc_logits(self, states: Tensor) -> Tensor:
        """CTC logits (B, T, 348) of the last layer from encoder states (B, T, D).

        A head with 256 labels (granite-speech-3.3) has no katakana; their logits are so low that they are never read.
        """
        logits = self.encoder.out(self.last_layer(states))
        missing = NUM_LABELS - self.num_ctc_labels
        return nn.functional.pad(logits, (0, missing), value=NO_LABEL) if missing else logits

    def embed(self, input_ids: Tensor, audio: EncodedAudio | None = None) -> Tensor:
        """Embeds token ids (B, L) as (B, L, H), with an audio embedding at each `<|audio|>` position.

        Raises:
            ModelError: the number of `<|audio|>` positions of a row differs from its number of audio tokens.
        """
        is_audio = input_ids == self.audio_token_id
        embeds = self.language_model.get_input_embeddings()(input_ids.masked_fill(is_audio, 0))
        if audio is None:
            return embeds
        counts = is_audio.sum(1)
        if not torch.equal(counts, audio.num_tokens):  # a wrong count shifts the clips that follow
            raise ModelError(
                f"the prompts have {counts.tolist()} {AUDIO_TOKEN} positions, "
                f"but the clips have {audio.num_tokens.tolist()} audio tokens"
            )
        real = audio.embeds[frame_mask(audio.num_tokens, audio.embeds.shape[1])]
        return embeds.masked_scatter(is_audio[..., None], real.to(embeds.dtype))

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (..., V) from hidden states (..., H), divided by `logits_scaling` of the configuration."""
        return self.lm_head(hidden).float() / self.logits_scaling

    def embed_audio(self, audio: Tensor, num_frames: Tensor, kind: str) -> EncodedAudio:
        """Encodes features, or completes the cached output of the encoder.

        Args:
            audio: `features` (B, T, 160), or cached encoder `states` (B, T, D), or cached audio `embeds` (B, A, H).
            num_frames: (B,) encoder frames; for `embeds` the number of audio tokens.
            kind: type of `audio`: `features`, `states` or `embeds`.

        Returns:
            The encoded batch. From cached `embeds`, its `states` are empty.

        Raises:
            ValueError: `kind` has another value.
        """
        if kind == "features":
            return self.encode(audio, num_frames)
        if kind == "states":
            embeds = project(self.projector, audio, num_frames)
            return EncodedAudio(audio, num_frames, embeds, self.num_audio_tokens(num_frames))
        if kind != "embeds":
            raise ValueError(f"kind must be features, states or embeds, not {kind!r}")
        return EncodedAudio(audio[:0], num_frames, audio, num_frames)

    def forward(
        self, audio: Tensor, num_frames: Tensor, input_ids: Tensor, kind: str = "features"
    ) -> tuple[Tensor, EncodedAudio]:
        """Hidden states for teacher forcing.

        No attention mask is needed: with causal attention no real position attends to right padding.

        Args:
            audio: see `embed_audio`; the same for `num_frames` and `kind`.
            input_ids: (B, L) prompts with targets, right-padded.

        Returns:
            Hidden states (B, L, H) of the language model, and the encoded audio.
        """
        encoded = self.embed_audio(audio, num_frames, kind)
        output = self.language_model(inputs_embeds=self.embed(input_ids, encoded), use_cache=False)
        return output.last_hidden_state, encoded


def on_meta(config: PreTrainedConfig, source: str, tokenizer: Any = None) -> SpeechModel:
    """Builds the model on the meta device: shapes without storage, and no tokenizer by default.

    Raises:
        ModelError: no model has this configuration.
    """
    try:
        with torch.device("meta"):
            return SpeechModel(model_class(config)(config).requires_grad_(False), tokenizer, source)
    except Exception as error:
        raise ModelError(f"{source}: the configuration in config.json is invalid ({excerpt(error)})") from error


def check_size(config: PreTrainedConfig, folder: Path) -> None:
    """Compares the size of the configured model with the weights in a local folder, before memory is allocated.

    Raises:
        ModelError: the configuration describes a larger model, or is invalid.
    """
    if not folder.is_dir():
        return
    stated, stored = sum(value.numel() for value in on_meta(config, str(folder)).hf.parameters()), count_weights(folder)
    if stated > MAX_GROWTH * stored:  # a smaller difference is named by its weights when they are loaded
        raise ModelError(
            f"{folder}: config.json describes a model of {stated:,} parameters, but the weights (*.safetensors) have "
            f"{stored:,}: sizes such as hidden_size do not match them, or weights are missing"
        )


def default_device() -> str:
    """`cuda` if there is a CUDA GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolved_dtype(dtype: str, device: torch.device | str) -> str:
    """The dtype name; `auto` is bfloat16 on CUDA and float32 on other devices."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if torch.device(device).type == "cuda" else "float32"


def load_tokenizer(source: str, config: PreTrainedConfig, revision: str | None = None) -> Tokenizer:
    """Loads the tokenizer of a model. Raises ModelError if it cannot be loaded or does not fit the configuration."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers raises errors of any type for damaged files
        raise ModelError(f"{source}: the tokenizer cannot be loaded ({excerpt(error)})") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{source}: the tokenizer has no eos_token, so the model could not end a text")
    if (token := tokenizer.get_vocab().get(AUDIO_TOKEN)) != config.audio_token_id:
        stated = f"audio_token_index in config.json is {config.audio_token_id}"
        raise ModelError(f"{source}: {stated}, but {AUDIO_TOKEN} is the token {token} of its tokenizer")
    return tokenizer


def load_model(
    source: str,
    dtype: str,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    quantize: str = "none",
    config: PreTrainedConfig | None = None,
) -> SpeechModel:
    """Loads a base or exported model, frozen and in eval mode.

    Args:
        source: local folder in hub layout, or hub name.
        dtype: `float32`, `bfloat16`, or `auto` (bfloat16 on CUDA, float32 on other devices).
        device: device of the weights; with `meta`, their names and shapes are checked and their values are not read.
        revision: branch, tag or commit of a hub name.
        quantize: `none`, or `4bit` for the linear layers of the language model (NF4, arXiv 2305.14314).
        config: replaces the configuration of the model.

    Raises:
        ModelError: `source` is not a complete Granite Speech model, or `4bit` is not available on this machine.
    """
    check_quantization(quantize, device)
    config = config or read_config(source, revision)
    dtype = resolved_dtype(dtype, device)
    check_size(config, Path(source))
    tokenizer = load_tokenizer(source, config, revision)
    bpe_file = find_bpe_head(source, revision)
    if bpe_file is not None:
        check_bpe_head(bpe_file, config.encoder_config.hidden_dim, config.text_config.vocab_size)
    hf = load_weights(source, config, DTYPES[dtype], device, revision, quantize)
    hf.requires_grad_(False)
    return SpeechModel(hf, tokenizer, source, bpe_file).eval()
