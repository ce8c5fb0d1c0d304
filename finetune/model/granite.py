"""The only file that names parts of transformers' Granite Speech class: loading, embedding, logits.

Two faults of transformers 5.10 to 5.23 are kept out of every other file: the parts moved below
`model.model`, and `forward` lost the division by `logits_scaling`. Here logits are always
`lm_head(h) / logits_scaling`, and `forward` of the transformers class is never called.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, GraniteSpeechConfig, GraniteSpeechForConditionalGeneration
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.errors import ModelError
from finetune.core.extras import require
from finetune.model.conformer import encode, frame_mask, project

AUDIO_TOKEN = "<|audio|>"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Audio:
    """A batch of clips after the encoder and the projector."""

    states: Tensor  # (B, T, D)
    num_frames: Tensor  # (B,)
    embeds: Tensor  # (B, A, H)
    num_tokens: Tensor  # (B,)

    def rows(self, chosen: list[int]) -> "Audio":
        """These clips alone."""
        return Audio(*(part[chosen] for part in (self.states, self.num_frames, self.embeds, self.num_tokens)))


class GraniteSpeech(nn.Module):
    """A Granite Speech model with its tokenizer; `hf` is the transformers object, adapted in place."""

    def __init__(self, hf: GraniteSpeechForConditionalGeneration, tokenizer: Tokenizer, source: str) -> None:
        super().__init__()
        self.hf = hf
        self.tokenizer = tokenizer
        self.source = source
        config = hf.config
        self.logits_scaling = float(config.text_config.logits_scaling)
        self.audio_token_id = int(config.audio_token_id)
        self.window, self.queries = config.window_size, config.window_size // config.downsample_rate
        # torch prefers it on an H100. It plans anew for every shape, and here each batch and each decoding pass has its
        # own; and at some lengths its gradients under a mask were NaN (pytorch#196678).
        torch.backends.cuda.enable_cudnn_sdp(False)

    # The parts are Any: torch gives each attribute of an nn.Module the type Tensor | Module.
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
        """bfloat16 on CUDA and where the base's weights are; for the parts that train are float32 beside them."""
        low = self.device.type == "cuda" or self.encoder.input_linear.weight.dtype == torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    @property
    def max_positions(self) -> int:
        """Of the language model: audio tokens, text around them and text written, together."""
        return int(self.hf.config.text_config.max_position_embeddings)

    def num_audio_tokens(self, num_frames: Tensor) -> Tensor:
        """LLM positions of clips with `num_frames` encoder frames: 3 for each begun window of 15."""
        return (num_frames + self.window - 1) // self.window * self.queries

    def encode(self, features: Tensor, num_frames: Tensor) -> Audio:
        """Features (B, T, 160) and frame counts (B,) to audio embeddings; independent of the batch."""
        features = features.to(self.encoder.input_linear.weight.dtype)
        trains = any(p.requires_grad for p in self.encoder.parameters())
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            states, _ = encode(self.encoder, features, num_frames)
        embeds = project(self.projector, states, num_frames)
        return Audio(states, num_frames, embeds, self.num_audio_tokens(num_frames))

    def ctc_logits(self, states: Tensor) -> Tensor:
        """Encoder states (B, T, D) to final CTC logits (B, T, 348)."""
        return self.encoder.out(states)

    def embed(self, input_ids: Tensor, audio: Audio | None = None) -> Tensor:
        """Token ids (B, L) to embeddings (B, L, H), each `<|audio|>` replaced by its audio embedding."""
        places = input_ids == self.audio_token_id
        embeds = self.language_model.get_input_embeddings()(input_ids.masked_fill(places, 0))
        if audio is None:
            return embeds
        counts = places.sum(1)
        if not torch.equal(counts, audio.num_tokens):  # row by row: the scatter below would shift clips silently
            raise ModelError(f"{counts.tolist()} {AUDIO_TOKEN} positions for {audio.num_tokens.tolist()} embeddings")
        real = audio.embeds[frame_mask(audio.num_tokens, audio.embeds.shape[1])]
        return embeds.masked_scatter(places[..., None], real.to(embeds.dtype))

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., H) to float32 logits (..., V), scaled as the config says."""
        return self.lm_head(hidden).float() / self.logits_scaling

    def embed_audio(self, audio: Tensor, num_frames: Tensor, kind: str) -> Audio:
        """`encode` for `features` (B, T, 160); or goes on from cached `states` (B, T, D) or `embeds` (B, A, H).

        For the last, `num_frames` counts audio tokens.
        """
        if kind == "features":
            return self.encode(audio, num_frames)
        if kind == "states":
            embeds = project(self.projector, audio, num_frames)
            return Audio(audio, num_frames, embeds, self.num_audio_tokens(num_frames))
        return Audio(audio[:0], num_frames, audio, num_frames)

    def forward(
        self, audio: Tensor, num_frames: Tensor, input_ids: Tensor, kind: str = "features"
    ) -> tuple[Tensor, Audio]:
        """Audio as `embed_audio` takes it, right-padded prompts with targets (B, L) -> hidden states (B, L, H).

        Causal attention alone keeps right padding out of every real position, so no mask is needed.
        """
        heard = self.embed_audio(audio, num_frames, kind)
        output = self.language_model(inputs_embeds=self.embed(input_ids, heard), use_cache=False)
        return output.last_hidden_state, heard


def read_config(source: str, revision: str | None = None) -> GraniteSpeechConfig:
    """The configuration of a local folder or a hub name. Raises ModelError when it is not Granite Speech."""
    folder = Path(source)
    if folder.exists() or source.startswith((".", "/")):
        path = folder / "config.json"
        if not path.is_file():
            raise ModelError(f"{source}: no config.json there; a model folder or a hub name is wanted")
        try:
            kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{path}: not the configuration of a model ({error})") from error
        if kind != "granite_speech":
            raise ModelError(f"{source}: model_type is {kind!r}; this toolkit adapts 'granite_speech'")
        if not any(folder.glob("*.safetensors")):
            raise ModelError(f"{source}: no *.safetensors there; the folder has a configuration but no weights")
    try:
        return GraniteSpeechConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: cannot be read: {error}") from error


def _quantization(quantize: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    """Arguments of `from_pretrained`; encoder, projector and head keep their precision."""
    if quantize == "none":
        return {}
    if torch.device(device).type != "cuda":
        raise ModelError("model.quantize: 4bit needs a CUDA GPU; set model.quantize to none on this machine")
    require("bitsandbytes", extra="quant")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["model.encoder", "model.projector", "lm_head"],
    )
    return {"quantization_config": config, "device_map": {"": device}}


def resolved_dtype(dtype: str, device: torch.device | str) -> str:
    """`auto` is bfloat16 on CUDA and float32 elsewhere."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if torch.device(device).type == "cuda" else "float32"


