"""Voice activity by energy and by silero-vad on known sounds, and in bounded memory."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import VOCABULARY
from numpy.typing import NDArray

from finetune.core.errors import MissingExtraError
from finetune.data.audio import SAMPLE_RATE, load_audio, stream_audio
from finetune.inference.vad import Activity, ActivityDetector, energy_vad, silero_vad

CLIP = VOCABULARY / "audio" / "canary" / "canary-006-flite-slt.opus"


def noise(seconds: float, decibels: float) -> NDArray[np.float32]:
    wave = np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32)
    return wave * np.float32(10 ** (decibels / 20))


def detect(folder: Path, detector: ActivityDetector, *parts: NDArray[np.float32]) -> Activity:
    """Activity in a file with these sections."""
    soundfile.write(folder / "a.wav", np.concatenate(parts), SAMPLE_RATE, subtype="FLOAT")
    return detector(stream_audio(folder / "a.wav"))


def fraction(mask: NDArray[np.bool_], frame: float, start: float, end: float) -> float:
    """Fraction of True frames between `start` and `end` seconds."""
    return float(mask[round(start / frame) : round(end / frame)].mean())


@pytest.fixture(scope="module")
def silero() -> ActivityDetector:
    return silero_vad()


@pytest.mark.parametrize("background", [-90.0, -50.0, -40.0])
@pytest.mark.parametrize("detector", ["level", "silero"])
def test_speech_between_pauses(tmp_path: Path, silero: ActivityDetector, detector: str, background: float) -> None:
    speech = load_audio(CLIP)
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    wave = np.concatenate([pause, speech, pause])
    wave += noise(len(wave) / SAMPLE_RATE, background)
    activity = detect(tmp_path, silero if detector == "silero" else energy_vad, wave)
    end = 2 + len(speech) / SAMPLE_RATE
    assert activity.duration == pytest.approx(end + 2)
    assert fraction(activity.speech, activity.frame_seconds, 2.2, end - 0.2) > 0.6
    for a, b in ((0.1, 1.9), (end + 0.2, end + 1.8)):
        assert fraction(activity.speech, activity.frame_seconds, a, b) < 0.02
        assert fraction(activity.silent, activity.frame_seconds, a, b) > 0.95
    assert not (activity.speech & activity.silent).any()


def test_energy_vad_finds_no_silence_in_constant_noise(tmp_path: Path) -> None:
    """Constant noise can be a crowd of speakers, so it must be transcribed."""
    activity = detect(tmp_path, energy_vad, noise(3.0, -30.0))
    assert not activity.silent.any()


def test_constant_offset_is_silence_and_a_click_does_not_hide_speech(tmp_path: Path) -> None:
    activity = detect(tmp_path, energy_vad, np.full(SAMPLE_RATE, 0.25, np.float32))
    assert activity.silent.all() and not activity.speech.any()
    speech = 0.1 * load_audio(CLIP)
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[8000:8100] = 1.0
    activity = detect(tmp_path, energy_vad, click, speech)
    assert fraction(activity.speech, activity.frame_seconds, 1.2, 1 + len(speech) / SAMPLE_RATE - 0.2) > 0.6


def test_silero_rejects_noise_and_keeps_the_number_of_threads(tmp_path: Path, silero: ActivityDetector) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert silero_vad() and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert detect(tmp_path, silero, noise(2.0, -20.0)).silent.all()


def test_missing_silero_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)  # makes the import fail
    with pytest.raises(MissingExtraError, match=r"pip install 'finetune-granite-speech\[vad\]'"):
        silero_vad()


def test_block_size_has_no_effect_and_the_last_samples_count(tmp_path: Path) -> None:
    """Blocks of any size give the same frames, and an incomplete last frame counts."""
    parts = [noise(0.5, -30), np.zeros(4000, np.float32), noise(0.4371, -20)]
    activity = detect(tmp_path, energy_vad, *parts)
    assert activity.duration == pytest.approx(1.1871, abs=1e-4) and len(activity.scores) == 60
    samples = np.concatenate(parts)
    in_blocks = energy_vad(samples[start : start + 997] for start in range(0, len(samples), 997))
    np.testing.assert_allclose(in_blocks.scores, activity.scores, atol=1e-3)
    assert in_blocks.duration == activity.duration


def test_an_hour_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """The samples alone would be 230 MB; only one number for each 20 ms grows with the length."""
    rate, seconds = 4_000, 3600
    soundfile.write(tmp_path / "hour.wav", np.zeros(0), rate, subtype="PCM_U8")
    header = bytearray((tmp_path / "hour.wav").read_bytes())
    at = header.index(b"data") + 4
    header[4:8] = (at + 4 + rate * seconds - 8).to_bytes(4, "little")
    header[at : at + 4] = (rate * seconds).to_bytes(4, "little")
    with open(tmp_path / "hour.wav", "wb") as file:  # a sparse file of zeros, which are a constant offset in 8-bit PCM
        file.write(header)
        file.truncate(at + 4 + rate * seconds)
    tracemalloc.start()
    try:
        activity = energy_vad(stream_audio(tmp_path / "hour.wav"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert activity.duration == pytest.approx(seconds, abs=0.1) and activity.silent[100:-100].all()
    assert peak < 80 * 2**20
