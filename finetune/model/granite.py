"""The Granite Speech model: loading, audio encoding, embedding and logits.

No other file accesses attributes of transformers' Granite Speech class, because transformers 5.10 to 5.23 has two
pitfalls: its submodules moved to `model.model`, and its `forward` omits the division by `logits_scaling`. Here logits
are always `lm_head(h) / logits_scaling`, and `forward` of the transformers class is never called.
"""

import difflib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, GraniteSpeechConfig, GraniteSpeechForConditionalGeneration
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging as hf_logging

from finetune.core.errors import ModelError
from finetune.core.extras import require
from finetune.core.prompts import BPE_HEAD, PromptProfile, profile_of
from finetune.model.conformer import encode, frame_mask, project
from finetune.model.folder_checks import check_folder, count_weights

MAX_GROWTH = 1.5  # parameters of the configuration for each value in the weights
NOT_FOUND = "not a folder here, and neither in the local cache nor on the hub, or the hub is not reachable"
AUDIO_TOKEN = "<|audio|>"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class EncodedAudio:
    """A batch of clips after the encoder and the projector."""

    states: Tensor  # (B, T, D) encoder states
    num_frames: Tensor  # (B,) real encoder frames
    embeds: Tensor  # (B, A, H) audio embeddings
    num_tokens: Tensor  # (B,) real audio tokens

    def select(self, rows: list[int]) -> "EncodedAudio":
        """The clips with these row indices."""
        tensors = (self.states, self.num_frames, self.embeds, self.num_tokens)
        return EncodedAudio(*(tensor[rows] for tensor in tensors))


class SpeechModel(nn.Module):
    """A Granite Speech model with its tokenizer; `hf` is the transformers model, which training changes in place."""

    def __init__(self, hf: GraniteSpeechForConditionalGeneration, tokenizer: Tokenizer, source: str) -> None:
        super().__init__()
        self.hf = hf
        self.tokenizer = tokenizer
        self.source = source
        config = hf.config
        self.logits_scaling = float(config.text_config.logits_scaling)
        self.audio_token_id = int(config.audio_token_id)
        self.window, self.queries = config.window_size, config.window_size // config.downsample_rate
        # torch prefers cuDNN attention on an H100. It builds a new plan for each shape, and here the shape differs
        # in each batch and decoding pass. At some lengths its gradients under a mask are NaN (pytorch#196678).
        torch.backends.cuda.enable_cudnn_sdp(False)

    @cached_property
    def profile(self) -> PromptProfile:
        """The prompts of this version of the model."""
        return profile_of(self.source, self.hf.config.to_dict(), (Path(self.source) / BPE_HEAD).is_file())

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
        return self.lm_head.weight.device

    def autocast(self) -> torch.autocast:
        """Autocast to bfloat16 on CUDA and for bfloat16 weights, because trainable parameters are float32."""
        low = self.device.type == "cuda" or self.encoder.input_linear.weight.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    @property
    def max_positions(self) -> int:
        """Context length of the language model: audio tokens, prompt text and generated text together."""
        return int(self.hf.config.text_config.max_position_embeddings)

    def num_audio_tokens(self, num_frames: Tensor) -> Tensor:
        """Audio tokens (B,) of clips with `num_frames` (B,) encoder frames: 3 for each full or partial window of 15."""
        return (num_frames + self.window - 1) // self.window * self.queries

    def encode(self, features: Tensor, num_frames: Tensor) -> EncodedAudio:
        """Encodes features (B, T, 160) with frame counts (B,). The result of a clip is independent of its batch."""
        features = features.to(self.encoder.input_linear.weight.dtype)
        trains = any(p.requires_grad for p in self.encoder.parameters())
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            states, _ = encode(self.encoder, features, num_frames)
        embeds = project(self.projector, states, num_frames)
        return EncodedAudio(states, num_frames, embeds, self.num_audio_tokens(num_frames))

    def ctc_logits(self, states: Tensor) -> Tensor:
        """CTC logits (B, T, 348) of the last layer from encoder states (B, T, D)."""
        return self.encoder.out(states)

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


def is_folder_name(source: str) -> bool:
    """Whether a model source is a local folder and not a hub name, which has at most one slash.

    Raises:
        ModelError: the source is empty, too long or has a null byte.
    """
    if not source:
        raise ModelError("the name of the model is empty; give a model folder or a hub name")
    try:
        exists = Path(source).exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name has a null byte"
        raise ModelError(f"{source[:60]!r}: not the name of a model ({reason})") from error
    return exists or source.startswith((".", "/", "~")) or source.count("/") > 1


def _model_suggestion(folder: Path) -> str:
    """The end of a message about a folder that is not a model: the run's export, a similar name, or general advice."""
    for run in (folder, folder.parent):
        if (run / "export" / "config.json").is_file():
            return f"did you mean {run / 'export'}?"
        if (run / "resolved.json").is_file():
            return f"{run} is a run without an export; run `finetune export {run / 'resolved.json'}` first"
    names = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    similar = difflib.get_close_matches(folder.name, names, 1) if not folder.exists() else []
    return f"did you mean {folder.parent / similar[0]}?" if similar else "give a model folder or a hub name"


