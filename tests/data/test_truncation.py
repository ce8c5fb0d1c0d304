"""Files that lack their end and can be decoded: each is found, and no complete file is."""

import io
from collections.abc import Callable

import av
import numpy as np
import pytest
import soundfile
import soxr

from finetune.data.audio import load_audio
from finetune.data.audio_source import Content
from finetune.data.truncation import truncation_sign

RATE = 48_000
SECONDS = 6
WAVE = (0.2 * np.random.default_rng(0).standard_normal(SECONDS * RATE)).astype(np.float32)


class Pipe(io.RawIOBase):
    """A file that cannot be sought, so that a container states no length."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.content += bytes(data)
        return len(data)


def streamed(form: str, codec: str, **options: str) -> bytes:
    """The encoding that FFmpeg writes into a pipe."""
    pipe = Pipe()
    with av.open(pipe, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(WAVE[None], "fltp", "mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, "mono", RATE, frame_size=stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return bytes(pipe.content)


def written(form: str, subtype: str | None = None) -> bytes:
    """The encoding of libsndfile."""
    file, rate = io.BytesIO(), 16_000
    soundfile.write(file, soxr.resample(WAVE, RATE, rate), rate, format=form, subtype=subtype)
    return file.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "Ogg Opus": lambda: written("OGG", "OPUS"),
    "Ogg Vorbis": lambda: written("OGG", "VORBIS"),
    "Ogg of FFmpeg": lambda: streamed("ogg", "libopus"),
    "MP3 without a length": lambda: streamed("mp3", "libmp3lame", write_xing="0", id3v2_version="0"),
    "WebM without a length": lambda: streamed("webm", "libopus"),
    "live WebM": lambda: streamed("webm", "libopus", live="1"),
}


def sign_of(content: bytes) -> str:
    return truncation_sign(Content("a", content))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_within_a_packet(name: str) -> None:
    content = FILES[name]()
    assert sign_of(content) == ""
    for stop in (len(content) - 1, len(content) - 40, len(content) * 9 // 10 + 1, len(content) // 2 + 1):
        cut = Content("a", content[:stop])
        assert 0 < len(load_audio(cut)) / 16_000 <= SECONDS + 0.1, "it can be decoded"
        assert "ends within" in truncation_sign(cut), stop


def test_an_ogg_that_ends_between_two_pages() -> None:
    content = FILES["Ogg Opus"]()
    assert "not marked as the end" in sign_of(content[: content.rindex(b"OggS")])


def test_an_mp3_that_states_a_few_more_frames_than_it_has() -> None:
    content = written("MP3")
    assert sign_of(content) == ""
    cut = content
    for _ in range(4):
        cut = cut[: cut.rindex(content[:2])]  # the last frame
    assert len(load_audio(Content("a", cut))) / 16_000 == pytest.approx(SECONDS, abs=0.3), "within its tolerance"
    assert "MPEG frames, but has" in sign_of(cut)


@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), b"APETAGEX" + bytes(24), bytes(1000)])
def test_a_tag_after_an_mp3_is_not_a_frame(tag: bytes) -> None:
    assert sign_of(FILES["MP3 without a length"]() + tag) == ""


def test_other_files_have_no_sign() -> None:
    assert sign_of(written("WAV")) == sign_of(written("FLAC")) == ""


@pytest.mark.parametrize("content", [b"\xff\xfb", b"OggS", b"OggS" * 10, b"\x1aE\xdf\xa3", b"\x1aE\xdf\xa3\x00\x00"])
def test_damaged_files_raise_nothing(content: bytes) -> None:
    assert isinstance(sign_of(content), str)
