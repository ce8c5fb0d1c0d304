"""Tensors that claim to be on a CUDA GPU and hold memory of the CPU; an operation on both devices is an error.

As with torch's FakeTensorMode, no GPU is needed, but a CUDA build of torch is. Unlike fake tensors these have values,
so a whole command can run. CUDA's own kernels do not run: speed, memory and rounding are those of the CPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda:0")
MEMORY = 80 << 30  # bytes of the card
NOT_ON_CPU = ("_use_cudnn_ctc_loss", "_use_miopen_ctc_loss")  # questions of torch about CUDA's libraries
INDEX_TYPES = (torch.long, torch.int, torch.bool)


class ClaimedTensor(Tensor):
    """A tensor that claims to be on `DEVICE`; `held` is its content."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "ClaimedTensor":
        shape = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        claimed = Tensor._make_wrapper_subclass(
            cls, held.size(), dtype=held.dtype, device=DEVICE, requires_grad=held.requires_grad, **shape
        )
        claimed.held = held.detach()
        return claimed

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_on_cpu(function, args, kwargs or {})

    # torch answers these without a dispatch.
    @property
    def data(self) -> Tensor:
        return ClaimedTensor(self.held)

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, ClaimedTensor) and value.shape == self.shape
        self.held = value.held

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a tensor on a GPU is converted to numpy without .cpu()")

    __array__ = numpy


def run_on_cpu(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the held tensors.

    Raises:
        RuntimeError: some inputs are on the CPU and others are not. Scalars and indices may be, as on a GPU.
    """
    name = function._schema.name.removeprefix("aten::")
    if name in NOT_ON_CPU:
        return False
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    claimed = any(isinstance(value, ClaimedTensor) for value in tensors)
    copies, indexes = name in ("copy_", "_to_copy"), "index" in name
    for value in tensors:
        on_cpu = not isinstance(value, ClaimedTensor) and value.dim() > 0
        if claimed and on_cpu and not copies and not (indexes and value.dtype in INDEX_TYPES):
            raise RuntimeError(f"{name}: inputs on the GPU and on the CPU, of the shapes {[*map(_shape, tensors)]}")
    if kwargs.get("device") is not None:
        claimed = torch.device(kwargs["device"]).type == "cuda"
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if "pin_memory" in kwargs:
        kwargs = {**kwargs, "pin_memory": False}
    result = function(*tree_map(_held, args), **tree_map(_held, kwargs))
    if name.endswith("_") and args and isinstance(args[0], Tensor):
        return args[0]
    return tree_map(_claim, result) if claimed else result


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, ClaimedTensor) else value


def _claim(value: Any) -> Any:
    return ClaimedTensor(value) if isinstance(value, Tensor) and not isinstance(value, ClaimedTensor) else value


class ClaimedCuda(TorchDispatchMode):
    """Makes the tensors of operations with `device="cuda"`, and counts as FakeTensorMode, so torch starts no CUDA."""

    def __init__(self) -> None:
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        self.shape_env, self.static_shapes, self.allow_non_fake_inputs = None, True, True

    def __enter__(self) -> "ClaimedCuda":
        torch._C._set_only_lift_cpu_tensors(True)
        torch._C._ensureCUDADeviceGuardSet()
        return super().__enter__()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, device = kwargs or {}, (kwargs or {}).get("device")
        if any(issubclass(kind, ClaimedTensor) for kind in types) or (device and torch.device(device).type == "cuda"):
            return run_on_cpu(function, args, kwargs)
        return function(*args, **kwargs)


def move(module: Any) -> Any:
    """Moves the parameters and buffers of a module to the claimed device, in place."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(ClaimedTensor(value), requires_grad=value.requires_grad)
        for name, value in part._buffers.items():
            part._buffers[name] = _claim(value)
    return module


def _module_to(original: Callable[..., Any]) -> Callable[..., Any]:
    def to(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        casts = "dtype" in kwargs or any(isinstance(value, torch.dtype) for value in args)
        moved = all(isinstance(value, ClaimedTensor) for value in self.parameters())
        return self if moved and not casts else original(self, *args, **kwargs)

    return to


@contextmanager
def claimed_cuda() -> Iterator[None]:
    """torch sees one GPU, and its tensors are `ClaimedTensor`s. Inference mode is `no_grad`: they do not support it."""
    properties = SimpleNamespace(name="claimed", total_memory=MEMORY, major=9, minor=0, multi_processor_count=1)
    numbers = {"device_count": 1, "current_device": 0, "max_memory_allocated": 0, "max_memory_reserved": 0}
    answers = {
        **numbers,
        **dict.fromkeys(("memory_allocated", "memory_reserved"), 0),
        **dict.fromkeys(("is_available", "is_bf16_supported", "is_initialized"), True),
        **dict.fromkeys(("synchronize", "empty_cache", "set_device", "reset_peak_memory_stats", "_lazy_init")),
        **dict.fromkeys(("manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all")),
        "is_current_stream_capturing": False,
        "get_device_name": "claimed",
        "get_device_capability": (9, 0),
        "mem_get_info": (MEMORY, MEMORY),
        "get_device_properties": properties,
    }
    backends = torch.backends.cuda
    torch.backends.cudnn.enabled = False
    for switch in (backends.enable_flash_sdp, backends.enable_mem_efficient_sdp, backends.enable_cudnn_sdp):
        switch(False)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with (
        mock.patch.multiple(torch.cuda, **{name: _answer(value) for name, value in answers.items()}),
        mock.patch.multiple(torch.cuda, get_rng_state=_state, get_rng_state_all=lambda: [_state()]),
        mock.patch.object(Tensor, "pin_memory", lambda self, *_: self),
        mock.patch.object(nn.Module, "to", _module_to(nn.Module.to)),
        ClaimedCuda(),
    ):
        yield


def _answer(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _state(*_: Any) -> Tensor:
    return torch.zeros(16, dtype=torch.uint8)
