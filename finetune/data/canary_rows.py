"""Translations in the manifests of NeMo's Canary: `answer` is the translation, and `text` can be what is spoken."""

from collections.abc import Mapping

from finetune.core.prompts import stated_task
from finetune.data.cells import cell_text

ANSWER, SPOKEN = "answer", "source_text"
NO_ANSWER = ("", "na", "n/a", "none", "predict")  # in manifests for inference


def with_translation(values: dict[str, object]) -> dict[str, object]:
    """The values of a row; in a translation that has an answer, it is the text, and the former text is SPOKEN."""
    answer = values.get(ANSWER)
    if not isinstance(answer, str) or answer.strip().lower() in NO_ANSWER or not _is_translation(values):
        return values
    spoken = {SPOKEN: values["text"]} if cell_text(values.get("text")) else {}
    return {**spoken, **values, "text": answer}


def _is_translation(values: Mapping[str, object]) -> bool:
    task, language, target = (cell_text(values.get(name)) for name in ("task", "language", "target_language"))
    try:
        return bool(target and stated_task(task, language, target)[0])
    except ValueError:  # the audit reports the row
        return False
