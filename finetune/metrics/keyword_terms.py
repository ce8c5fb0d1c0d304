"""Words that can be keywords of a prompt: those of a text, and the lines of a list."""

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import category

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import sha256_file
from finetune.core.keyword_list import CONTROL_CHARACTERS, CONTROL_TOKEN
from finetune.core.wording import count
from finetune.metrics.number_signs import is_unspaced
from finetune.metrics.terms import read_terms, term_lines

MAX_NAMED = 5  # lines that a message has
MAX_WORD = 40  # characters; longer sequences without a space are no words
PUNCTUATION = string.punctuation + "\u2026\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u2013\u2014\u00bf\u00a1"
PUNCTUATION += "\u3001\u3002\u300c\u300d\uff0c\uff01\uff1f\u060c\u061f\u0964"
# In scripts without spaces, a run of katakana or of a few Chinese characters is often a word.
UNSPACED_WORD = re.compile("[\u30a1-\u30fa\u30fc]{2,}|[\u4e00-\u9fff\u3005]{2,4}")


def keyword_problem(word: str, special_tokens: Sequence[str] = ()) -> str:
    """Why a word cannot be a keyword; "" if it can.

    Args:
        word: the word or phrase.
        special_tokens: control tokens of the tokenizer.
    """
    if "," in word:
        return "contains a comma, which separates keywords; write one keyword per line"
    if control := next((char for char in word if category(char) in CONTROL_CHARACTERS), ""):
        return f"contains the control character {control!r}; remove it"
    token = next((token for token in special_tokens if token in word), "")
    if not token and (match := CONTROL_TOKEN.search(word)):
        token = match[0]
    return f"contains {token}, which is a command for the model; remove it" if token else ""


def prompted_terms(recipe: Recipe, special_tokens: Sequence[str]) -> list[str]:
    """The terms of `data.terms`; each can be a keyword if the recipe puts them into prompts.

    Raises:
        DataError: see `read_keywords`.
    """
    path = recipe.data.terms
    if not path:
        return []
    in_prompts = recipe.keywords.sampled or recipe.evaluate.keyword_lists
    return read_keywords(path, special_tokens) if in_prompts else read_terms(path)


def sampling_inputs(recipe: Recipe) -> dict[str, Any]:
    """What the keyword lists of a training depend on, except its manifests; empty if it samples none."""
    if not recipe.keywords.sampled:
        return {}
    terms, normalizer = recipe.data.terms, recipe.evaluate.normalizer
    digest = sha256_file(Path(terms)) if terms and Path(terms).is_file() else ""
    return {"keywords": {**recipe.keywords.model_dump(), "terms_sha256": digest, "normalizer": normalizer}}


def words_of(text: str) -> list[str]:
    """The words of a text in their order, without punctuation around them."""
    words = [word for part in text.split() if (word := part.strip(PUNCTUATION))]
    if any(is_unspaced(char) for char in text if not char.isascii()):
        words = [part for word in words for part in _parts(word)]
    return [word for word in words if len(word) <= MAX_WORD]


def _parts(word: str) -> list[str]:
    return UNSPACED_WORD.findall(word) if any(map(is_unspaced, word)) else [word]


def read_keywords(path: str | Path, special_tokens: Sequence[str] = ()) -> list[str]:
    """Reads a list of terms that prompts will contain, one per line; empty lines are skipped.

    Raises:
        DataError: the file cannot be read or is empty, or a line cannot be a keyword; the message has these lines.
    """
    lines = term_lines(path)
    problems = [
        f"{path}:{number}: the keyword {term[:60]!r} {problem}"
        for number, term in lines
        if (problem := keyword_problem(term, special_tokens))
    ]
    if problems:
        more = [f"... and {count(len(problems) - MAX_NAMED, 'more line')}"] if len(problems) > MAX_NAMED else []
        raise DataError("\n".join([*problems[:MAX_NAMED], *more]))
    return [term for _, term in lines]
