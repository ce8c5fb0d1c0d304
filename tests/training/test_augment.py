"""Augmentation depends on seed, epoch and utterance only, and stays within its ranges."""

import numpy as np
import pytest
import torch
from support import waves_from

from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import FEATURE_DIM
from finetune.data.manifest import Utterance
from finetune.training.augment import WaveAugment, change_level, change_speed, mask_features, sample_rng

OFF = WaveAugment(0.0, 0.0, 0.0)
ALL = WaveAugment(0.1, 6.0, 20.0)


@pytest.fixture
def wave() -> np.ndarray:
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def augment_wave(wave: np.ndarray, ranges: WaveAugment, rng: np.random.Generator) -> np.ndarray:
    """Speed, then gain and white noise."""
    return change_level(change_speed(wave, ranges, rng, []), ranges, rng, [])


def rms(wave: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def test_without_ranges_nothing_changes(wave: np.ndarray) -> None:
    assert augment_wave(wave, OFF, sample_rng(1, 0, "a")) is wave
    features = torch.randn(40, FEATURE_DIM)
    assert torch.equal(mask_features(features, 0, 0, sample_rng(1, 0, "a")), features)


def test_augmentation_does_not_depend_on_the_order(clips: list[Utterance]) -> None:
    forward = waves_from(clips, ALL)
    first = {clips[i].id: forward[i] for i in range(len(clips))}
    backward = waves_from(clips[::-1], ALL)
    for index, item in reversed(list(enumerate(clips[::-1]))):
        assert np.array_equal(backward[index], first[item.id])


def test_seed_epoch_and_id_change_the_random_numbers() -> None:
    draws = {sample_rng(seed, epoch, name).random() for seed in (1, 2) for epoch in (0, 1) for name in ("a", "b")}
    assert len(draws) == 8
    assert sample_rng(1, 0, "ä/ö").random() == sample_rng(1, 0, "ä/ö").random()
    assert sample_rng(1, 2, "3/x").random() != sample_rng(1, 23, "/x").random()


def test_speed_stays_in_its_range_and_varies(wave: np.ndarray) -> None:
    lengths = [len(augment_wave(wave, WaveAugment(0.1, 0.0, 0.0), sample_rng(1, 0, str(i)))) for i in range(30)]
    assert len(wave) / 1.1 - 2 <= min(lengths) < 0.95 * len(wave)
    assert 1.05 * len(wave) < max(lengths) <= len(wave) / 0.9 + 2


def test_gain_and_noise_stay_in_their_ranges(wave: np.ndarray) -> None:
    gains = [
        20 * np.log10(rms(augment_wave(wave, WaveAugment(0.0, 6.0, 0.0), sample_rng(1, 0, str(i)))) / rms(wave))
        for i in range(30)
    ]
    assert -6.01 <= min(gains) < -2 and 2 < max(gains) <= 6.01
    noises = [rms(augment_wave(wave, WaveAugment(0.0, 0.0, 20.0), sample_rng(1, 0, str(i))) - wave) for i in range(40)]
    ratios = [20 * np.log10(rms(wave) / noise) for noise in noises if noise]
    assert 8 <= len(ratios) <= 32, "half of the clips"
    assert min(ratios) >= 19.5 and max(ratios) <= 50.5


def test_output_is_float32_and_the_input_is_unchanged(wave: np.ndarray) -> None:
    before = wave.copy()
    for index in range(10):
        out = augment_wave(wave, ALL, sample_rng(1, 0, str(index)))
        assert out.dtype == np.float32 and np.isfinite(out).all()
    assert np.array_equal(wave, before)
    assert np.isfinite(augment_wave(np.zeros(4000, np.float32), ALL, sample_rng(1, 0, "silence"))).all()


@pytest.mark.parametrize("frames", [1, 7, 8, 40, 400])
def test_masks_are_within_their_limits(frames: int) -> None:
    features = torch.randn(frames, FEATURE_DIM, generator=torch.Generator().manual_seed(frames))
    original = features.clone()
    widest_time, widest_mel = 0, 0
    for index in range(30):
        masked = mask_features(features, 10, 30, sample_rng(1, 0, str(index)))
        assert masked.shape == features.shape
        changed = masked != features
        assert torch.allclose(masked[changed], features.mean(), atol=1e-6)
        widest_time = max(widest_time, int(changed.all(1).sum()))
        halves = changed.view(frames, 2, 80).all(0)
        assert torch.equal(halves[0], halves[1]), "both 10 ms frames of a row lose the same mels"
        widest_mel = max(widest_mel, int(halves[0].sum()))
    assert widest_time <= 2 * min(30, frames // 8)
    assert 0 < widest_mel <= 20
    assert torch.equal(features, original)
