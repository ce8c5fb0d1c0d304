"""Bytes that the backward pass of a batch needs, counted on shapes: the model's own forward runs on the meta device.

Autograd hands each tensor that it keeps to `saved_tensors_hooks`. On the meta device a tensor has a shape and no
values, so the largest model takes no memory here. Two things differ from the meta device and are replaced: attention
keeps its inputs, its output and one number a query, as the flash and memory-efficient kernels do, and CUDA's autocast
is imitated by the types that it gives to the inputs of each function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from finetune.data.features import NUM_MELS
from finetune.model.conformer import Module, conformer_block
from finetune.model.granite import SpeechModel
from finetune.model.trainable import set_mode
from finetune.training.loss import CHUNK

# https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-can-autocast-to-float16
LOW = {
    *(F.linear, F.conv1d, F.conv2d, F.scaled_dot_product_attention, torch.matmul, torch.bmm, torch.einsum),
    *(Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm),
}
FLOAT32 = {
    *(F.layer_norm, F.softmax, F.log_softmax, F.cross_entropy, torch.softmax, torch.log_softmax, torch.pow),
    *(Tensor.softmax, Tensor.log_softmax, Tensor.pow, torch.rsqrt, Tensor.rsqrt, torch.sum, Tensor.sum),
}


@dataclass(frozen=True)
class LargestBatch:
    """The sizes of the padded batches that need the most memory; the two parts can be of different batches.

    Attributes:
        clips: clips of the batch with the most padded audio.
        frames: encoder frames of its longest clip.
        rows: clips of the batch with the most padded positions.
        positions: language model positions of its longest row.
        targets: target tokens of all clips of that batch.
        kind: what a batch has of the audio, see `Batch.kind`.
    """

    clips: int
    frames: int
    rows: int
    positions: int
    targets: int
    kind: str = "features"


@dataclass(frozen=True)
class Activations:
    """Bytes at the end of the forward pass.

    Attributes:
        audio: kept by encoder and projector.
        audio_checkpointed: the same with `machine.encoder_checkpointing`: only the inputs of encoder layers.
        encoder_layer: of one encoder layer, which is then computed again.
        language_model: kept by the language model.
        checkpointed: the same with `machine.gradient_checkpointing`: the inputs of its layers, and all of one layer.
        loss: the logits and what is computed from them.
    """

    audio: int
    audio_checkpointed: int
    encoder_layer: int
    language_model: int
    checkpointed: int
    loss: int


class _Attention(torch.autograd.Function):
    """Keeps what a fused attention kernel keeps; a mask only if it needs a gradient. It has no backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        rows = max(query.shape[0], key.shape[0])  # the projector has one query for all windows
        out = query.new_empty(rows, *query.shape[1:-1], value.shape[-1])
        kept = [query, key, value, out, query.new_empty(rows, *query.shape[1:-1], dtype=torch.float32)]
        ctx.save_for_backward(*kept, *([] if mask is None or not mask.requires_grad else [mask]))
        return out


class _Kernels(TorchFunctionMode):
    """Replaces attention and, if `autocast`, converts the inputs of functions as CUDA's autocast to bfloat16 does."""

    def __init__(self, autocast: bool) -> None:
        super().__init__()
        self.autocast = autocast
        self.casts: dict[int, tuple[Tensor, Tensor]] = {}  # autocast converts a weight once

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__bool__:  # transformers asks whether each row is one sequence, as in training
            return True
        named = dict(kwargs or {})
        dtype = torch.bfloat16 if func in LOW else torch.float32 if func in FLOAT32 else None
        if self.autocast and dtype is not None:
            args, named = (
                tuple(self._cast(value, dtype) for value in args),
                {name: self._cast(value, dtype) for name, value in named.items()},
            )
        if func is F.scaled_dot_product_attention:
            query, key, value, *rest = args
            mask = rest[0] if rest else named.get("attn_mask")
            return _Attention.apply(query, key, value, mask)  # type: ignore[no-untyped-call]
        return func(*args, **named)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(dtype)
        if id(value) not in self.casts:
            self.casts[id(value)] = (value, value.to(dtype))
        return self.casts[id(value)][1]

    @property
    def copies(self) -> list[Tensor]:
        """Weights that autocast keeps in bfloat16 until the forward pass ends, also those of checkpointed layers."""
        return [copy for value, copy in self.casts.values() if value.requires_grad and copy.dtype == torch.bfloat16]


