"""Cuts free text into spoken sentences of 2 to 20 words and keeps those that are plain language."""

import re
from collections.abc import Iterator

from nano.texts.frequency import Frequencies
from nano.texts.normalize import clean, normalize

MIN_WORDS, MAX_WORDS = 2, 20
# Zipf frequency (log10 of the uses in a billion words) of the rarest word: about the 6,000 most frequent words of
# English; lower in the languages with more forms of a word.
COMMON = {"en": 4.0, "es": 3.7, "fr": 3.7, "pt": 3.7, "de": 3.6, "it": 3.7}
_STOP = re.compile(r"(?<=[.!?])['\")\]]*\s+(?=[\"'¿¡(\[]*[A-ZÀ-ÞÁ])|(?<=[;:])\s+|\s+[-]{1,3}\s+|[—–]|\n\s*\n")
# Markup, code, lists and abbreviations. Voices read them in different ways.
_NOT_SPEECH = re.compile(
    r"[<>{}\[\]()|@#$^*_=+\\/~&%°§]|\b[A-ZÀ-Þ]{2,}\b|\b[A-Za-z]\.\s?[A-Za-z]\.|[a-zà-ÿ][A-Z]|\.\w|"
    r"\b(etc|vs|Mr|Mrs|Ms|Dr|Prof|St|Jr|Nr|Sr|Sra|bzw|usw|vgl|pág|Mme)\.|\b(jdm|jdn|jmd|etw|sth|smb|sb)\b|\b[B-Zb-z]\.|"
    r"\w' \w|\d{3,}[A-Z]"
)
_CLAUSE = re.compile(r"(?<=,)\s+")


def sentences(text: str, language: str) -> Iterator[str]:
    """The sentences of `text` as a voice reads them. Longer ones are cut at commas or left out."""
    text = re.sub(r"</?[a-z]+>", "", text).replace("--", " — ")
    for part in _STOP.split(text):
        part = " ".join(part.split()).strip(" \"'*-•")
        if not part or _NOT_SPEECH.search(part):
            continue
        spoken = clean(part, language)
        if spoken:
            yield from _fitting(spoken, language)


def _fitting(spoken: str, language: str) -> Iterator[str]:
    group: list[str] = []
    if len(normalize(spoken, language).split()) <= MAX_WORDS:
        yield spoken
        return
    for clause in _CLAUSE.split(spoken):
        joined = " ".join([*group, clause])
        if group and len(joined.split()) > MAX_WORDS - 6:
            yield " ".join(group).rstrip(",")
            group = [clause]
        else:
            group.append(clause)
    yield " ".join(group)


def kind_of(text: str, language: str, frequencies: Frequencies) -> str | None:
    """`common` (frequent words only) or `rare`; None for text that is too short or long, or not of the language."""
    words = text.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or len(text) > 14 * len(words) + 10:
        return None
    zipfs = [frequencies.zipf(word, language) for word in words]
    if min(zipfs) == 0 or frequencies.lacks_accents(words, language) or not frequencies.is_language(words, language):
        return None
    return "common" if min(zipfs) >= COMMON[language] else "rare"
