"""flite: a small program with a few English voices; more come as .flitevox files."""

from pathlib import Path

from finetune.core.errors import VoiceError
from finetune.curation.voices.program import read_sound, run_program
from finetune.curation.voices.voice import Line, Sound

INSTALL = "run `apt-get install flite`, or see github.com/festvox/flite"


class FliteVoice:
    """A voice of `flite -lv`, such as `slt`, or the path of a .flitevox file. The pitch is not changed."""

    engine = "flite"
    takes_ipa, parallel = False, True
    identity = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self) -> None:
        voices = _voices()
        if self.name not in voices and not Path(self.name).is_file():  # flite would use its first voice
            raise VoiceError(f"flite has no voice {self.name!r}; it has {', '.join(voices)}, and takes .flitevox files")

    def speak(self, line: Line) -> Sound:
        command = ["flite", "-voice", self.name, "--setf", f"duration_stretch={1 / line.speed:.4f}"]
        return read_sound(run_program([*command, "-t", line.text, "-o", "/dev/stdout"], install=INSTALL), "flite")


def _voices() -> tuple[str, ...]:
    listed = run_program(["flite", "-lv"], install=INSTALL).decode(errors="replace")
    return tuple(listed.partition(":")[2].split())
