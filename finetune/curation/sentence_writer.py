"""Sentences with a term, written by a text model of an OpenAI-compatible server (`POST /v1/chat/completions`)."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.core.files import read_json, write_json
from finetune.core.languages import SPEECH_LANGUAGES
from finetune.core.openai_client import OpenAIClient, Retries
from finetune.curation.spoken_texts import term_pattern
from finetune.data.cells import clean_text
from finetune.data.prepare_split import SPECIAL_TOKENS
from finetune.data.row_checks import control_tokens

log = logging.getLogger(__name__)

REQUESTS = 3  # for one term, until there are enough sentences
MAX_CHARACTERS = 200  # of a sentence
PROMPT = """Write {count} different sentences in {language} for a speech recording. Each contains the exact expression \
"{term}" once, in a context in which it is really used. Each has 4 to 15 words, all numbers in words, \
no abbreviations, no quotation marks. One sentence on each line, without numbering or comments."""
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.):])\s+")


@dataclass(frozen=True)
class Written:
    """The sentences of a term, at most as many as were `requested`."""

    requested: int
    sentences: list[str]


Kept = dict[str, dict[str, Written]]  # by writer and language, then by term


def write_sentences(
    writer: str, terms: Sequence[str], per_term: int, language: str, kept: Path
) -> dict[str, list[str]]:
    """Sentences by term. Those of an earlier call with the same model and language are not requested again.

    Args:
        writer: `openai:MODEL`.
        terms: the terms.
        per_term: sentences for each term.
        language: code of the language.
        kept: file for the sentences, written after each term.

    Raises:
        RecipeError: `writer` has another form.
        DataError: the file `kept` is damaged.
        ModelError: the server fails, or writes no sentence with a term.
    """
    engine, _, model = writer.partition(":")
    if engine != "openai" or not model:
        raise RecipeError(f"--writer {writer!r} must have the form openai:MODEL")
    content = _read(kept)
    written = content.setdefault(f"{writer} {language}", {})
    client = OpenAIClient(model, "/chat/completions", Retries())
    try:
        for term in terms:
            known = written.get(term, Written(0, []))
            if known.requested < per_term:
                name = SPEECH_LANGUAGES.get(language, language)
                written[term] = Written(per_term, _of_term(client, term, per_term, name, known.sentences))
                write_json(kept, TypeAdapter(Kept).dump_python(content))
    finally:
        client.close()
    return {term: written[term].sentences[:per_term] for term in terms}


def _read(kept: Path) -> Kept:
    try:
        return TypeAdapter(Kept).validate_python(read_json(kept)) if kept.is_file() else {}
    except ValueError as error:  # also pydantic's
        raise DataError(f"{kept}: cannot be read; delete this file to request its sentences again") from error


def _of_term(client: OpenAIClient, term: str, per_term: int, language: str, known: Sequence[str]) -> list[str]:
    sentences = dict.fromkeys(known)
    for _ in range(REQUESTS):
        count = per_term - len(sentences)
        if count <= 0:
            break
        message = {"role": "user", "content": PROMPT.format(count=count, language=language, term=term)}
        answer = client.post(client.retries.attempts, json={"model": client.model, "messages": [message]})
        if answer.response is None:
            raise ModelError(f"{client.name}: {answer.error}")
        client.worked = True
        try:
            content = answer.response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            excerpt = client.excerpt(answer.response.text)
            raise ModelError(f"{client.name}: the response has no `choices`: {excerpt}") from error
        sentences |= dict.fromkeys(usable_sentences(str(content), term))
    if not sentences:
        raise ModelError(f"{client.name} wrote no sentence that contains {term!r} once; use --templates for this term")
    if len(sentences) < per_term:
        log.warning("%s wrote %d of %d sentences for %r", client.name, len(sentences), per_term, term)
    return [*sentences]


def usable_sentences(content: str, term: str) -> list[str]:
    """The lines with the term once, without numbering; it is written as in the list."""
    pattern, sentences = term_pattern(term), list[str]()
    for line in content.splitlines():
        text = clean_text(_BULLET.sub("", line)).strip("\"'“”")
        if (
            len(pattern.findall(text)) == 1
            and len(text) <= MAX_CHARACTERS
            and not control_tokens([text], SPECIAL_TOKENS)
        ):
            sentences.append(pattern.sub(lambda _: term, text))
    return sentences
