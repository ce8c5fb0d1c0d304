"""Runs programs that synthesize speech, and reads the audio that they write."""

import io
import shlex
import subprocess
from collections.abc import Sequence

import numpy as np
import soundfile

from finetune.core.errors import VoiceError
from finetune.core.wording import count, verb
from finetune.curation.voices.voice import Sound
from finetune.data.audio_file import MAX_SOURCE_RATE, MIN_SOURCE_RATE
from finetune.data.wav import chunks

TIMEOUT = 300.0  # seconds for one sentence
MAX_MESSAGE = 1000  # characters of an error message of a program


def run_program(command: Sequence[str], text: str | None = None, install: str = "") -> bytes:
    """Standard output of a program.

    Args:
        command: the program and its arguments.
        text: standard input; None is none.
        install: how to install the program, for the message.

    Raises:
        VoiceError: the program is not installed, fails or does not end; the message has the command and its stderr.
    """
    stdin = subprocess.DEVNULL if text is None else None
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=TIMEOUT,
            stdin=stdin,
            input=None if text is None else text.encode(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VoiceError(f"`{shlex.join(command)}` did not end in {TIMEOUT:.0f} s") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte
        if isinstance(error, FileNotFoundError) and install:
            raise VoiceError(f"{command[0]} is not installed; {install}") from error
        reason = getattr(error, "strerror", None) or error
        raise VoiceError(f"`{shlex.join(command)}` cannot be started ({reason})") from error
    if done.returncode:
        message = " ".join(done.stderr.decode(errors="replace").split())[-MAX_MESSAGE:]
        ending = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        raise VoiceError(f"`{shlex.join(command)}` failed with {ending}: {message or 'no message'}")
    return done.stdout


def read_sound(content: bytes, source: str) -> Sound:
    """The audio in a file's bytes, its channels averaged.

    Raises:
        VoiceError: not audio, or an impossible sampling rate; the message starts with `source`.
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(_with_data_size(content)), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        what = (
            f"{count(len(content), 'byte')} that {verb(len(content), 'is', 'are')} not audio" if content else "no audio"
        )
        raise VoiceError(f"{source} wrote {what}") from error
    if not MIN_SOURCE_RATE <= rate <= MAX_SOURCE_RATE:
        raise VoiceError(f"{source} wrote audio with a sampling rate of {rate} Hz")
    return Sound(np.ascontiguousarray(samples.mean(axis=1), dtype=np.float32), rate)


def _with_data_size(content: bytes) -> bytes:
    """A WAV that was streamed with a data size of 0, with the size of its samples instead; other bytes as they are."""
    raw = io.BytesIO(content)
    for name, size in chunks(raw):
        if name == b"data" and not size:
            start = raw.tell()
            return content[: start - 4] + (len(content) - start).to_bytes(4, "little") + content[start:]
    return content
