"""How terms are pronounced: respellings, or IPA where the engine takes it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.core.errors import DataError
from finetune.curation.spoken_texts import read_lines, whole_words
from finetune.curation.voices.voice import Part
from finetune.data.cells import clean_text

Lexicon = Mapping[str, Sequence[Part]]  # by term in lower case, its pronunciations


def read_lexicon(path: str | Path | None) -> Lexicon:
    """Reads lines `term<TAB>respelling` or `term<TAB>/IPA/`; several lines of a term are variants.

    Raises:
        DataError: see `read_lines`; a line has another form.
    """
    lexicon: dict[str, list[Part]] = {}
    for place, line in read_lines(path, "pronunciation") if path is not None else []:
        term, _, spoken = (part.strip() for part in line.partition("\t"))
        if not term or not spoken:
            raise DataError(f"{place}: write a term, a tab and its pronunciation, got {line.strip()[:60]!r}")
        is_ipa = len(spoken) > 2 and spoken[0] == spoken[-1] == "/"
        part = Part(spoken[1:-1].strip(), True) if is_ipa else Part(clean_text(spoken))
        variants = lexicon.setdefault(clean_text(term).lower(), [])
        variants += [part] if part not in variants else []
    return lexicon


def pronounce(text: str, lexicon: Lexicon, variant: int, takes_ipa: bool) -> tuple[Part, ...]:
    """The parts of a sentence, with each term of the lexicon in one of its pronunciations.

    Args:
        text: the sentence.
        lexicon: the pronunciations.
        variant: which of them, counted through again from the first after the last.
        takes_ipa: whether pronunciations in IPA are used; a term that has no other one is spoken as written.
    """
    if not lexicon:
        return (Part(text),)
    terms = sorted(lexicon, key=len, reverse=True)  # longer ones first
    alternatives = "|".join(f"({whole_words(term)})" for term in terms)
    parts, end = list[Part](), 0
    for match in re.finditer(alternatives, text, re.IGNORECASE):
        assert match.lastindex is not None
        usable = [part for part in lexicon[terms[match.lastindex - 1]] if takes_ipa or not part.ipa]
        parts += [Part(text[end : match.start()]), usable[variant % len(usable)] if usable else Part(match[0])]
        end = match.end()
    parts.append(Part(text[end:]))
    return tuple(part for part in parts if part.text)
