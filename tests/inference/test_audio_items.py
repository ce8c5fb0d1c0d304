"""Audio of the Python API that is none."""

from typing import Any

import numpy as np
import pytest

from finetune.core.errors import DataError
from finetune.inference.audio_items import audio_sources


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.array(["a.wav", "b.wav"]), "names of files, not an array of samples; give a list"),
        (np.array(["a.wav", "b.wav"], object), "names of files, not an array of samples; give a list"),
        (np.array([0.1, 0.2], object), "not an array of samples"),
        (bytearray(b"RIFF"), "bytearray is not audio; give a path"),
    ],
)
def test_what_is_no_audio_is_named(item: Any, message: str) -> None:
    rate = 16_000 if message.startswith("not") else None
    with pytest.raises(DataError, match=message):
        list(audio_sources([item], rate, "", None))
