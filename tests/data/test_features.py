"""Log-mel features equal those of transformers (stored, see tests/fixtures/README.md), alone and in a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from finetune.data.features import FEATURE_DIM, FRAME_SECONDS, log_mel, num_frames, pad_features

REFERENCE = np.load(Path(__file__).resolve().parents[1] / "fixtures" / "granite_features.npz")
NAMES = ["a", "b", "c", "silence"]


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_transformers(name: str) -> None:
    ours = log_mel(torch.from_numpy(REFERENCE[f"{name}_wave"]))
    theirs = torch.from_numpy(REFERENCE[f"{name}_features"][0])
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < 1e-5


def test_features_are_the_same_under_autocast() -> None:
    wave = torch.from_numpy(REFERENCE["a_wave"])
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = log_mel(wave)
    assert torch.equal(under_autocast, log_mel(wave))


@pytest.mark.parametrize("name", NAMES)
def test_num_frames_gives_the_number_of_audio_tokens(name: str) -> None:
    frames = num_frames(len(REFERENCE[f"{name}_wave"]))
    assert -(-frames // 15) * 3 == int(REFERENCE[f"{name}_embeds"][0])


@pytest.mark.parametrize("num_samples", [257, 319, 320, 321, 479, 480, 481, 16_000, 16_160, 48_123])
def test_num_frames_equals_the_rows_of_log_mel(num_samples: int) -> None:
    wave = torch.randn(num_samples, generator=torch.Generator().manual_seed(num_samples)) * 0.1
    features = log_mel(wave)
    assert features.shape == (num_frames(num_samples), FEATURE_DIM)
    assert features.isfinite().all()


def test_a_frame_is_20_ms() -> None:
    assert FRAME_SECONDS == 0.02
    assert abs(num_frames(30 * 16_000) * FRAME_SECONDS - 30) <= FRAME_SECONDS


def test_a_gain_shifts_all_features_by_a_constant() -> None:
    """The floor is relative to the loudest mel of the utterance, so a gain only shifts the features."""
    wave = torch.from_numpy(REFERENCE["a_wave"])
    shift = log_mel(wave * 0.1) - log_mel(wave)
    assert float((shift + 0.5).abs().max()) < 1e-4  # log10(0.01) / 4


def test_padding_does_not_change_an_utterance() -> None:
    clips = [log_mel(torch.from_numpy(REFERENCE[f"{name}_wave"])) for name in "abc"]
    batch, counts = pad_features(clips)
    assert counts.tolist() == [50, 119, 2]
    assert batch.shape == (3, 119, FEATURE_DIM)
    for row, clip in zip(batch, clips, strict=True):
        assert torch.equal(row[: len(clip)], clip)
        assert not row[len(clip) :].any()
