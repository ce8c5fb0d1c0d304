"""Where somebody speaks: by level and by silero-vad, on sounds that are known, and in bounded memory."""

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
from finetune.inference.vad import Activity, Finder, by_level, by_silero

CLIP = VOCABULARY / "audio" / "canary" / "canary-006-flite-slt.opus"


def noise(seconds: float, decibels: float) -> NDArray[np.float32]:
    wave = np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32)
    return wave * np.float32(10 ** (decibels / 20))


def found(folder: Path, find: Finder, *parts: NDArray[np.float32]) -> Activity:
    soundfile.write(folder / "a.wav", np.concatenate(parts), SAMPLE_RATE, subtype="FLOAT")
    return find(stream_audio(folder / "a.wav"))


def share(mask: NDArray[np.bool_], frame: float, start: float, end: float) -> float:
    return float(mask[round(start / frame) : round(end / frame)].mean())


@pytest.fixture(scope="module")
def silero() -> Finder:
    return by_silero()


@pytest.mark.parametrize("background", [-90.0, -50.0, -40.0])
@pytest.mark.parametrize("which", ["level", "silero"])
def test_speech_between_pauses(tmp_path: Path, silero: Finder, which: str, background: float) -> None:
    speech = load_audio(CLIP)
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    wave = np.concatenate([pause, speech, pause])
    wave += noise(len(wave) / SAMPLE_RATE, background)
    signs = found(tmp_path, silero if which == "silero" else by_level, wave)
    end = 2 + len(speech) / SAMPLE_RATE
    assert signs.duration == pytest.approx(end + 2)
    assert share(signs.speech, signs.frame, 2.2, end - 0.2) > 0.6
    for a, b in ((0.1, 1.9), (end + 0.2, end + 1.8)):
        assert share(signs.speech, signs.frame, a, b) < 0.02
        assert share(signs.silent, signs.frame, a, b) > 0.95
    assert not (signs.speech & signs.silent).any()


def test_the_level_calls_nothing_silent_where_nothing_stands_out(tmp_path: Path) -> None:
    """Noise all over may be a crowd that speaks: it has to be encode_batches to."""
    signs = found(tmp_path, by_level, noise(3.0, -30.0))
    assert not signs.silent.any()


def test_an_offset_is_silence_and_a_click_does_not_hide_speech(tmp_path: Path) -> None:
    signs = found(tmp_path, by_level, np.full(SAMPLE_RATE, 0.25, np.float32))
    assert signs.silent.all() and not signs.speech.any()
    speech = 0.1 * load_audio(CLIP)
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[8000:8100] = 1.0
    signs = found(tmp_path, by_level, click, speech)
    assert share(signs.speech, signs.frame, 1.2, 1 + len(speech) / SAMPLE_RATE - 0.2) > 0.6


def test_silero_knows_noise_from_speech_and_leaves_torch_its_threads(tmp_path: Path, silero: Finder) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert by_silero() and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert found(tmp_path, silero, noise(2.0, -20.0)).silent.all()


def test_without_silero_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'finetune-granite-speech\[vad\]'"):
        by_silero()


def test_the_last_samples_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and a last frame that is not full change nothing."""
    parts = [noise(0.5, -30), np.zeros(4000, np.float32), noise(0.4371, -20)]
    whole = found(tmp_path, by_level, *parts)
    assert whole.duration == pytest.approx(1.1871, abs=1e-4) and len(whole.level) == 60
    monkeypatch.setattr("finetune.data.audio.BLOCK_FRAMES", 997)
    again = by_level(stream_audio(tmp_path / "a.wav"))
    np.testing.assert_allclose(again.level, whole.level, atol=1e-3)
    assert again.duration == whole.duration


def test_an_hour_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Its samples alone would be 230 MB; what grows with the length is one number for each 20 ms."""
    rate, seconds = 4_000, 3600
    soundfile.write(tmp_path / "hour.wav", np.zeros(0), rate, subtype="PCM_U8")
    header = bytearray((tmp_path / "hour.wav").read_bytes())
    at = header.index(b"data") + 4
    header[4:8] = (at + 4 + rate * seconds - 8).to_bytes(4, "little")
    header[at : at + 4] = (rate * seconds).to_bytes(4, "little")
    with open(tmp_path / "hour.wav", "wb") as file:  # zeros that take no place on the disk; in 8 bits an offset
        file.write(header)
        file.truncate(at + 4 + rate * seconds)
    tracemalloc.start()
    try:
        signs = by_level(stream_audio(tmp_path / "hour.wav"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert signs.duration == pytest.approx(seconds, abs=0.1) and signs.silent[100:-100].all()
    assert peak < 80 * 2**20
