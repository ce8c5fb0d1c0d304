"""SVOX Pico by its C library: the program pico2wave reads its voices from /usr/share only."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from finetune.core.errors import VoiceError
from finetune.curation.voices.voice import Line, Sound

RATE = 16_000
MEMORY, CHUNK = 2_500_000, 128  # bytes for the engine, and of audio for each call
NAME = b"voice"
BUSY = 201
SPEED = (50, 200)  # percent, limits of the engine


class PicoVoice:
    """A voice such as `de-DE`, in the folder of unpacked Debian packages."""

    engine = "pico"
    takes_ipa, parallel = False, False
    identity = ""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def check(self) -> None:
        _load(self.name, self.folder)

    def speak(self, line: Line) -> Sound:
        speed, pitch = (min(SPEED[1], max(SPEED[0], round(100 * factor))) for factor in (line.speed, line.pitch))
        text = line.text.replace("&", " ").replace("<", " ")
        marked = f"<speed level='{speed}'><pitch level='{pitch}'>{text}</pitch></speed>".encode() + b"\0"
        return Sound(_load(self.name, self.folder).speak(marked), RATE)


class _Engine:
    def __init__(self, name: str, folder: Path) -> None:
        libraries = sorted(folder.glob("usr/lib/*/libttspico.so.0"))
        if not libraries:
            raise VoiceError(f"{folder}: no libttspico.so.0; run scripts/fetch_voices debian")
        self.library = ctypes.CDLL(str(libraries[0]))
        self.memory = ctypes.create_string_buffer(MEMORY)
        self.system, self.engine = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("pico_initialize", self.memory, ctypes.c_uint(MEMORY), ctypes.byref(self.system))
        self._call("pico_createVoiceDefinition", self.system, NAME)
        files = sorted((folder / "usr/share/pico/lang").glob(f"{name}_*.bin"), reverse=True)  # text analysis first
        if len(files) != 2:
            raise VoiceError(f"{folder}: {len(files)} files of Pico's voice {name!r} instead of two")
        for path in files:
            resource, title = ctypes.c_void_p(), ctypes.create_string_buffer(256)
            self._call("pico_loadResource", self.system, str(path).encode(), ctypes.byref(resource))
            self._call("pico_getResourceName", self.system, resource, title)
            self._call("pico_addResourceToVoiceDefinition", self.system, NAME, title)
        self._call("pico_newEngine", self.system, NAME, ctypes.byref(self.engine))

    def speak(self, text: bytes) -> np.ndarray:
        """Samples (N,) of a text that ends with a null byte, which makes the engine speak all of it."""
        audio, buffer = bytearray(), ctypes.create_string_buffer(CHUNK)
        taken, received, kind = ctypes.c_short(), ctypes.c_short(), ctypes.c_short()
        while text:
            self._call(
                "pico_putTextUtf8", self.engine, text, ctypes.c_short(min(len(text), 32_000)), ctypes.byref(taken)
            )
            text, status = text[taken.value :], BUSY
            while status == BUSY:
                status = self.library.pico_getData(
                    self.engine, buffer, ctypes.c_short(CHUNK), ctypes.byref(received), ctypes.byref(kind)
                )
                audio += buffer.raw[: received.value]
            if status < 0:
                raise VoiceError(f"Pico failed with status {status}")
        return np.frombuffer(bytes(audio), np.int16).astype(np.float32) / np.float32(32768.0)

    def _call(self, function: str, *args: object) -> None:
        if status := getattr(self.library, function)(*args):
            raise VoiceError(f"Pico: {function} failed with status {status}")


@cache
def _load(name: str, folder: Path) -> _Engine:
    return _Engine(name, folder)
