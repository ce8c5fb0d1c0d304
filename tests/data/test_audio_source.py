"""Audio of members of archives and of remote files has the samples of a local file; every failure is one sentence."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
import soundfile

from bench.loopback import Loopback, serve
from finetune.core.errors import DataError
from finetune.data.audio import audio_channels, inspect_audio, load_audio, load_segments, stream_audio
from finetune.data.audio_file import count_channels
from finetune.data.audio_source import AudioSource, Parts, audio_source
from finetune.data.byte_range import ByteRange
from finetune.data.tar_index import read_tar_index

FORMATS = ("wav", "flac", "unsized.flac", "vbr.mp3", "joined.mp3", "ogg", "joined.ogg", "gsm.wav", "m4a", "webm")
SEGMENTS = [(0.0, None, None), (0.6, 0.3, None), (0.2, 0.5, None)]


def encode(wave: np.ndarray, kind: str) -> bytes:
    """One second of audio in a format."""
    out, form = io.BytesIO(), kind.rpartition(".")[2]
    if form in ("m4a", "webm"):
        with av.open(out, "w", format={"m4a": "mp4", "webm": "webm"}[form]) as container:
            stream = container.add_stream({"m4a": "aac", "webm": "libopus"}[form], rate=48_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.repeat(wave, 3)[None], "fltp", "mono")
            frame.sample_rate, frame.pts = 48_000, 0
            resampler = av.AudioResampler(stream.format, "mono", 48_000, frame_size=stream.frame_size or 960)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        return out.getvalue()
    if kind == "vbr.mp3":
        with av.open(out, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
            options = {"flags": "+qscale", "global_quality": "590"}
            stream = container.add_stream("libmp3lame", rate=16_000, layout="mono", options=options)
            frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, 0
            container.mux([*stream.encode(frame), *stream.encode(None)])
        return out.getvalue()
    subtype = "GSM610" if kind == "gsm.wav" else None
    soundfile.write(out, wave, 16_000, subtype, format={"wav": "WAV", "flac": "FLAC", "mp3": "MP3", "ogg": "OGG"}[form])
    data = out.getvalue()
    if kind == "unsized.flac":
        data = data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]
    return 2 * data if kind.startswith("joined") else data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each format, and a tar with all of them."""
    path = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(1)
    for kind in FORMATS:
        (path / kind).write_bytes(encode(rng.uniform(-0.3, 0.3, 16_000).astype(np.float32), kind))
    with tarfile.open(path / "shard.tar", "w") as archive:
        for kind in FORMATS:
            archive.add(path / kind, f"clips/{kind}")
    fsspec.filesystem("memory").pipe({f"/sources/{file.name}": file.read_bytes() for file in path.iterdir()})
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Loopback]:
    with serve(folder) as state:
        yield state


def member_of(archive: str, kind: str) -> str:
    return str(next(member for member in read_tar_index(archive) if member.name == f"clips/{kind}"))


def in_parts(path: Path) -> AudioSource:
    """The file as a large one: read on demand, in small blocks."""
    content = path.read_bytes()
    return Parts(str(path), len(content), 0, lambda start, stop: content[start:stop], 700)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_source_has_the_samples_of_the_file(folder: Path, server: Loopback, kind: str) -> None:
    local, archive = folder / kind, folder / "shard.tar"
    expected = [load_audio(local, *segment) for segment in SEGMENTS]
    sources: list[str | AudioSource] = [
        member_of(str(archive), kind),
        member_of("memory://sources/shard.tar", kind),
        member_of(f"{server.url}/shard.tar", kind),
        f"memory://sources/{kind}",
        f"{server.url}/{kind}",
        f"file://{local}",
        in_parts(local),
    ]
    assert [wave.size > 4000 for wave in expected] == [True] * 3
    for source in sources:
        waves = [*load_segments(source, SEGMENTS), *(load_audio(source, *segment) for segment in SEGMENTS)]
        for wave, same in zip(waves, [*load_segments(local, SEGMENTS), *expected], strict=True):
            np.testing.assert_array_equal(wave, same, str(source))
        np.testing.assert_array_equal(
            np.concatenate(list(stream_audio(source))), np.concatenate(list(stream_audio(local)))
        )
        assert inspect_audio(source) == inspect_audio(local)
        assert (count_channels(source), audio_channels(source)) == (1, (1, None))


