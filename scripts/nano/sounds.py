"""What the model hears: clips with speed, pauses, room, noise, level, line and codec, made anew in each round."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.core.config import AugmentSection
from finetune.data.audio import SAMPLE_RATE
from finetune.data.effects.generated import rms
from finetune.data.features import log_mel, pad_features
from finetune.training.augment import Applied, WaveAugment, change_speed, mask_features, sample_rng
from finetune.training.effects import VOICES, Effects
from nano.clips import Clips
from nano.rounds import Item

Wave = NDArray[np.float32]

PEAK = (-20.0, -1.0)  # dB of full scale
PAUSE = (0.1, 0.8)  # seconds between joined clips
EDGE = 0.4  # most seconds of silence before and after speech; half of the clips have none
LEVEL = 6.0  # dB by which joined clips can differ


class Sounds:
    """Makes the waveforms of items. They depend on the seed, the item and its epoch only.

    Args:
        clips: all clips, from which babble is mixed.
        settings: probabilities and ranges.
        seed: seed of the build.
    """

    def __init__(self, clips: Clips, settings: AugmentSection, seed: int) -> None:
        self.clips, self.settings, self.seed = clips, settings, seed
        self.effects = Effects.of(settings, seed)
        self.speed = WaveAugment(settings.speed, 0.0, 0.0)

    def wave(self, item: Item) -> Wave:
        """The samples (N,) of an item, full scale 1."""
        applied = list[Applied]()
        if not item.rows:
            return self.effects.make_no_speech(item.seconds, item.key, item.epoch, applied)
        rng = sample_rng(self.seed, item.epoch, f"{item.key}/speech")
        wave = change_speed(self._speech(item, rng), self.speed, rng, applied)
        wave = self.effects.add_scene(wave, item.key, item.epoch, self._babble, applied)
        level = 10.0 ** (rng.uniform(*PEAK) / 20.0) / max(1e-4, float(np.abs(wave).max(initial=0.0)))
        return self.effects.add_line(wave * np.float32(level), item.key, item.epoch, applied)

    def features(self, items: Sequence[Item], masked: bool = True) -> tuple[Tensor, Tensor]:
        """Padded features (B, T, 160) and frame counts (B,) of items; `masked` adds SpecAugment."""
        features = [log_mel(torch.from_numpy(self.wave(item))) for item in items]
        if masked:
            sizes = self.settings.mel_mask, self.settings.time_mask
            rngs = [sample_rng(self.seed, item.epoch, f"{item.key}/masks") for item in items]
            features = [mask_features(row, *sizes, rng) for row, rng in zip(features, rngs, strict=True)]
        return pad_features(features)

    def _speech(self, item: Item, rng: np.random.Generator) -> Wave:
        """The clips of an item in their order, with pauses."""
        parts = list[Wave]()
        for place, row in enumerate(item.rows):
            if place:
                parts.append(_silence(rng.uniform(*PAUSE)))
            wave = self.clips.wave(row)
            gain = rng.uniform(-LEVEL, LEVEL) if len(item.rows) > 1 else 0.0
            parts.append(wave * np.float32(10.0 ** (gain / 20.0)))
        for place in (0, len(parts) + 1):
            parts.insert(place, _silence(max(0.0, rng.uniform(-EDGE, EDGE))))
        return np.concatenate(parts)

    def _babble(self, count: int, rng: np.random.Generator) -> Wave:
        """Several other clips at once: (count,) with RMS 1."""
        total = np.zeros(count, np.float32)
        for row in rng.integers(len(self.clips), size=int(rng.integers(VOICES[0], VOICES[1] + 1))).tolist():
            voice = self.clips.wave(row)
            voice = np.resize(np.roll(voice, -int(rng.random() * len(voice))), count)
            total += voice / np.float32(max(rms(voice), 1e-9))
        return (total / np.float32(max(rms(total), 1e-9))).astype(np.float32)


def _silence(seconds: float) -> Wave:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)
