"""The log-mel features of Granite Speech, on any device and without torchaudio.

For one utterance the features equal those of transformers' `GraniteSpeechFeatureExtractor` (tested to 1e-5). Features
are computed for each utterance alone and padded afterwards, so they do not depend on the batch.
"""

import math
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.data.audio import SAMPLE_RATE

N_FFT, WIN_LENGTH, HOP_LENGTH, NUM_MELS = 512, 400, 160, 80
FEATURE_DIM = 2 * NUM_MELS
FRAME_SECONDS = 2 * HOP_LENGTH / SAMPLE_RATE


Count = TypeVar("Count", int, NDArray[np.int64])


def num_frames(num_samples: Count) -> Count:
    """Number of encoder frames (20 ms) of `num_samples` samples at 16 kHz; also of an array of numbers."""
    return (num_samples // HOP_LENGTH + 1) // 2


@lru_cache(maxsize=8)
def mel_filters(device: torch.device) -> Tensor:
    """Triangular HTK mel filters without area normalization: (257, 80)."""
    bins = torch.linspace(0, SAMPLE_RATE // 2, N_FFT // 2 + 1)
    top = 2595.0 * math.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0.0, top, NUM_MELS + 2) / 2595.0) - 1.0)
    slopes = edges[None, :] - bins[:, None]
    widths = edges[1:] - edges[:-1]
    down, up = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return torch.clamp(torch.minimum(down, up), min=0.0).to(device)


def log_mel(wave: Tensor) -> Tensor:
    """Log-mel features of one utterance.

    Args:
        wave: (N,) float32 at 16 kHz, N >= 257.

    Returns:
        (T, 160) float32, T = `num_frames(N)`: each row holds two 10 ms frames of 80 mels.
    """
    window = torch.hann_window(WIN_LENGTH, device=wave.device)
    spectrum = torch.stft(
        wave, N_FFT, HOP_LENGTH, WIN_LENGTH, window, center=True, pad_mode="reflect", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    with torch.autocast(wave.device.type, enabled=False):  # also correct inside a bfloat16 training step
        mel = (power.transpose(0, 1) @ mel_filters(wave.device)).clamp_min(1e-10).log10()
    mel = torch.maximum(mel, mel.max() - 8.0) / 4.0 + 1.0
    return mel[: len(mel) // 2 * 2].reshape(-1, FEATURE_DIM)


def pad_features(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads features (T, 160) of B utterances with zeros: a batch (B, T, 160) and its frame counts (B,)."""
    counts = torch.tensor([len(item) for item in features], device=features[0].device)
    return torch.nn.utils.rnn.pad_sequence(features, batch_first=True), counts
