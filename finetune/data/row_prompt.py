"""The instruction in the prompt of an utterance: its own, or that of its task and style in the profile of the model."""

from finetune.core.languages import row_language
from finetune.core.prompts import DEFAULT_PROFILE, PromptProfile, target_code
from finetune.data.manifest import Utterance


def instruction_of(item: Utterance, default: str, profile: PromptProfile = DEFAULT_PROFILE) -> str:
    """The instruction of an utterance, without keywords.

    Args:
        item: the utterance.
        default: the instruction of the recipe, for transcriptions without a style or an instruction of their own.
        profile: the prompts of the model.
    """
    return prompt_text((item.task, item.target_language, item.text_style, item.instruction), default, profile)


def prompt_text(columns: tuple[str, ...], default: str, profile: PromptProfile) -> str:
    """`instruction_of` for the values of PROMPT_COLUMNS."""
    task, target_language, text_style, instruction = columns
    if instruction:
        return instruction
    code = target_code(target_language) if task else ""
    return profile.translate(code, text_style) if code else profile.transcribe(text_style, default)


def has_ctc_text(item: Utterance, bpe_head: bool = False) -> bool:
    """Whether a CTC head can write the text: not a translation, and Japanese only with a head of tokens.

    The head of characters writes Japanese in kana.

    Args:
        item: the utterance.
        bpe_head: whether the model has a second CTC head, of tokens of the language model.
    """
    return not item.is_translation and (bpe_head or row_language(item.language) != "ja")