def test_the_bytes_of_a_small_remote_clip_are_one_request(folder: Path, server: Loopback) -> None:
    member = member_of(str(folder / "shard.tar"), "flac").replace(str(folder), server.url)
    server.requests[:] = []
    for path in (member, f"{server.url}/vbr.mp3"):
        load_audio(path)
    assert [path for path, _ in server.requests] == ["/shard.tar", "/vbr.mp3"]


def test_opposite_channels_are_found_in_a_member(tmp_path: Path) -> None:
    wave = np.random.default_rng(2).uniform(-0.3, 0.3, 16_000)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, -wave], 1), 16_000)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.wav", "a.wav")
    (member,) = read_tar_index(tmp_path / "a.tar")
    assert audio_channels(str(member)) == (2, 0)
    np.testing.assert_array_equal(load_audio(str(member)), load_audio(tmp_path / "a.wav"))


@pytest.mark.parametrize("kind", ["flac", "wav", "vbr.mp3", "joined.ogg", "m4a"])
def test_a_read_that_fails_while_a_file_is_decoded_is_the_reason(folder: Path, kind: str) -> None:
    content, broken = (folder / kind).read_bytes(), False

    def read(start: int, stop: int) -> bytes:
        if broken and stop > 700:  # not the first bytes, which are read before a decoder opens the file
            raise DataError("the network is down")
        return content[start:stop]

    source = Parts("clip", len(content), 0, read, 700)
    load_audio(source)  # so that the frames and packets are known
    broken = True
    with pytest.raises(DataError, match="^the network is down$"):
        load_audio(source)
    broken = False
    load_audio(source)


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("damage", "local", "remote"),
    [
        (gone, "no such file", "no such file"),
        (cut, "the archive has only 2000 bytes: it is truncated", "ends after 464 of the .* bytes of the member"),
        (zeroed, "not audio in a supported format", "not audio in a supported format"),
    ],
)
def test_a_damaged_archive(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None], local: str, remote: str
) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes((folder / "shard.tar").read_bytes())
    name = str(read_tar_index(path)[0])
    damage(path)
    memory = fsspec.filesystem("memory")
    url = name.replace(str(tmp_path), "memory://damaged")
    if path.exists():
        memory.pipe("/damaged/shard.tar", path.read_bytes())
    for member, message in ((name, local), (url, remote)):
        with pytest.raises(DataError, match=message) as error:
            load_audio(member)
        assert str(error.value).startswith(f"{member}: ") and "\n" not in str(error.value)
    if path.exists():
        memory.rm("/damaged/shard.tar")


def test_an_empty_member_and_a_large_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    size = 20_000_000  # more than is read at once
    wave = np.random.default_rng(3).integers(-9999, 9999, size // 2, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", wave, 16_000)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("empty.wav"), io.BytesIO())
        archive.add(tmp_path / "a.wav", "a.wav")
    empty, large = map(str, read_tar_index(path))
    with pytest.raises(DataError, match=r"the file is empty \(0 bytes\)"):
        load_audio(empty)
    fsspec.filesystem("memory").pipe("/large/a.tar", path.read_bytes())
    fsspec.filesystem("memory").pipe("/large/a.wav", (tmp_path / "a.wav").read_bytes())
    expected = load_audio(tmp_path / "a.wav", 500.0, 2.0)
    for name in (large, large.replace(str(tmp_path), "memory://large"), "memory://large/a.wav"):
        assert isinstance(audio_source(name), Parts)
        np.testing.assert_array_equal(load_audio(name, 500.0, 2.0), expected)
    with pytest.raises(DataError, match="the archive has only"):
        load_audio(str(ByteRange("memory://large/a.tar", "a.wav", 1536, 30_000_000)))
