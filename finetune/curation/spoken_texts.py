"""The texts to synthesize: terms in sentences from templates, or sentences of a file."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.core.errors import DataError, RecipeError
from finetune.core.files import numbered_lines
from finetune.core.keyword_list import columns_problem
from finetune.data.cells import clean_text
from finetune.data.prepare_split import SPECIAL_TOKENS
from finetune.data.row_checks import control_tokens
from finetune.metrics.scripts import is_unspaced

SLOT = "{term}"
MAX_WORDS = 6  # of a term; longer lines are probably sentences
# In the style of the base model: lower case, without punctuation. The slot stands where a name can stand.
TEMPLATES = {
    "en": """what do you know about {term}
we talked about {term} yesterday
please write down {term} for me
i have never heard of {term} before
can you tell me more about {term}
the next point on the list is {term}
there was a question about {term} this morning
i think the word was {term} and not the other one
could you spell {term} once more
she asked him about {term} last week
{term} was mentioned twice in the letter
{term} is what they were looking for
{term} and nothing else
please look up {term} before the meeting
he wrote {term} on a piece of paper
we will come back to {term} later
my colleague knows everything about {term}
is it {term} or something similar
the note only says {term}
nobody had told us about {term}
first {term} then the rest
it has to do with {term} i believe
yes {term} that is right
no i did not say {term}
they changed {term} at the end of the month
because of {term} we had to wait
with {term} it works much better
without {term} it would not be possible
tomorrow we should speak about {term} again
the page about {term} is missing"""
}


UNSPACED_LETTERS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f"  # of `is_unspaced`


@dataclass(frozen=True)
class Sentence:
    """A sentence to synthesize and the terms in it."""

    text: str
    terms: tuple[str, ...]


def read_lines(path: str | Path, what: str) -> list[tuple[str, str]]:
    """The lines of a text file that are not empty, each with its place `path:line`.

    Args:
        path: the file, in UTF-8.
        what: what a line is, for messages.

    Raises:
        DataError: the file cannot be read or has no such line, or a line has a token that is a command for the model.
    """
    numbered = [(f"{path}:{number}", line) for number, line in numbered_lines(path)]
    if not numbered:
        raise DataError(f"{path}: has no {what}; write one on each line")
    for place, line in numbered:
        if tokens := control_tokens([line], SPECIAL_TOKENS):
            raise DataError(f"{place}: {tokens[0]} is a command for the model; remove it")
    return numbered


def read_term_list(path: str | Path) -> list[str]:
    """The distinct terms of a file, one on each line.

    Raises:
        DataError: see `read_lines`; a term is a row of a table, or has no letter or digit; most lines are sentences.
    """
    terms = dict[str, None]()
    lines = read_lines(path, "term")
    for place, line in lines:
        if problem := columns_problem(line):
            raise DataError(f"{place}: {problem}")
        term = clean_text(line)
        if not any(map(str.isalnum, term)):
            raise DataError(f"{place}: {term!r} has no letter or digit, so no voice can speak it")
        terms.setdefault(term)
    if sum(len(term.split()) > MAX_WORDS for term in terms) * 2 > len(terms):
        raise DataError(f"{path}: most lines have more than {MAX_WORDS} words; for sentences add --kind sentences")
    return list(terms)


def read_templates(path: str | Path | None, language: str) -> list[str]:
    """Sentences with one `{term}` each: of a file, or the built-in ones of the language.

    Raises:
        RecipeError: there are no built-in templates for the language.
        DataError: see `read_lines`; a line has no `{term}`, or several.
    """
    if path is None:
        if language not in TEMPLATES:
            known = ", ".join(TEMPLATES)
            raise RecipeError(
                f"--language {language}: there are built-in sentences for {known} only; add --templates FILE with "
                f"sentences that contain {SLOT}, or --writer"
            )
        return TEMPLATES[language].splitlines()
    templates = dict[str, None]()
    for place, line in read_lines(path, "template"):
        if line.count(SLOT) != 1:
            raise DataError(f"{place}: has {line.count(SLOT)} places {SLOT} instead of one: {line.strip()[:60]!r}")
        templates.setdefault(clean_text(line))
    return list(templates)


def fill_templates(terms: Sequence[str], templates: Sequence[str], per_term: int, seed: int) -> dict[str, list[str]]:
    """By term, `per_term` different sentences, or one for each template if there are fewer."""
    return {
        term: [
            template.replace(SLOT, term)
            for template in random.Random(f"{seed}/{term}/templates").sample(templates, min(per_term, len(templates)))
        ]
        for term in terms
    }


def term_sentences(by_term: dict[str, list[str]]) -> list[Sentence]:
    """The sentences of each term, in order."""
    return [Sentence(text, (term,)) for term, texts in by_term.items() for text in texts]


def read_sentences(path: str | Path, terms: Sequence[str]) -> list[Sentence]:
    """The distinct sentences of a file, each with the terms that occur in it.

    Raises:
        DataError: see `read_lines`; a sentence has no word.
    """
    patterns = {term: term_pattern(term) for term in terms}
    sentences = dict[str, Sentence]()
    for place, line in read_lines(path, "sentence"):
        text = clean_text(line)
        if not any(map(str.isalnum, text)):
            raise DataError(f"{place}: {text!r} has no word, so no voice can speak it")
        occurring = tuple(term for term, pattern in patterns.items() if pattern.search(text))
        sentences.setdefault(text, Sentence(text, occurring))
    return list(sentences.values())


def term_pattern(term: str) -> re.Pattern[str]:
    """Finds a term as whole words, in any case."""
    return re.compile(whole_words(term), re.IGNORECASE)


def whole_words(term: str) -> str:
    """The regular expression of a term as whole words, where the script of its edges has spaces between words."""
    before, after = ("" if is_unspaced(edge) else rf"[^\W{UNSPACED_LETTERS}]" for edge in (term[0], term[-1]))
    return (f"(?<!{before})" if before else "") + re.escape(term) + (f"(?!{after})" if after else "")
