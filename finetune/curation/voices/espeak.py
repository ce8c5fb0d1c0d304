"""espeak-ng: a program with rules for more than 100 languages, in many accents and variants (`en-us+f3`)."""

from finetune.core.errors import VoiceError
from finetune.curation.voices.program import read_sound, run_program
from finetune.curation.voices.voice import Line, Sound

INSTALL = "run `apt-get install espeak-ng`, or see github.com/espeak-ng/espeak-ng"
WORDS_PER_MINUTE, PITCH = 165, 50  # at speed and pitch 1; espeak-ng's own are 175 and 50


class EspeakVoice:
    """A voice such as `en-us` or `en-gb-scotland+m2` (a language, and a variant after the plus)."""

    engine = "espeak-ng"
    takes_ipa, parallel = False, True
    identity = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self) -> None:
        (language, plus, variant), variants = self.name.partition("+"), _variants()
        if plus and variant not in variants:  # espeak-ng ignores an unknown one
            raise VoiceError(f"espeak-ng has no variant {variant!r}; `espeak-ng --voices=variant` lists them")
        try:
            run_program(["espeak-ng", "-q", "-v", language, "--", "a"], install=INSTALL)
        except VoiceError as error:
            raise VoiceError(f"{error}; `espeak-ng --voices` lists the voices (column Language)") from error

    def speak(self, line: Line) -> Sound:
        command = ["espeak-ng", "-v", self.name, "-s", str(round(WORDS_PER_MINUTE * line.speed))]
        command += ["-p", str(min(99, round(PITCH * line.pitch))), "--stdout", "--", line.text]
        return read_sound(run_program(command, install=INSTALL), "espeak-ng")


def _variants() -> frozenset[str]:
    listed = run_program(["espeak-ng", "--voices=variant"], install=INSTALL).decode(errors="replace").splitlines()[1:]
    return frozenset(line.split("!v/", 1)[1].split("  ")[0].strip() for line in listed)
