"""Lengths are those of the audio, not of an estimate; a file is the same read whole, in blocks and in segments."""

import struct
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.audio import inspect_audio, load_audio, load_segments, stream_audio
from finetune.data.audio_file import open_audio

Wave = NDArray[np.float32]


def speechlike(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> Wave:
    """(n, C): noise of changing level, so that a variable bit rate varies and no two places are equal."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate)
    edges = np.arange(0, count + rate, rate // 5)
    level = np.interp(np.arange(count), edges, rng.uniform(0, 0.3, len(edges)))
    noise = np.cumsum(rng.normal(0, 0.2, (count, channels)), 0)
    noise -= np.concatenate([np.zeros((8, channels)), noise[:-8]])
    return (level[:, None] * noise).astype(np.float32).clip(-1, 1)


def encode(
    path: Path, wave: Wave, rate: int, codec: str, bit_rate: int = 0, form: str | None = None, **options: str
) -> Path:
    """Writes (n, C) with FFmpeg; options of the codec and the container."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[wave.shape[1]]
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options=options)
        if bit_rate:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def mp3(path: Path, wave: Wave, rate: int, **options: str) -> Path:
    return encode(path, wave, rate, "libmp3lame", form="mp3", **{"id3v2_version": "0", **options})


VBR = {"flags": "+qscale", "global_quality": "590"}
UNTAGGED = {**VBR, "write_xing": "0"}


