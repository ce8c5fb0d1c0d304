"""Stand-ins for wandb, trackio and tensorboard, which record their calls and fail on request."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

Seen = dict[str, list[Any]]  # calls by tracker; under "fail" the calls that fail, such as wandb.log


def install_fakes(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Replaces the modules of the three trackers."""
    seen: Seen = {"wandb": [], "trackio": [], "tensorboard": [], "fail": [], "setup": []}

    def record(tracker: str, name: str, show: Callable[..., Any]) -> Callable[..., None]:
        def call(*args: Any, **keywords: Any) -> None:
            if f"{tracker}.{name}" in seen["fail"]:
                raise RuntimeError("the server is down")
            seen[tracker].append(show(*args, **keywords))

        return call

    run = SimpleNamespace(
        log=record("wandb", "log", lambda values: values),
        summary=SimpleNamespace(update=record("wandb", "summary", lambda values: ("summary", values))),
        define_metric=lambda *_, **__: None,
        finish=record("wandb", "close", lambda: "closed"),
        offline=False,
    )
    start = record("wandb", "start", lambda **call: call)
    wandb = SimpleNamespace(
        setup=lambda settings: seen["setup"].append(settings),
        init=lambda **call: start(**call) or run,
        Settings=lambda **call: call,
        Table=lambda **call: call,
        Audio=lambda samples, **call: {"samples": samples, **call},
    )
    trackio = SimpleNamespace(
        init=record("trackio", "start", lambda **call: call),
        log=record("trackio", "log", lambda values, step: (values, step)),
        finish=record("trackio", "close", lambda: "closed"),
        Table=lambda data: data,
        Audio=lambda samples, caption, rate, format: {"samples": samples, "caption": caption, "sample_rate": rate},
    )
    names = {"add_scalar": "log", "add_text": "text", "add_audio": "audio"}
    methods = {method: record("tensorboard", name, lambda *call: call) for method, name in names.items()}
    writer = SimpleNamespace(**methods, close=record("tensorboard", "close", lambda: "closed"))
    opened = record("tensorboard", "start", lambda folder, purge_step: (Path(folder).name, purge_step))
    tensorboard = SimpleNamespace(SummaryWriter=lambda *args, **keywords: opened(*args, **keywords) or writer)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    return seen
