"""The prompts of each model of the family: what a row, a recipe or a request asks for, as the text after the audio.

Sources: the model cards of granite-speech-3.3, granite-4.0-1b-speech and granite-speech-4.1-2b, and the prompts of
granite-speech-5.0-2b in mlx-audio 0.6.2.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.core.files import read_json
from finetune.core.languages import TRANSLATION_TARGETS, row_language

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
BPE_HEAD = "out_llm.safetensors"  # weights of a second CTC head, in 4.1 and 5.0
STYLES = ("raw", "punctuated")
INSTRUCTION = "can you transcribe the speech into a written format?"  # from the model card of granite-4.0-1b-speech
_PUNCTUATION = "with proper punctuation and capitalization."


@dataclass(frozen=True)
class PromptProfile:
    """The prompts of one version of the model.

    Attributes:
        version: the version, such as 4.0.
        keywords: the instruction that replaces INSTRUCTION in a prompt with keywords; "" if nothing replaces it.
        language_hint: what a prompt begins with if the request states the spoken language; "" for nothing.
    """

    version: str
    keywords: str = ""
    language_hint: str = ""

    def transcribe(self, style: str = "", default: str = INSTRUCTION, language: str = "") -> str:
        """The instruction of a transcription.

        Args:
            style: one of STYLES; "" is `default`.
            default: the instruction of the recipe.
            language: code of the spoken language, if a hint about it is wanted.
        """
        text = {"raw": INSTRUCTION, "punctuated": f"transcribe the speech {_PUNCTUATION}"}.get(style, default)
        name = TRANSLATION_TARGETS.get(language)
        return self.language_hint.format(language=name) + text if name else text

    def translate(self, target: str, style: str = "") -> str:
        """The instruction of a translation into a language, by its code in TRANSLATION_TARGETS."""
        end = f" {_PUNCTUATION}" if style == "punctuated" else "."
        return f"translate the speech to {TRANSLATION_TARGETS[target]}{end}"

    def with_keywords(self, instruction: str) -> str:
        """The instruction of a prompt that also has keywords."""
        return instruction.replace(INSTRUCTION, self.keywords) if self.keywords else instruction


_KEYWORDS = "transcribe the speech to text."
PROFILES = {
    profile.version: profile
    for profile in (
        PromptProfile("3.3"),
        PromptProfile("4.0"),
        PromptProfile("4.1", keywords=_KEYWORDS),
        PromptProfile(
            "5.0",
            keywords=_KEYWORDS,
            language_hint="The speech is in {language}. Transcribe it exactly; do not translate. ",
        ),
    )
}
DEFAULT_PROFILE = PROFILES["4.0"]


def profile_of(source: str, config: Mapping[str, Any], has_bpe_head: bool = False) -> PromptProfile:
    """The prompts of a base model or of a model trained from it.

    Args:
        source: hub name or folder; its last part can state the version, as in `granite-speech-4.1-2b`.
        config: the content of its config.json.
        has_bpe_head: whether it has a second CTC head (BPE_HEAD), as 4.1 and 5.0.
    """
    name = re.split(r"[/\\]", source.rstrip("/\\"))[-1].lower()
    stated = re.search(r"granite.*?(?<!\d)(\d\.\d)(?!\d)", name)
    if stated and stated[1] in PROFILES:
        return PROFILES[stated[1]]
    if config.get("has_lora_adapter"):
        return PROFILES["3.3"]
    text = _mapping(config.get("text_config"))
    rope = _mapping(text.get("rope_parameters")) or _mapping(text.get("rope_scaling"))
    if "yarn" in (rope.get("rope_type"), rope.get("type")):
        return PROFILES["5.0"]
    return PROFILES["4.1"] if has_bpe_head else DEFAULT_PROFILE


def _mapping(value: object) -> Mapping[str, Any]:
    """A mapping; an empty one for another type, in a damaged file that loading the model will report."""
    return value if isinstance(value, Mapping) else {}


def read_profile(source: str | Path) -> PromptProfile:
    """The prompts of a model by its name and, for a folder, its files."""
    folder, config = Path(source), dict[str, Any]()
    with suppress(OSError, ValueError):  # a hub name, or a damaged file
        config = read_json(folder / "config.json")
    return profile_of(str(source), _mapping(config), (folder / BPE_HEAD).is_file())


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
