"""Opens voices of the table: the engines of `finetune synthesize`, and commands for programs from Debian."""

import os
from functools import cache
from pathlib import Path

import numpy as np

from finetune.core.errors import VoiceError
from finetune.curation.voices.command_line import CommandVoice
from finetune.curation.voices.espeak import EspeakVoice
from finetune.curation.voices.flite import FliteVoice
from finetune.curation.voices.kokoro import KokoroVoice
from finetune.curation.voices.piper import PiperVoice
from finetune.curation.voices.voice import Line, Part, Voice
from nano.kana import to_phonemes
from nano.pico import PicoVoice
from nano.voice_table import TableVoice

NEURAL = ("kokoro", "piper")  # they pause and fall at the end of a sentence only if it has a full stop
SPEEDS = {"espeak-ng": (0.8, 1.3), "festival": (0.85, 1.15)}
DEFAULT_SPEEDS = (0.85, 1.2)
PITCHES = (0.8, 1.25)
FESTIVAL = (
    "festival --datadir {folder}/usr/share/festival -b '(begin (voice_{{voice}})"
    ' (Parameter.set "Duration_Stretch" (/ 1 {{speed}}))'
    ' (utt.save.wave (utt.synth (Utterance Text "{{text}}")) "{{out}}"))\''
)
COMMANDS = {
    "festival": FESTIVAL,
    "rhvoice": "RHVoice-test -p {{voice}} -r {{percent}} -o {{out}}",
    "open_jtalk": (
        "open_jtalk -x {folder}/var/lib/mecab/dic/open-jtalk/naist-jdic"
        " -m {folder}/usr/share/hts-voice/nitech-jp-atr503-m001/{{voice}}.htsvoice -r {{speed}} -ow {{out}}"
    ),
}


def use_programs(folder: Path) -> None:
    """Makes this process run the programs of the unpacked Debian packages, with their own libraries and data.

    Raises:
        VoiceError: there are none.
    """
    programs, libraries = folder / "usr" / "bin", sorted(folder.glob("usr/lib/*-linux-gnu*"))
    if not libraries:
        raise VoiceError(f"{folder}: no programs; run scripts/fetch_voices debian")
    base = [*libraries, *folder.glob("lib/*-linux-gnu*"), *folder.glob("usr/lib/*/pulseaudio")]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, base))
    os.environ["PATH"] = os.pathsep.join([str(programs), os.environ["PATH"]])
    os.environ["ESPEAK_DATA_PATH"] = str(libraries[0])
    os.environ["RHVOICE_DATA_PATH"] = str(folder / "usr/share/RHVoice")


@cache
def open_voice(voice: TableVoice, folder: Path) -> Voice:
    """The voice, ready to speak; `folder` is that of `fetch_voices`. Programs need `use_programs` first.

    Raises:
        FinetuneError: it is not installed.
    """
    debian = folder / "debian"
    if voice.engine == "kokoro":
        opened: Voice = KokoroVoice(f"{folder / 'kokoro'}#{voice.name}", threads=1)
    elif voice.engine == "piper":
        opened = PiperVoice(str(folder / "piper" / f"{voice.name}.onnx"))
    elif voice.engine == "pico":
        opened = PicoVoice(voice.name, debian)
    elif voice.engine == "flite":
        opened = FliteVoice(voice.name)
    elif voice.engine in COMMANDS:
        opened = CommandVoice(voice.name, COMMANDS[voice.engine].format(folder=debian))
    else:
        opened = EspeakVoice(f"mb-{voice.name}" if voice.engine == "mbrola" else voice.name)
    opened.check()
    return opened


def line_for(voice: TableVoice, text: str, rng: np.random.Generator) -> Line:
    """What the voice speaks, at a random speed and pitch."""
    speed = float(rng.uniform(*SPEEDS.get(voice.engine, DEFAULT_SPEEDS)))
    pitch = float(rng.uniform(*PITCHES))
    if voice.engine == "kokoro" and voice.language == "ja":
        return Line((Part(f"{to_phonemes(text).strip(' .')}.", ipa=True),), speed, pitch)
    if voice.engine in NEURAL and text[-1:] not in ".?!":
        text = f"{text}."
    if voice.engine == "festival":
        text = text.replace('"', " ").replace("\\", " ")
    return Line((Part(text),), speed, pitch)
