"""Decoding: every format becomes 16 kHz mono, and every damaged file gives an error with a reason."""

import hashlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.audio import (
    BLOCK_FRAMES,
    MIN_SAMPLES,
    SAMPLE_RATE,
    audio_channels,
    inspect_audio,
    load_audio,
    load_segments,
    stream_audio,
)


def tone(seconds: float, rate: int = SAMPLE_RATE, hertz: float = 440.0) -> NDArray[np.float32]:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(path: Path, wave: NDArray[np.float32], rate: int = SAMPLE_RATE, **options: str) -> Path:
    soundfile.write(path, wave, rate, **options)
    return path


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "aiff"])
def test_formats_decode_to_the_same_length(tmp_path: Path, suffix: str) -> None:
    path = wav(tmp_path / f"a.{suffix}", tone(1.0))
    wave = load_audio(path)
    assert wave.dtype == np.float32 and wave.shape == (SAMPLE_RATE,)
    assert abs(float(np.sqrt(np.mean(wave**2))) - 0.3 / np.sqrt(2)) < 0.02
    info = inspect_audio(path)
    assert (info.duration, info.channels, info.silent) == (1.0, 1, False)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_resampling_keeps_the_tone(tmp_path: Path, rate: int) -> None:
    wave = load_audio(wav(tmp_path / "a.wav", tone(1.0, rate), rate))
    assert len(wave) == SAMPLE_RATE
    np.testing.assert_allclose(wave[1000:-1000], tone(1.0)[1000:-1000], atol=1e-3)


def voices(seconds: float = 2.0, channels: int = 2) -> NDArray[np.float32]:
    """(N, C): unrelated noise in each channel."""
    return np.random.default_rng(5).uniform(-0.3, 0.3, (round(seconds * SAMPLE_RATE), channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [2, 6, 9])
def test_channels_are_averaged_or_chosen(tmp_path: Path, channels: int) -> None:
    waves = voices(channels=channels)
    path = wav(tmp_path / "a.wav", waves, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path), waves.mean(1), atol=1e-6)
    np.testing.assert_array_equal(load_audio(path, 0.5, 1.0, channels - 1), waves[8_000:24_000, -1])
    with pytest.raises(DataError, match=f"channel {channels} does not exist; the file has {channels}"):
        load_audio(path, channel=channels)
    left = tone(1.0)
    np.testing.assert_allclose(load_audio(wav(tmp_path / "b.wav", np.stack([left, 0 * left], 1))), left / 2, atol=1e-4)


