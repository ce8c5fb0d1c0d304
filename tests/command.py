"""What the tests of the command share: its types, and noise to feed it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from finetune.core.files import write_json
from finetune.inference.thresholds import FILE


class Said(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Said]


def noise(path: Path, seconds: float = 1.0) -> Path:
    rng = np.random.default_rng(sum(map(ord, path.name)))
    soundfile.write(path, rng.uniform(-0.3, 0.3, round(16_000 * seconds)).astype(np.float32), 16_000, subtype="FLOAT")
    return path


def with_thresholds(model: Path, folder: Path, max_entropy: float, min_probability: float) -> Path:
    """A new folder with links to what is in a model's folder, and thresholds as `finetune calibrate` keeps them."""
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    write_json(folder / FILE, {"max_entropy": max_entropy, "min_probability": min_probability})
    return folder
