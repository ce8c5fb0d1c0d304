"""Transcribes synthetic clips with a model, and sets those aside whose general words it does not understand.

A term that the model does not know is expected to be wrong; the words around it are not. Where these fail too, the
voice is not intelligible to the model, and training on it would teach noise.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from finetune.core.files import read_jsonl, write_text
from finetune.core.options import DecodingOptions
from finetune.core.progress import task
from finetune.core.prompts import INSTRUCTION
from finetune.core.wording import count
from finetune.data.manifest import Utterance, seconds_of
from finetune.inference.recognize import recognize
from finetune.metrics.alignment import align
from finetune.metrics.normalizer import normalize
from finetune.metrics.wer import spaced
from finetune.model.granite import SpeechModel

BLOCK = 200  # clips between two writes of the texts


def transcribe_clips(model: SpeechModel, clips: Sequence[Utterance], kept: Path) -> dict[str, str]:
    """The model's text of each clip by its id. Texts of an earlier call with the same model are in the file `kept`."""
    texts = {
        str(row["id"]): str(row["text"])
        for row in (read_jsonl(kept) if kept.is_file() else [])
        if row.get("model") == model.source
    }
    missing = [clip for clip in clips if clip.id not in texts]
    with task("transcribe the clips", seconds_of(missing)):
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            rows = recognize(model, block, INSTRUCTION, DecodingOptions())
            texts |= {row.id: row.text for row in rows}
            lines = (json.dumps({"id": key, "model": model.source, "text": text}) for key, text in texts.items())
            write_text(kept, "".join(f"{line}\n" for line in lines))
    return texts


def general_errors(text: str, terms: Sequence[str], hypothesis: str, preset: str) -> tuple[int, int]:
    """Words of a sentence that are not part of a term: how many are not recognized, and how many there are.

    Args:
        text: the sentence.
        terms: the terms in it.
        hypothesis: what a model wrote.
        preset: a normalizer.
    """
    words = [
        (edit.reference, edit.op == "equal") for edit in align([text], [hypothesis], preset)[0] if edit.op != "insert"
    ]
    general = [True] * len(words)
    for term in terms:
        parts = spaced(normalize(term, preset), preset).split()
        for start in range(len(words) - len(parts) + 1):
            if [word for word, _ in words[start : start + len(parts)]] == parts:
                general[start : start + len(parts)] = [False] * len(parts)
    flags = [equal for (_, equal), is_general in zip(words, general, strict=True) if is_general]
    return len(flags) - sum(flags), len(flags)


def reason_against(text: str, terms: Sequence[str], hypothesis: str, preset: str, max_errors: float) -> str:
    """Why a clip is set aside; "" if it is not. A sentence without general words is kept."""
    missed, total = general_errors(text, terms, hypothesis, preset)
    if not total or missed <= max_errors * total:
        return ""
    return f"the model misses {missed} of {count(total, 'general word')}"