def load_model(
    source: str, dtype: str, device: torch.device | str = "cpu", revision: str | None = None, quantize: str = "none"
) -> GraniteSpeech:
    """Loads base or exported model, everything frozen and in eval mode.

    Args:
        source: local folder in hub layout, or hub name.
        dtype: `float32`, `bfloat16`, or `auto` (bfloat16 on CUDA, float32 elsewhere).
        quantize: `none`, or `4bit` for the linear layers of the language model (NF4, arXiv 2305.14314).

    Raises:
        ModelError: the folder or the hub name does not give a Granite Speech model with all its weights, or 4 bits
            are asked for where they cannot be had.
    """
    config = read_config(source, revision)
    if getattr(config, "has_lora_adapter", False):
        raise ModelError(f"{source}: ships its own LoRA (has_lora_adapter); merge it first")
    dtype = resolved_dtype(dtype, device)
    try:
        hf, info = GraniteSpeechForConditionalGeneration.from_pretrained(
            source,
            config=config,
            dtype=DTYPES[dtype],
            revision=revision,
            output_loading_info=True,
            **_quantization(quantize, DTYPES[dtype], device),
        )
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{source}: cannot be loaded: {error}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{source}: {len(missing)} weights are missing, such as {missing[0]}")
    if any("lora_" in name for name, _ in hf.named_parameters()):
        raise ModelError(
            f"{source}: an adapter lies beside the weights (adapter_config.json), and transformers put "
            "it on; merge it, or move it away"
        )
    hf.requires_grad_(False)
    return GraniteSpeech(hf if quantize != "none" else hf.to(device), tokenizer, source).eval()