def decoded(path: Path) -> float:
    """Seconds that FFmpeg decodes."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    return sum(frame.samples for frame in frames) / frames[0].sample_rate


def check(path: Path, seconds: float, tolerance: float = 0.002) -> Wave:
    """Every reader agrees on the length and the samples."""
    whole = load_audio(path)
    info = inspect_audio(path)
    assert abs(len(whole) / 16_000 - seconds) <= tolerance and abs(info.duration - seconds) <= tolerance
    np.testing.assert_allclose(np.concatenate(list(stream_audio(path))), whole, atol=1e-5)
    with open_audio(path) as file:
        rate = file.samplerate
        samples = file.read(file.frames)
        starts = np.random.default_rng(0).integers(0, max(1, len(samples) - rate // 2), 5)
        for start in [*starts, len(samples) - rate // 2, 0]:
            file.seek(int(start))
            np.testing.assert_allclose(file.read(rate // 2), samples[start : start + rate // 2], atol=2e-3)
    late = np.floor(info.duration - 0.6)  # beyond the estimates
    segment, again = load_segments(path, [(late, 0.5, None), (late, 0.5, None)])
    np.testing.assert_allclose(segment, again, atol=1e-6)
    assert abs(len(segment) - 8_000) <= 1
    with pytest.raises(DataError, match="outside the file"):
        load_audio(path, info.duration + 1)
    return whole


@pytest.mark.parametrize(
    ("rate", "channels"),
    [(8_000, 1), (11_025, 2), (12_000, 1), (16_000, 1), (22_050, 2), (24_000, 1), (44_100, 2), (48_000, 1)],
)
def test_an_mp3_of_variable_bit_rate_without_a_tag_has_the_length_of_its_frames(
    tmp_path: Path, rate: int, channels: int
) -> None:
    path = mp3(tmp_path / "a.mp3", speechlike(6, rate, channels), rate, **UNTAGGED)
    estimate = soundfile.info(path).duration
    seconds = decoded(path)
    assert seconds > 6 and abs(estimate - seconds) > 0.5  # libsndfile's estimate is wrong
    whole = check(path, seconds)
    if rate == 16_000:
        prefix = soundfile.read(path, dtype="float32")[0]  # the samples that were read before are the same
        np.testing.assert_allclose(whole[: len(prefix)], prefix, atol=1e-6)


def test_mp3_files_joined_with_and_without_tags(tmp_path: Path) -> None:
    """Every part counts; its tag and the delay of its encoder do not."""
    wave = speechlike(4, 16_000)
    tagged = mp3(tmp_path / "tagged.mp3", wave, 16_000, **VBR).read_bytes()
    untagged = mp3(tmp_path / "untagged.mp3", wave, 16_000, **UNTAGGED).read_bytes()
    stereo = mp3(tmp_path / "stereo.mp3", speechlike(4, 44_100, 2), 44_100, **VBR).read_bytes()
    one = load_audio(tmp_path / "tagged.mp3")
    assert len(one) == 4 * 16_000
    id3 = b"ID3\x04\0\0\0\0\x10\0" + b"\xff\xfb\x90\x64" * 512  # a picture in it can look like a frame
    ape = b"APETAGEX" + struct.pack("<IIII8x", 2000, 32, 0, 0) + bytes(32)
    seconds = {
        "two": (tagged + tagged, 8.0),
        "three with tags between": (tagged + id3 + tagged + b"TAG" + bytes(125) + tagged, 12.0),
        "tags at the end": (untagged + ape + b"TAG" + bytes(125), decoded(tmp_path / "untagged.mp3")),
        "bytes at the start": (bytes(range(1, 200)) * 9 + tagged, 4.0),
        "a tag in the middle": (untagged + id3 + untagged, 2 * decoded(tmp_path / "untagged.mp3")),
        "untagged after tagged": (tagged + untagged, 8.15),
        "other rate": (stereo + tagged, 8.0),
    }
    for name, (content, expected) in seconds.items():
        path = tmp_path / f"{name}.mp3"
        path.write_bytes(content)
        whole = check(path, expected, 0.08 if "untagged" in name else 0.002)
        if name in ("two", "three with tags between"):
            np.testing.assert_allclose(whole[4 * 16_000 : 8 * 16_000], one, atol=1e-6)


def test_an_mp3_that_states_more_frames_than_it_has_is_truncated(tmp_path: Path) -> None:
    content = mp3(tmp_path / "a.mp3", speechlike(6, 16_000), 16_000, **VBR).read_bytes()
    for name, data in {"one": content[: len(content) // 2], "second": content + content[: len(content) // 2]}.items():
        (tmp_path / name).write_bytes(data)
        for read in (load_audio, inspect_audio, lambda path: list(stream_audio(path))):
            with pytest.raises(DataError, match="truncated"):
                read(tmp_path / name)


def test_mp2_and_mp3_inside_a_wav(tmp_path: Path) -> None:
    check(encode(tmp_path / "a.mp2", speechlike(4, 48_000, 2), 48_000, "mp2", 192_000), 4.0, 0.05)
    inside = encode(tmp_path / "a.wav", speechlike(6, 16_000), 16_000, "libmp3lame", form="wav", **VBR)
    check(inside, decoded(inside), 0.05)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chained_ogg_file_is_read_to_the_end_of_its_last_link(tmp_path: Path, subtype: str) -> None:
    waves = [speechlike(3, 16_000, seed=seed) for seed in (1, 2, 3)]
    for number, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{number}.ogg", wave, 16_000, format="OGG", subtype=subtype)
    path = tmp_path / "chain.ogg"
    path.write_bytes(b"".join((tmp_path / f"{number}.ogg").read_bytes() for number in range(3)))
    parts = [load_audio(tmp_path / f"{number}.ogg") for number in range(3)]
    np.testing.assert_allclose(check(path, 9.0), np.concatenate(parts), atol=1e-6)


def test_a_vorbis_file_gives_the_same_samples_after_any_seek(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.ogg", speechlike(15, 16_000), 16_000, format="OGG", subtype="VORBIS")
    with open_audio(tmp_path / "a.ogg") as file:
        whole = file.read(file.frames)
        for start in np.random.default_rng(1).integers(0, len(whole) - 3000, 120):
            file.seek(int(start))
            np.testing.assert_allclose(file.read(2000), whole[start : start + 2000], atol=1e-5)


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_encodings_without_random_access(tmp_path: Path, subtype: str) -> None:
    """Recordings of telephones; libsndfile cannot seek in them, or tell the position."""
    path = tmp_path / "call.wav"
    times = np.arange(3 * 16_000) / 16_000
    soundfile.write(path, 0.3 * np.sin(900 * times * (1 + times)), 16_000, subtype)
    wave = load_audio(path)
    assert len(wave) == pytest.approx(3 * 16_000, abs=700)
    later, earlier = load_segments(path, [(2.0, 0.5, None), (0.5, 1.0, None)])
    assert np.array_equal(later, wave[32_000:40_000]) and np.array_equal(earlier, wave[8_000:24_000])


@pytest.mark.parametrize("suffix", ["flac", "aiff", "au", "caf"])
def test_files_that_were_joined_byte_by_byte_are_read_to_the_end_of_the_last_one(tmp_path: Path, suffix: str) -> None:
    waves, joined = [speechlike(seconds, 16_000, seed=seed) for seed, seconds in enumerate((2, 1, 1.5))], b""
    for wave in waves:
        soundfile.write(tmp_path / f"part.{suffix}", wave, 16_000)
        joined += (tmp_path / f"part.{suffix}").read_bytes()
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(joined)
    assert np.abs(load_audio(path) - np.concatenate(waves)[:, 0]).max() < 1e-4
    assert np.array_equal(load_audio(path, 1.5, 2.0), load_audio(path)[24_000:56_000])  # of all three parts


def test_a_flac_without_a_length_is_counted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", speechlike(4, 16_000), 16_000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21:26] = bytes([content[21] & 0xF0]) + bytes(4)
    (tmp_path / "b.flac").write_bytes(content)
    np.testing.assert_array_equal(check(tmp_path / "b.flac", 4.0), load_audio(tmp_path / "a.flac"))


CONTAINERS = {
    "a.m4a": ("aac", "ipod"),
    "a.mp4": ("aac", "mp4"),
    "lossless.m4a": ("alac", "ipod"),
    "a.webm": ("libopus", "webm"),
    "a.mkv": ("aac", "matroska"),
    "a.aac": ("aac", "adts"),
    "a.wma": ("wmav2", "asf"),
    "a.mov": ("aac", "mov"),
    "a.ts": ("aac", "mpegts"),
    "a.ac3": ("ac3", "ac3"),
    "a.wv": ("wavpack", "wv"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_that_libsndfile_does_not_open(tmp_path: Path, name: str) -> None:
    codec, form = CONTAINERS[name]
    rate = 48_000 if codec in ("libopus", "ac3") else 44_100
    wave = speechlike(5, rate, 2)
    path = encode(tmp_path / name, wave, rate, codec, 96_000, form)
    whole = check(path, 5.0, 0.06)
    expected = np.interp(np.arange(80_000) / 16_000, np.arange(len(wave)) / rate, wave.mean(1))
    spectrum = np.fft.rfft(whole[:64_000], 1 << 17) * np.conj(np.fft.rfft(expected[:64_000], 1 << 17))
    lag = (int(np.argmax(np.fft.irfft(spectrum))) + (1 << 16)) % (1 << 17) - (1 << 16)
    assert abs(lag) < 1100  # the encoder's delay is dropped, or is one frame
    with open_audio(path) as file:
        assert (file.samplerate, file.channels) == (rate, 2)


def test_a_late_segment_of_a_long_container_is_found_without_decoding_all(tmp_path: Path) -> None:
    """A sweep: an error of a few samples in the position would show."""
    rate = 44_100
    time = np.arange(68 * rate) / rate
    wave = (0.3 * np.sin(2 * np.pi * (200 + 20 * time) * time)).astype(np.float32)[:, None]
    path = encode(tmp_path / "long", wave, rate, "aac", 96_000, "matroska")
    with open_audio(path) as file:
        whole = file.read(file.frames)
        for start in (62 * rate + 17, 60 * rate + 1, 30 * rate, 66 * rate):
            file.seek(start)
            assert file.tell() == start
            np.testing.assert_allclose(file.read(rate), whole[start : start + rate], atol=5e-3)


def test_video_and_edit_lists(tmp_path: Path) -> None:
    """The audio of a video is read; an m4a that was cut without encoding again starts where its edit list says."""
    wave = speechlike(5, 16_000)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        pictures, sound = (
            container.add_stream("mpeg4", rate=10),
            container.add_stream("aac", rate=16_000, layout="mono"),
        )
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        for _ in range(20):
            container.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(pictures.encode(None))
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[start : start + 1024].T), "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    check(tmp_path / "a.mp4", 5.0, 0.07)


def test_truncated_and_damaged_containers(tmp_path: Path) -> None:
    wave = speechlike(6, 16_000)
    head = {"movflags": "faststart"}
    m4a = encode(tmp_path / "a.m4a", wave, 16_000, "aac", 64_000, "ipod", **head).read_bytes()
    webm = encode(tmp_path / "a.webm", speechlike(6, 48_000), 48_000, "libopus", 64_000).read_bytes()
    late = encode(tmp_path / "b.m4a", wave, 16_000, "aac", 64_000, "ipod").read_bytes()
    files = {
        "half.m4a": (m4a[: len(m4a) // 2], "truncated"),
        "half.webm": (webm[: len(webm) // 2], "truncated"),
        "no index.m4a": (late[: len(late) // 2], "no index.m4a: the file is damaged or truncated"),
        "damaged.m4a": (m4a[:-20_000] + b"\x55" * 10_000 + m4a[-10_000:], "damaged"),
        "list.m3u8": (b"#EXTM3U\n#EXTINF:10,\na.m4a\n#EXT-X-ENDLIST\n", "not audio"),
        "concat.txt": (b"ffconcat version 1.0\nfile a.m4a\n", "not audio"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            load_audio(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))


def test_without_pyav_the_error_has_the_command_and_other_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.m4a", speechlike(1, 16_000), 16_000, "aac")
    joined = mp3(tmp_path / "a.mp3", speechlike(4, 16_000), 16_000, **VBR).read_bytes() * 2
    (tmp_path / "b.mp3").write_bytes(joined)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"a\.m4a: .*pip install av"):
        load_audio(path)
    assert len(load_audio(tmp_path / "b.mp3")) == 8 * 16_000


def test_a_wav_with_more_audio_than_its_header_states_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speechlike(4, 16_000), 16_000)
    complete = path.read_bytes()
    start = complete.index(b"data") + 4
    half = (len(complete) - start - 4) // 2
    header = complete[:start] + half.to_bytes(4, "little")
    path.write_bytes(header + complete[start + 4 :])
    with pytest.raises(DataError, match=f"the header states {half} bytes of audio, but {half} more bytes follow"):
        load_audio(path)
    samples = complete[start + 4 : start + 4 + half]
    chunk = b"LIST" + (4096).to_bytes(4, "little") + b"INFO" + bytes(4092)
    for rest in (b"", b"\x01" * 128, bytes(8192), chunk):  # a tag of 128 bytes, padding, another chunk
        path.write_bytes(header + samples + rest)
        assert len(load_audio(path)) == half // 2


@pytest.mark.parametrize("form", ["AIFF", "AU", "CAF", "W64", "RF64", "NIST"])
def test_a_file_that_is_smaller_than_its_header_states_is_truncated(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.audio"
    soundfile.write(path, speechlike(2, 16_000), 16_000, "PCM_16", format=form)
    complete = path.read_bytes()
    assert len(load_audio(path)) == 32_000
    path.write_bytes(complete[:40_000])
    with pytest.raises(DataError, match=r"truncated: the header states 6\d+ bytes, but the file has 40000"):
        load_audio(path)


def test_the_size_of_a_stream_is_not_known(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.au", speechlike(2, 16_000), 16_000)
    content = (tmp_path / "a.au").read_bytes()
    (tmp_path / "a.au").write_bytes(content[:8] + b"\xff" * 4 + content[12:])
    assert len(load_audio(tmp_path / "a.au")) == 32_000


def test_wav_files_that_were_joined_byte_by_byte_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for frames in (16_000, 16_001):
        soundfile.write(path, np.zeros(frames, np.uint8) + 0.1, 16_000, subtype="PCM_U8")
        joined = tmp_path / "joined.wav"
        joined.write_bytes(2 * path.read_bytes())
        with pytest.raises(DataError, match="joined byte by byte"):
            load_audio(joined)
        assert len(load_audio(path)) == frames
