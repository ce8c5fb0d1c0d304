"""What a run records while it trains: `metrics.jsonl` always, Weights & Biases as a mirror when asked."""

import json
import logging
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Tracker:
    """One line a record; a mirror that fails is dropped with a warning and never stops training."""

    def __init__(self, path: Path, name: str, wandb: bool, settings: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.mirror: Any = None
        if wandb:
            try:
                import wandb as library

                self.mirror = library.init(project="finetune-granite-speech", name=name, config=settings,
                                           dir=str(path.parent), resume="allow")
            except Exception as error:  # any failure of a tracker is less than a training run
                log.warning("wandb is off for this run: %s", error)

    def record(self, **values: Any) -> None:
        """Appends `values` with the time of day (seconds since 1970)."""
        line = json.dumps({"time": round(time.time(), 3), **values}, ensure_ascii=False)
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")
        if self.mirror is not None:
            try:
                self.mirror.log({key: value for key, value in values.items() if isinstance(value, int | float)})
            except Exception as error:
                log.warning("wandb stopped: %s", error)
                self.mirror = None

    def close(self) -> None:
        if self.mirror is not None:
            try:
                self.mirror.finish(quiet=True)
            except Exception as error:
                log.warning("wandb did not finish: %s", error)