class _Saved:
    """Counts the storages that autograd keeps, each once; those of weights are not counted."""

    def __init__(self, model: SpeechModel) -> None:
        tensors = [*model.hf.parameters(), *model.hf.buffers()]
        self.own = {tensor.untyped_storage()._cdata for tensor in tensors}
        self.storages: dict[int, torch.UntypedStorage] = {}  # held, so that no two have the same address

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.own:
            self.storages[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.storages.values())


def count_activations(model: SpeechModel, batch: LargestBatch, autocast: bool) -> Activations:
    """The bytes that the backward pass of a batch needs.

    Args:
        model: a model on the meta device whose parts are open, in the dtype of its weights.
        batch: the sizes of the batch.
        autocast: forward under autocast to bfloat16, as training does on CUDA and with bfloat16 weights.
    """
    set_mode(model, training=True)
    kernels = _Kernels(autocast)
    with torch.device("meta"), kernels:
        saved = _Saved(model)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            has_gradient = _encode(model, batch)
        audio, weights = saved.bytes, model.language_model.get_input_embeddings().weight
        audio_checkpointed, encoder_layer = _checkpointed_encoder(model, batch, audio, kernels)
        earlier = len(kernels.copies)
        size = (batch.rows, batch.positions, weights.shape[1])
        embeds = torch.empty(size, dtype=weights.dtype, requires_grad=has_gradient)
        saved = _Saved(model)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            model.language_model(inputs_embeds=embeds, use_cache=False)
    layers, copies = len(model.language_model.layers), sum(copy.nbytes for copy in kernels.copies[earlier:])
    inputs = layers * embeds.numel() * embeds.itemsize
    checkpointed = min(saved.bytes, inputs + copies + max(0, saved.bytes - copies) // layers)
    loss = _loss_bytes(model, batch.targets, autocast)
    return Activations(audio, audio_checkpointed, encoder_layer, saved.bytes, checkpointed, loss)


def _checkpointed_encoder(
    model: SpeechModel, batch: LargestBatch, full_bytes: int, kernels: _Kernels
) -> tuple[int, int]:
    """Bytes that encoder and projector keep if encoder layers keep only their inputs, and the bytes of one layer.

    Args:
        model: the model.
        batch: the sizes of the batch.
        full_bytes: bytes that encoder and projector keep without checkpointing.
        kernels: the active mode, after a forward pass.
    """
    saved, layers = _Saved(model), 0

    def kept_input(layer: Module, x: Tensor, mask: Tensor) -> Tensor:
        nonlocal layers
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            out = conformer_block(layer, x, mask)
        if out.requires_grad:
            saved.pack(x)
            layers += 1
        return out

    usual, model.encoder_block = model.encoder_block, kept_input
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        _encode(model, batch)
    model.encoder_block = usual
    for copy in kernels.copies:
        saved.pack(copy)
    return (saved.bytes, max(0, full_bytes - saved.bytes) // layers) if layers else (full_bytes, 0)


def _encode(model: SpeechModel, batch: LargestBatch) -> bool:
    """Runs encoder and projector as far as `kind` needs; returns whether their output needs a gradient."""
    if batch.kind == "embeds":
        return False
    width = 2 * NUM_MELS if batch.kind == "features" else model.encoder.input_linear.out_features
    frames = torch.full((batch.clips,), batch.frames)
    encoded = model.embed_audio(torch.empty(batch.clips, batch.frames, width), frames, batch.kind)
    if model.encoder.out.weight.requires_grad:
        model.ctc_logits(encoded.states).float().log_softmax(-1)
    return bool(encoded.embeds.requires_grad)


def _loss_bytes(model: SpeechModel, targets: int, autocast: bool) -> int:
    """The peak of `token_loss`: the output of `lm_head`, in float32, divided by a number, and its log-softmax."""
    copies = 3 * 4 + (2 if autocast else 4)
    return copies * min(targets, CHUNK) * int(model.lm_head.out_features)