def test_opposite_channels_give_the_first_one_with_sound(tmp_path: Path) -> None:
    """The file decides, not the segment: a segment in which the channels agree is read as the others are."""
    left, noise = voices(4.0)[:, 0], 0.05 * voices(4.0, 3)
    files = {
        "opposite": (np.stack([left, -left], 1), 0),
        "weaker": (np.stack([left, -0.6 * left], 1), 0),
        "noisy": (np.stack([left, -left], 1) + noise[:, :2], 0),
        "offset": (np.stack([left + 0.2, -left + 0.2], 1), 0),
        "third": (np.stack([0.01 * noise[:, 0], -left, left], 1), 1),
        "same": (np.stack([left, left], 1), None),
        "opposite offsets": (np.stack([left + 0.5, left - 0.5], 1), None),
        "one side": (np.stack([left, 0 * left], 1), None),
        "unrelated": (voices(4.0), None),
        "silent": (np.zeros((64_000, 2), np.float32), None),
        "mostly opposite": (np.stack([left, np.where(np.arange(64_000) < 60_000, -left, left)], 1), 0),
    }
    for name, (samples, used) in files.items():
        samples = samples.astype(np.float32)
        path = wav(tmp_path / f"{name}.wav", samples, subtype="FLOAT")
        expected = samples.mean(1) if used is None else samples[:, used]
        np.testing.assert_allclose(load_audio(path), expected, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(load_audio(path, 3.8), expected[60_800:], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(np.concatenate(list(stream_audio(path))), expected, atol=1e-6)
        info = inspect_audio(path, 3.8)
        assert (info.channel, info.channels, info.silent) == (used, samples.shape[1], name == "silent"), name
        assert audio_channels(path) == (samples.shape[1], used)
    np.testing.assert_array_equal(load_audio(tmp_path / "opposite.wav", channel=1), -left)


def test_quiet_audio_at_the_start_does_not_decide(tmp_path: Path) -> None:
    """Two minutes of unrelated noise below -60 dB, then speech in opposite phase."""
    rate = 4_000
    quiet = 5e-4 * np.random.default_rng(1).normal(size=(120 * rate, 2))
    loud = 0.2 * np.random.default_rng(2).normal(size=20 * rate)
    path = wav(tmp_path / "a.wav", np.concatenate([quiet, np.stack([loud, -loud], 1)]), rate, subtype="FLOAT")
    assert audio_channels(path) == (2, 0)


def test_a_segment_that_is_too_long_is_not_decoded(tmp_path: Path) -> None:
    """The second half is damaged, so decoding it would fail."""
    content = bytearray(wav(tmp_path / "a.flac", voices(20.0, 1)).read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    (tmp_path / "b.flac").write_bytes(content)
    with pytest.raises(DataError, match="decoding failed|truncated"):
        inspect_audio(tmp_path / "b.flac")
    info = inspect_audio(tmp_path / "b.flac", 1.0, max_duration=10.0)
    assert (info.duration, info.digest) == (19.0, "")
    assert inspect_audio(tmp_path / "b.flac", 1.0, 5.0, max_duration=10.0).digest


def test_segments_equal_slices_of_the_file(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.flac", tone(3.0))
    full = load_audio(path)
    np.testing.assert_array_equal(load_audio(path, 1.0, 0.5), full[16_000:24_000])
    np.testing.assert_array_equal(load_audio(path, 2.5), full[40_000:])
    assert len(load_audio(path, 2.5, 0.55)) == 8_000  # a small overshoot is cut, not an error
    assert inspect_audio(path, 1.0, 0.5).duration == 0.5
    for offset, duration in ((3.0, None), (-1.0, None), (2.5, 0.7), (1e9, 1.0), (0.0, 0.0)):
        with pytest.raises(DataError, match=r"outside|ends after|too short"):
            load_audio(path, offset, duration)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.opus"])
def test_load_segments_opens_the_file_once(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 4 * 24_000).astype(np.float32)
    path = wav(tmp_path / name, noise, 24_000, **({"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}))
    segments = [(2.5, 1.0, None), (0.0, 1.0, 0), (0.5, 0.25, None), (0.5, None, 0), (0.0, None, None)]
    expected = [load_audio(path, *segment) for segment in segments]

    def delete_after_opening() -> Iterator[tuple[float, float | None, int | None]]:
        path.unlink()
        yield from segments

    for wave, single in zip(load_segments(path, delete_after_opening()), expected, strict=True):
        np.testing.assert_allclose(wave, single, atol=1e-6)


def test_an_mp3_with_the_suffix_wav_is_decoded(tmp_path: Path) -> None:
    assert len(load_audio(wav(tmp_path / "a.mp3", tone(1.0)).rename(tmp_path / "a.wav"))) == SAMPLE_RATE


def test_audio_shorter_than_257_samples_is_an_error(tmp_path: Path) -> None:
    assert len(load_audio(wav(tmp_path / "a.wav", tone(1.0)[:MIN_SAMPLES]))) == MIN_SAMPLES
    inspect_audio(tmp_path / "a.wav")
    short = wav(tmp_path / "b.wav", tone(1.0)[: MIN_SAMPLES - 1])
    for read in (load_audio, inspect_audio, lambda path: list(stream_audio(path))):
        with pytest.raises(DataError, match="too short"):
            read(short)


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    """By kind of damage: a file with it, and a pattern of the error message."""
    good = wav(folder / "good.wav", tone(2.0)).read_bytes()
    damages: dict[str, tuple[Path, str]] = {
        "missing": (folder / "none.wav", "no such file"),
        "folder": (folder, "a folder or a device"),
        "long name": (folder / ("x" * 300), "cannot be read"),
        "not UTF-8": (
            Path(os.fsdecode(shutil.copy(folder / "good.wav", os.fsencode(folder) + b"/\xff.wav"))),
            "rename the file",
        ),
        "nul": (folder / "a\0.wav", "no such file|cannot be read"),
        "url": (Path("https://a.org/b.wav"), "no such file"),
        "device": (Path("/dev/zero"), "a folder or a device"),
        "nan": (wav(folder / "nan.wav", np.where(tone(1.0) > 0.29, np.nan, 0), subtype="FLOAT"), "NaN or infinite"),
        "inf": (wav(folder / "inf.wav", np.where(tone(1.0) > 0.29, np.inf, 0), subtype="FLOAT"), "NaN or infinite"),
        "scaled": (wav(folder / "scaled.wav", 32768 * tone(1.0), subtype="FLOAT"), "16-bit PCM"),
        "low rate": (wav(folder / "low.wav", tone(1.0), 3_999), "3999 Hz"),
        "high rate": (wav(folder / "high.wav", tone(1.0), 400_000), "400000 Hz"),
    }
    files = {
        "empty": (b"", "0 bytes"),
        "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
        "json": (b'{"error": "gone"}', "web page or JSON"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "m4a": (b"\0\0\0\x20ftypM4A " + b"\0" * 100, "m4a"),
        "noise": (bytes(range(256)) * 20, "not audio"),
        "header only": (good[:40] + struct.pack("<I", 0), "without samples"),
        "header only, size kept": (good[:44], "truncated"),
        "half": (good[: len(good) // 2], "truncated"),
        "not closed": (good[:40] + struct.pack("<I", 0) + good[44:], "not closed"),
        "rate 0": (good[:24] + struct.pack("<I", 0) + good[28:], "damaged or truncated"),
        "forged rate": (good[:24] + struct.pack("<I", 2**31 - 1) + good[28:], "2147483647 Hz"),
    }
    for suffix in ("flac", "mp3"):  # an Ogg stream states no length
        content = wav(folder / f"good.{suffix}", tone(4.0)).read_bytes()
        files[f"half {suffix}"] = (content[: len(content) // 2], "truncated|not audio")
    for name, (content, message) in files.items():
        path = folder / f"{name}.wav"
        path.write_bytes(content)
        damages[name] = (path, message)
    return damages


def test_every_damaged_file_gives_an_error_with_its_path(tmp_path: Path) -> None:
    damages = damaged(tmp_path)
    assert len(damages) > 20
    for name, (path, message) in damages.items():
        for read in (load_audio, inspect_audio, lambda path: list(stream_audio(path))):
            with pytest.raises(DataError, match=message) as caught:
                read(path)
            assert str(caught.value).startswith(str(path)), name


def test_a_streamed_wav_without_a_size_is_read_to_its_end(tmp_path: Path) -> None:
    content = wav(tmp_path / "a.wav", tone(1.0)).read_bytes()
    for size in (0xFFFF_FFFF, 0x7FFF_FFFF):
        (tmp_path / "b.wav").write_bytes(content[:40] + struct.pack("<I", size) + content[44:])
        assert len(load_audio(tmp_path / "b.wav")) == SAMPLE_RATE


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_symlink_loop_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    for name in ("pipe.wav", "loop.wav"):
        with pytest.raises(DataError):
            inspect_audio(tmp_path / name)


def test_constant_audio_is_silent_and_copies_have_the_same_digest(tmp_path: Path) -> None:
    assert inspect_audio(wav(tmp_path / "a.wav", 0 * tone(1.0))).silent
    assert inspect_audio(wav(tmp_path / "b.wav", 0 * tone(1.0) + 0.25)).silent
    pcm = (32767 * tone(1.0)).astype(np.int16)
    one, two = tmp_path / "c.wav", tmp_path / "d.flac"
    soundfile.write(one, pcm, SAMPLE_RATE)
    soundfile.write(two, pcm, SAMPLE_RATE)
    assert inspect_audio(one).digest == inspect_audio(two).digest != inspect_audio(one, 0.5).digest


def test_audio_longer_than_a_block_equals_one_read(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.flac", tone(2.5 * BLOCK_FRAMES / 44_100, 44_100), 44_100)
    samples, rate = soundfile.read(path, dtype="float32")
    np.testing.assert_array_equal(load_audio(path), soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ"))
    info = inspect_audio(path)
    assert info.duration == len(samples) / rate
    assert info.digest == hashlib.blake2b(samples.tobytes(), digest_size=16).hexdigest()


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_stream_audio_yields_the_same_samples_in_blocks(tmp_path: Path, rate: int) -> None:
    path = wav(tmp_path / "a.wav", tone(2.5 * BLOCK_FRAMES / rate, rate), rate)
    blocks = list(stream_audio(path))
    assert len(blocks) >= 3 and all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_allclose(np.concatenate(blocks), load_audio(path), atol=1e-5)


def test_the_audio_module_does_not_import_torch() -> None:
    check = "import sys, finetune.data.audio, finetune.data.audit; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "False"
