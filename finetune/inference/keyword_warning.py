"""Warns of prompts that a model was not trained with, and of keywords that its CTC head cannot write."""

from collections.abc import Iterable

from finetune.core.model_limits import ModelLimits
from finetune.core.options import TranscribeOptions
from finetune.core.prompts import PromptProfile
from finetune.core.wording import count, verb
from finetune.model.ctc import is_spelled


def option_warnings(options: TranscribeOptions, profile: PromptProfile, limits: ModelLimits) -> list[str]:
    """What is known to be wrong with the prompt and the keywords of a call; empty if nothing is."""
    prompt, keywords = options.prompt(profile), options.decoding.in_prompt(options.keywords)
    return [*filter(None, (limits.prompt_warning(prompt, bool(keywords)), keyword_warning(options)))]


def keyword_warning(options: TranscribeOptions) -> str:
    """Why keywords of a call have no effect; "" if all have one, or if there are none."""
    if options.translate_to or options.language == "ja":
        if options.keywords and options.decoding.keyword_method == "ctc":
            return "keywords have no effect: the CTC head (keyword_method ctc) writes no translations and no Japanese"
        return ""
    return unwritable_warning(options.decoding.by_ctc(options.keywords))


def unwritable_warning(keywords: Iterable[str]) -> str:
    """Names keywords of which the CTC alphabet has no or few letters, and those with digits; "" if there are none."""
    keywords = list(keywords)
    unwritable = [word for word in keywords if not is_spelled(word)]
    numbers = [word for word in keywords if any(map(str.isdigit, word)) and word not in unwritable]
    reasons = (
        (unwritable, "no effect by the CTC head, which cannot write most of the letters"),
        (numbers, "an effect only if the CTC head writes digits; write numbers as they are spoken"),
    )
    return "; ".join(
        f"{count(len(words), 'keyword')} {verb(len(words), 'has', 'have')} {reason}: "
        f"{', '.join(map(repr, words[:3]))}{', ...' * (len(words) > 3)}"
        for words, reason in reasons
        if words
    )
