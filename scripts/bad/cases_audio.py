"""Bad audio files."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from bad.case import Case
from bad.cases_manifests import row
from bad.material import RATE, Material

# Files that are short or odd, but audio: a command may transcribe them.
READABLE = {
    "one-sample.wav",
    "ten-ms.wav",
    "rate-1.wav",
    "rate-huge.wav",
    "channels-300.wav",
    "silence.wav",
    "wrong-suffix.txt",
    "cut.mp3",
    "middle-garbled.mp3",
    "middle-garbled.ogg",
    "middle-garbled.flac",
    "cut.ogg",
    "cut.flac",
    "cut.aiff",
    "no-samples.wav",
    "infinite.wav",
    "nan.wav",
    "garbled.mp3",
    "garbled.au",
    "cut.au",
    "cut.w64",
    "cut.caf",
}


def encoded(kind: str, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def files() -> Iterator[tuple[str, bytes]]:
    """Each bad file: its name and content."""
    rng = np.random.default_rng(2)
    noise = rng.uniform(-0.3, 0.3, RATE).astype(np.float32)
    for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64"):
        whole, suffix = encoded(kind, noise), kind.lower()
        yield f"cut.{suffix}", whole[: len(whole) // 2]
        yield f"header-only.{suffix}", whole[:40]
        garbled = bytearray(whole)
        garbled[:64] = rng.bytes(64)
        yield f"garbled.{suffix}", bytes(garbled)
    for kind in ("FLAC", "OGG", "MP3"):
        garbled = bytearray(encoded(kind, noise))
        middle = len(garbled) // 2
        garbled[middle : middle + 400] = rng.bytes(400)
        yield f"middle-garbled.{kind.lower()}", bytes(garbled)
    yield "empty.wav", b""
    yield "nul.wav", b"\0" * 5000
    yield "text.wav", b"this is a text\n" * 50
    yield "page.mp3", b"<!DOCTYPE html><html><body>404</body></html>"
    yield "lfs.wav", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    yield "error.flac", b'{"error": "not found"}'
    yield "movie.mp4", b"\0\0\0\x20ftypisom" + rng.bytes(500)
    yield "matroska.webm", b"\x1aE\xdf\xa3" + rng.bytes(500)
    yield "archive.wav", b"PK\x03\x04" + rng.bytes(500)
    yield "nan.wav", encoded("WAV", np.full(RATE, np.nan, np.float32), subtype="FLOAT")
    yield "infinite.wav", encoded("WAV", np.full(RATE, np.inf, np.float32), subtype="FLOAT")
    yield "one-sample.wav", encoded("WAV", noise[:1])
    yield "no-samples.wav", encoded("WAV", noise[:0])
    yield "ten-ms.wav", encoded("WAV", noise[:160])
    yield "silence.wav", encoded("WAV", noise * 0)
    yield "rate-1.wav", encoded("WAV", noise[:100], 1)
    yield "rate-huge.wav", encoded("WAV", noise, 2_000_000_000)
    yield "channels-300.wav", encoded("WAV", rng.uniform(-0.3, 0.3, (800, 300)).astype(np.float32))
    yield "wrong-suffix.txt", encoded("WAV", noise)
    header = bytearray(encoded("WAV", noise))
    yield "rate-zero.wav", bytes(header[:24] + struct.pack("<I", 0) + header[28:])
    yield "channels-zero.wav", bytes(header[:22] + struct.pack("<H", 0) + header[24:])
    yield "size-lie.wav", bytes(header[:40] + struct.pack("<I", 2_000_000_000) + header[44:])
    yield "size-zero.wav", bytes(header[:40] + struct.pack("<I", 0) + header[44:])
    yield "bits-lie.wav", bytes(header[:34] + struct.pack("<H", 77) + header[36:])


def cases(material: Material) -> Iterator[Case]:
    folder = material.folder("audio")
    names = []
    for name, content in files():
        (folder / name).write_bytes(content)
        (folder / f"{name}.jsonl").write_bytes(row(audio_filepath=name))
        inner = folder / f"work-{name}"
        inner.mkdir()
        codes = (0, 1) if name in READABLE else (1,)
        says = "" if name in READABLE else "finetune: "
        names.append(str(folder / name))
        yield Case(
            f"audio-{name}: transcribe", inner, ["transcribe", names[-1], "--model", str(material.model)], codes, says
        )
        for command in ("prepare", "score"):
            argv = material.on_test(command, folder / f"{name}.jsonl")
            yield Case(f"audio-{name}: {command}", inner, argv, codes, says)
    stems = {Path(name).stem: name for name in reversed(names)}
    argv = ["transcribe", *stems.values(), "--model", str(material.model), "--output", "out"]
    yield Case("audio-all: transcribe", folder / "work-nul.wav", argv, (1,), "nul.wav")
