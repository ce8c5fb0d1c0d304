"""Warns of keywords that the CTC head cannot write."""

from collections.abc import Iterable

from finetune.core.options import TranscribeOptions
from finetune.core.wording import count, verb
from finetune.model.ctc import is_spelled


def keyword_warning(options: TranscribeOptions) -> str:
    """Why keywords of a call have no effect; "" if all have one, or if there are none."""
    if options.translate_to or options.language == "ja":
        if options.keywords and options.decoding.keyword_method == "ctc":
            return "keywords have no effect: the CTC head (keyword_method ctc) writes no translations and no Japanese"
        return ""
    return unwritable_warning(options.decoding.by_ctc(options.keywords))


def unwritable_warning(keywords: Iterable[str]) -> str:
    """Names keywords of which the CTC alphabet has no or few letters; "" if there are none."""
    unwritable = [word for word in keywords if not is_spelled(word)]
    if not unwritable:
        return ""
    names = ", ".join(map(repr, unwritable[:3])) + (", ..." if len(unwritable) > 3 else "")
    return (
        f"{count(len(unwritable), 'keyword')} {verb(len(unwritable), 'has', 'have')} no effect by the CTC head, which "
        f"cannot write most of the letters: {names}"
    )
