"""Any program as a voice, by a template of its command line."""

import re
import shlex
import tempfile
from pathlib import Path

from finetune.core.errors import RecipeError, VoiceError
from finetune.curation.voices.program import read_sound, run_program
from finetune.curation.voices.voice import Line, Sound

PLACEHOLDER = re.compile(r"\{(\w*)\}")
PLACEHOLDERS = ("text", "voice", "out", "speed", "percent", "pitch")


class CommandVoice:
    """A voice of a program.

    Args:
        name: what `{voice}` stands for.
        template: the command, such as `say -v {voice} -o {out} {text}`. Without `{text}` the text is its standard
            input, without `{out}` the audio is its standard output. `{speed}` and `{pitch}` are factors, `{percent}`
            is the speed as a whole number.

    Raises:
        RecipeError: the template is missing or wrong.
    """

    engine = "command"
    takes_ipa, parallel = False, True

    def __init__(self, name: str, template: str) -> None:
        self.name, self.identity = name, template
        try:
            self.words = shlex.split(template)
        except ValueError as error:
            raise RecipeError(f"--command {template!r}: {error}") from error
        if not self.words:
            raise RecipeError(f"--voice command:{name} needs --command, such as 'say -v {{voice}} -o {{out}} {{text}}'")
        if unknown := [placeholder for placeholder in PLACEHOLDER.findall(template) if placeholder not in PLACEHOLDERS]:
            known = ", ".join(f"{{{word}}}" for word in PLACEHOLDERS)
            raise RecipeError(f"--command: {{{unknown[0]}}} is not one of {known}")

    def check(self) -> None:
        """The program is tried at the first clip: only its own message says what is missing."""

    def speak(self, line: Line) -> Sound:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "clip.wav"
            values = {"text": line.text, "voice": self.name, "out": str(out)}
            values |= {
                "speed": f"{line.speed:.3f}",
                "percent": str(round(100 * line.speed)),
                "pitch": f"{line.pitch:.3f}",
            }
            command = [PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in self.words]
            install = f"install it, or correct --command ({self.identity})"
            written = run_program(command, None if "{text}" in self.identity else line.text, install)
            if "{out}" not in self.identity:
                return read_sound(written, f"`{shlex.join(command)}`")
            if not out.is_file():
                raise VoiceError(f"`{shlex.join(command)}` ended with exit code 0, but wrote no file {{out}}")
            return read_sound(out.read_bytes(), f"`{shlex.join(command)}`")
