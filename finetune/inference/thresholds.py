"""The two thresholds of relaxed decoding, and the file beside a model that keeps those calibrated for it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.core.errors import ModelError
from finetune.inference.options import Settings

FILE = "decode.json"


@dataclass(frozen=True)
class Thresholds:
    """Of relaxed decoding (arXiv 2603.11243).

    A clip whose CTC entropy (nats) is below `max_entropy` in every frame keeps its CTC text; a draft token to which the
    language model gives at least `min_probability` is kept.
    """

    max_entropy: float
    min_probability: float


def stored_thresholds(model: str) -> Thresholds | None:
    """What `finetune calibrate` left beside a model; None where it has not been calibrated.

    Raises:
        ModelError: the file is there and holds something else.
    """
    path = Path(model) / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Thresholds(float(content["max_entropy"]), float(content["min_probability"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a calibration ({error!r}); delete it or calibrate again") from error


def calibrated(settings: Settings, model: str) -> Settings:
    """Settings with the thresholds that were calibrated for this model, where they were. Raises ModelError as above."""
    kept = stored_thresholds(model)
    return replace(settings, max_entropy=kept.max_entropy, min_probability=kept.min_probability) if kept else settings
