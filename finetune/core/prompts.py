"""The prompts of each model of the family: what a row, a recipe or a request asks for, as the text after the audio.

Sources: the model cards of granite-speech-3.3, granite-4.0-1b-speech, granite-speech-4.1-2b and 4.1-2b-plus, and the
prompts of granite-speech-5.0-2b in mlx-audio 0.6.2.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.core.files import read_json
from finetune.core.languages import TRANSLATION_TARGETS, row_language
from finetune.core.layouts import BPE_HEAD, version_of

TRANSCRIBE, TRANSLATE = "transcribe", "translate"
TASKS = {  # names of tasks in corpora, in lower case
    "transcribe": TRANSCRIBE,
    "transcription": TRANSCRIBE,
    "asr": TRANSCRIBE,
    "translate": TRANSLATE,
    "translation": TRANSLATE,
    "ast": TRANSLATE,
    "st": TRANSLATE,
    "s2tt": TRANSLATE,
    "s2t_translation": TRANSLATE,
}
PUNCTUATED = "punctuated"  # a text style: with capitals and punctuation
STYLES = ("raw", PUNCTUATED)
INSTRUCTION = "can you transcribe the speech into a written format?"  # from the model card of granite-4.0-1b-speech
_PUNCTUATION = "with proper punctuation and capitalization."


@dataclass(frozen=True)
class PromptProfile:
    """The prompts of one version of the model.

    Attributes:
        version: the version, such as 4.0.
        keywords: the instruction that replaces INSTRUCTION in a prompt with keywords; "" if nothing replaces it.
        language_hint: what a prompt begins with if the request states the spoken language; "" for nothing.
        system: the text of the system turn; "" for no system turn.
        separator: what stands between the audio and the instruction.
    """

    version: str
    keywords: str = ""
    language_hint: str = ""
    system: str = ""
    separator: str = ""

    def transcribe(self, style: str = "", default: str = INSTRUCTION, language: str = "") -> str:
        """The instruction of a transcription.

        Args:
            style: one of STYLES; "" is `default`.
            default: the instruction of the recipe.
            language: code of the spoken language, if a hint about it is wanted.
        """
        text = {"raw": INSTRUCTION, PUNCTUATED: f"transcribe the speech {_PUNCTUATION}"}.get(style, default)
        name = TRANSLATION_TARGETS.get(language)
        return self.language_hint.format(language=name) + text if name else text

    def translate(self, target: str, style: str = "") -> str:
        """The instruction of a translation into a language, by its code in TRANSLATION_TARGETS."""
        end = f" {_PUNCTUATION}" if style == PUNCTUATED else "."
        return f"translate the speech to {TRANSLATION_TARGETS[target]}{end}"

    def with_keywords(self, instruction: str) -> str:
        """The instruction of a prompt that also has keywords."""
        return instruction.replace(INSTRUCTION, self.keywords) if self.keywords else instruction


_KEYWORDS = "transcribe the speech to text."
_SYSTEM = (  # the date is part of the prompt of the model card
    "Knowledge Cutoff Date: April 2024.\nToday's Date: {date}.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant"
)
PROFILES = {
    profile.version: profile
    for profile in (
        PromptProfile("3.3", system=_SYSTEM.format(date="April 9, 2025")),
        PromptProfile("4.0"),
        PromptProfile("4.1", keywords=_KEYWORDS),
        PromptProfile("4.1-plus", keywords=_KEYWORDS, system=_SYSTEM.format(date="December 19, 2024"), separator=" "),
        PromptProfile(
            "5.0",
            keywords=_KEYWORDS,
            language_hint="The speech is in {language}. Transcribe it exactly; do not translate. ",
        ),
    )
}
DEFAULT_PROFILE = PROFILES["4.0"]


def profile_of(source: str, config: Mapping[str, Any], has_bpe_head: bool = False) -> PromptProfile:
    """The prompts of a base model or of a model trained from it; the arguments are those of `version_of`."""
    return PROFILES[version_of(source, config, has_bpe_head)]


def read_profile(source: str | Path) -> PromptProfile:
    """The prompts of a model by its name and, for a folder, its files."""
    folder, config = Path(source), None
    with suppress(OSError, ValueError):  # a hub name, or a damaged file that loading the model will report
        config = read_json(folder / "config.json")
    return profile_of(str(source), config if isinstance(config, dict) else {}, (folder / BPE_HEAD).is_file())


def target_code(name: str) -> str:
    """The code of a language that the model can translate into; "" for another language or none."""
    code = row_language(name)
    return code if code in TRANSLATION_TARGETS else ""


def stated_task(task: str, language: str, target: str) -> tuple[str, str]:
    """The task and the target language of a row: (TRANSLATE, target), or ("", "") for a transcription.

    A row without a task is a translation if its target is another language than the spoken one.

    Args:
        task: a name in TASKS, or "".
        language: the spoken language; "" if it is not known.
        target: the language of the text; "" if it is not stated.

    Raises:
        ValueError: the task is unknown, or a translation has no other language than the spoken one as its target.
    """
    name = TASKS.get(task.strip().lower(), "") if task.strip() else ""
    if task.strip() and not name:
        raise ValueError(f"task {task!r} is not {TRANSCRIBE} or {TRANSLATE}; rename the column if it is something else")
    same = bool(target) and row_language(target) == row_language(language) != ""
    if name == TRANSCRIBE or (not name and (same or not target)):
        return "", ""
    if not target:
        raise ValueError(f"task {TRANSLATE} needs a target_language")
    if same:
        raise ValueError(f"task {TRANSLATE}: target_language {target!r} is the spoken language")
    return TRANSLATE, target


def prompt_problem(target: str, style: str, instruction: str) -> str:
    """Why a row has no prompt; "" if it has one.

    Args:
        target: the target language of a translation, else "".
        style: the style of its text.
        instruction: its own instruction, which replaces the prompt of the task.
    """
    if style and style not in STYLES:
        return f"text_style {style!r} is not {' or '.join(STYLES)}"
    if target and not instruction and not target_code(target):
        known = ", ".join(TRANSLATION_TARGETS)
        return f"no prompt is known for target_language {target!r}; use one of {known}, or give an `instruction`"
    return ""
