"""The uploads of a load: all differ, so a cache of equal audio, as vLLM has, answers none of them."""

import hashlib
import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.audio_source import Content
from finetune.serving.bench_plan import Clip

QUIETER = (0.005, 0.02)  # of the amplitude


class Uploads:
    """Clips as they are uploaded.

    The first upload of a clip is the clip as it is. Upload `n` after it has `n` samples of silence before the clip,
    which is quieter by 0.5 to 2 %, so the spoken words stay the same. It is a WAV file of 16 kHz
    and 16 bits.

    Args:
        clips: the clips; those with equal bytes count as one.
        seed: seed of the factors.
        repeat: upload the same bytes each time.
    """

    def __init__(self, clips: Sequence[Clip], seed: int, repeat: bool = False) -> None:
        self.clips, self.seed, self.repeat = clips, seed, repeat
        self._digests = [hashlib.blake2b(clip.content).digest() for clip in clips]
        self._used = Counter[bytes]()

    def next(self, number: int) -> tuple[Clip, int]:
        """The next upload of a clip, by its number, and how many uploads the clip had before; 0 with `repeat`.

        Raises:
            DataError: the audio of a file cannot be decoded.
        """
        clip, digest = self.clips[number], self._digests[number]
        variant = 0 if self.repeat else self._used[digest]
        self._used[digest] += 1
        return (_changed(clip, variant, self.seed) if variant else clip), variant


def _changed(clip: Clip, variant: int, seed: int) -> Clip:
    factor = 1 - random.Random(f"uploads {seed} {variant}").uniform(*QUIETER)
    wave = load_audio(Content(clip.name, clip.content)) * np.float32(factor)
    wave = np.concatenate([np.zeros(variant, np.float32), wave])
    wav = io.BytesIO()
    soundfile.write(wav, wave, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return replace(clip, name=f"{Path(clip.name).stem}.wav", content=wav.getvalue(), seconds=len(wave) / SAMPLE_RATE)