def read_config(source: str, revision: str | None = None) -> GraniteSpeechConfig:
    """Reads the configuration of a local folder or a hub name.

    Raises:
        ModelError: there is no model, the model is not Granite Speech, or a local folder has no weights.
    """
    folder = Path(source)
    if is_folder_name(source):
        if not (folder / "config.json").exists():
            problem = "no config.json in this folder" if folder.is_dir() else "no such folder"
            raise ModelError(f"{source[:200]}: {problem}; {_model_suggestion(folder)}")
        check_folder(folder)
    try:
        config = GraniteSpeechConfig.from_pretrained(source, revision=revision)
    except Exception as error:  # transformers raises errors of any type for a wrong configuration
        # A name such as `data/nano` can be a folder or a hub name.
        if not folder.exists() and folder.parent != Path() and folder.parent.is_dir():
            problem = f"no such folder, and the hub does not give this model ({error})"
            raise ModelError(f"{source}: {problem}; {_model_suggestion(folder)}") from error
        problem = "not a valid model configuration" if folder.exists() or not isinstance(error, OSError) else NOT_FOUND
        raise ModelError(f"{source}: config.json: {problem} ({_excerpt(error)})") from error
    if getattr(config, "has_lora_adapter", False):
        raise ModelError(f"{source}: the model contains a LoRA adapter (has_lora_adapter); merge the adapter first")
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{source}: the weights are quantized (quantization_config in config.json); give the original model, and "
            "set model.quantize: 4bit"
        )
    return config


def check_quantization(quantize: str, device: torch.device | str) -> None:
    """Checks that a device can load a quantized base.

    Raises:
        ModelError: it cannot.
        MissingExtraError: the extra [quant] is not installed.
    """
    if quantize == "none":
        return
    if torch.device(device).type != "cuda":
        raise ModelError("model.quantize: 4bit needs a CUDA GPU; set model.quantize to none on this machine")
    require("bitsandbytes", extra="quant")


def _quantization(quantize: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    """Quantization arguments of `from_pretrained`; encoder, projector and head keep their precision."""
    if quantize == "none":
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["model.encoder", "model.projector", "lm_head"],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def on_meta(config: GraniteSpeechConfig, source: str, tokenizer: Any = None) -> SpeechModel:
    """Builds the model on the meta device: shapes without storage, and no tokenizer by default.

    Raises:
        ModelError: no model has this configuration.
    """
    try:
        with torch.device("meta"):
            return SpeechModel(GraniteSpeechForConditionalGeneration(config).requires_grad_(False), tokenizer, source)
    except Exception as error:
        raise ModelError(f"{source}: the configuration in config.json is invalid ({_excerpt(error)})") from error


def check_size(config: GraniteSpeechConfig, folder: Path) -> None:
    """Compares the size of the configured model with the weights in a local folder, before memory is allocated.

    Raises:
        ModelError: the configuration describes a larger model, or is invalid.
    """
    if not folder.is_dir():
        return
    stated, found = sum(value.numel() for value in on_meta(config, str(folder)).hf.parameters()), count_weights(folder)
    if stated > MAX_GROWTH * found:  # a smaller difference is named by its weights when they are loaded
        raise ModelError(
            f"{folder}: config.json describes a model of {stated:,} parameters, but the weights (*.safetensors) have "
            f"{found:,}: sizes such as hidden_size do not match them, or weights are missing"
        )


def _excerpt(error: Exception) -> str:
    """The message of a library's error, short and on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def default_device() -> str:
    """`cuda` if there is a CUDA GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolved_dtype(dtype: str, device: torch.device | str) -> str:
    """The dtype name; `auto` is bfloat16 on CUDA and float32 on other devices."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if torch.device(device).type == "cuda" else "float32"


def load_tokenizer(source: str, revision: str | None = None) -> Tokenizer:
    """Loads the tokenizer of a model. Raises ModelError if it cannot be loaded."""
    try:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers raises errors of any type for damaged files
        raise ModelError(f"{source}: the tokenizer cannot be loaded ({_excerpt(error)})") from error


def load_model(
    source: str, dtype: str, device: torch.device | str = "cpu", revision: str | None = None, quantize: str = "none"
) -> SpeechModel:
    """Loads a base or exported model, frozen and in eval mode.

    Args:
        source: local folder in hub layout, or hub name.
        dtype: `float32`, `bfloat16`, or `auto` (bfloat16 on CUDA, float32 on other devices).
        device: device of the weights; with `meta`, their names and shapes are checked and their values are not read.
        revision: branch, tag or commit of a hub name.
        quantize: `none`, or `4bit` for the linear layers of the language model (NF4, arXiv 2305.14314).

    Raises:
        ModelError: `source` is not a complete Granite Speech model, or `4bit` is not available on this machine.
    """
    check_quantization(quantize, device)
    config = read_config(source, revision)
    dtype = resolved_dtype(dtype, device)
    check_size(config, Path(source))
    tokenizer = load_tokenizer(source, revision)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{source}: the tokenizer has no eos_token, so the model could not end a text")
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()  # a table of weights that do not fit; the errors below name the first
    try:
        hf, info = GraniteSpeechForConditionalGeneration.from_pretrained(
            source,
            config=config,
            dtype=DTYPES[dtype],
            revision=revision,
            use_safetensors=True,  # never pickled weights
            trust_remote_code=False,
            output_loading_info=True,
            **({"device_map": {"": "meta"}} if str(device) == "meta" else {}),
            **_quantization(quantize, DTYPES[dtype], device),
        )
    except Exception as error:
        raise ModelError(f"{source}: cannot be loaded ({_excerpt(error)})") from error
    finally:
        hf_logging.set_verbosity(verbosity)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{source}: {len(missing)} weights are missing, for example {missing[0]}")
    hf.requires_grad_(False)
    return SpeechModel(hf if quantize != "none" else hf.to(device), tokenizer, source).eval()
