"""What the tests of the command share: its types, and noise to feed it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile


class Said(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Said]


def noise(path: Path, seconds: float = 1.0) -> Path:
    rng = np.random.default_rng(sum(map(ord, path.name)))
    soundfile.write(path, rng.uniform(-0.3, 0.3, round(16_000 * seconds)).astype(np.float32), 16_000, subtype="FLOAT")
    return path
