"""What the tests of training read from a run directory."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from finetune.core.run_dir import RunDir
from finetune.training import checkpoint


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run.checkpoint / checkpoint.WEIGHTS)
    return found


def records(run: RunDir, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows if row["kind"] == kind]


def prepared(run: RunDir, root: Path) -> RunDir:
    """A new run directory with the manifests of another run."""
    shutil.copytree(run.manifests, root / "manifests")
    return RunDir(root)
