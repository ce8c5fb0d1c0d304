"""Chooses the texts of a language, splits them and writes texts/LANG.jsonl."""

import hashlib
import json
import os
import random
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nano.texts import excluded, formats, spoken_forms
from nano.texts.excluded import Excluded
from nano.texts.frequency import Frequencies
from nano.texts.grammar import many
from nano.texts.invented import WordMaker, invented_sentences
from nano.texts.material import paragraphs
from nano.texts.names import name_slots
from nano.texts.normalize import clean, normalize
from nano.texts.phrase_book import Phrase
from nano.texts.sentences import MAX_WORDS, kind_of, sentences
from nano.texts.sources import Sources
from nano.texts.templates import read_templates

DEV, HELD_OUT = 0.02, 0.01  # parts of the lines of a language, at the end: held_out, then dev
COUNTS = {
    "en": {"common": 27_500, "rare": 12_000, "names": 3500, "numbers": 4500, "commands": 5000, "invented": 5000},
    **{
        language: {"common": 8400, "rare": 2400, "names": 1300, "numbers": 1600, "commands": 1900, "invented": 1600}
        for language in ("es", "fr", "pt", "de")
    },
    "it": {"common": 900, "rare": 270, "names": 80, "numbers": 100, "commands": 150},
}
_SOURCE_WEIGHT = {"wesnoth": 0.6}  # less like everyday speech than the others


@dataclass(frozen=True)
class Line:
    """A text: what a voice reads, its kind and where it is from."""

    spoken: str
    kind: str
    source: str
    phrase: str | None = None
    written: str | None = None  # the text where it cannot be derived from `spoken`: Japanese


def lines_of(sources: Sources, language: str, phrases: Sequence[Phrase]) -> list[dict[str, Any]]:
    """The rows of a language in their final order."""
    frequencies = Frequencies.from_wheel(sources.wheel("wordfreq"), language)
    forbidden = load_excluded(sources)
    counts = COUNTS[language]
    free = _free_text(sources, language, frequencies, forbidden)
    own = _own(sources, language)
    taken: set[str] = set()
    book = [Line(phrase.texts[language], "phrase", "own", phrase.id) for phrase in phrases if language in phrase.texts]
    chosen = _distinct(book, language, forbidden, taken, len(book))
    for kind in ("common", "rare"):
        sample = _sample(free[kind], counts[kind] + len(book), language)
        chosen += _distinct(sample, language, forbidden, taken, counts[kind])
    for kind in ("names", "numbers", "commands"):
        chosen += _distinct(own[kind], language, forbidden, taken, counts[kind])
    if counts.get("invented"):
        plain = [line.spoken for line in chosen if line.kind == "common"]
        made = _invented(plain, language, 2 * counts["invented"], frequencies)
        chosen += _distinct(made, language, forbidden, taken, counts["invented"])
    return rows(chosen, language, {phrase.id: phrase.split for phrase in phrases})


def rows(chosen: Iterable[Line], language: str, splits: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of lines: train, then held_out, then dev, each in the order of a hash of the text.

    Id, order and split depend on the text alone, so a line keeps them when other lines come or go.

    Args:
        splits: split of each phrase of the phrase book.
    """
    parts: dict[str, list[tuple[float, dict[str, Any]]]] = {"train": [], "held_out": [], "dev": []}
    for line in chosen:
        text = line.written or normalize(line.spoken, language)
        split = splits[line.phrase] if line.phrase else split_of(text, language)
        digest = hashlib.sha256(f"{language} {text}".encode()).hexdigest()
        row: dict[str, Any] = {"id": f"{language}-{digest[:10]}", "text": text}
        if line.spoken != text:
            row["spoken"] = line.spoken
        row |= {"kind": line.kind, "source": line.source, "split": split}
        if line.phrase:
            row["phrase"] = line.phrase
        parts[split].append((uniform(text, f"order {language}"), row))
    return [row for part in parts.values() for _, row in sorted(part, key=lambda item: item[0])]


def split_of(text: str, language: str) -> str:
    """2 % dev, 1 % held_out, the rest train."""
    place = uniform(text, f"split {language}")
    return "dev" if place < DEV else "held_out" if place < DEV + HELD_OUT else "train"


def uniform(text: str, salt: str) -> float:
    """A number from 0 to 1 that depends on `text` only."""
    return int.from_bytes(hashlib.sha256(f"{salt}\n{text}".encode()).digest()[:8]) / 2**64


def load_excluded(sources: Sources) -> Excluded:
    """The sentences and terms of all test sets of the project."""
    texts = excluded.test_sentences()
    for path in sources.path("asterisk-core-sounds-*", "usr/share/doc/*/core-sounds-*.txt.gz"):
        texts += excluded.prompt_sentences(path)
    return Excluded(texts, excluded.terms())


def _free_text(sources: Sources, language: str, frequencies: Frequencies, forbidden: Excluded) -> dict[str, list[Line]]:
    """Distinct sentences of the sources by kind, in alphabetical order of their texts."""
    found: dict[str, Line] = {}
    for source, paragraph in paragraphs(sources, language):
        for spoken in sentences(paragraph, language):
            text = normalize(spoken, language)
            if text in found or text in forbidden:
                continue
            if kind := kind_of(text, language, frequencies):
                found[text] = Line(spoken, kind, source)
    ordered = [found[text] for text in sorted(found)]
    return {kind: [line for line in ordered if line.kind == kind] for kind in ("common", "rare")}


def _sample(lines: Iterable[Line], count: int, language: str) -> list[Line]:
    """`count` lines without replacement; very short and long ones and some sources are less likely."""

    def key(line: Line) -> float:
        words = len(line.spoken.split())
        weight = _SOURCE_WEIGHT.get(line.source, 1.0) * (0.3 if words == 2 else 1.0 if words <= 12 else 0.6)
        return uniform(normalize(line.spoken, language), f"sample {language}") ** (1 / weight)

    return sorted(lines, key=key, reverse=True)[:count]


def _own(sources: Sources, language: str) -> dict[str, list[Line]]:
    """Sentences of our own templates, and commands of Home Assistant."""
    by_kind, words = read_templates(language)
    slots = own_slots(words, name_slots(sources.wheel("Faker"), language), language)
    counts, found = COUNTS[language], dict[str, list[Line]]()
    for kind, templates in by_kind.items():
        rng = random.Random(f"{kind} {language}")
        key = "commands" if kind == "telephone" else kind
        lines = [Line(text, key, "own") for text in many(templates, slots, 2 * counts[key], rng)]
        found.setdefault(key, []).extend(lines)
    with zipfile.ZipFile(sources.wheel("home-assistant-intents")) as archive:
        templates, _ = formats.home_assistant(archive, {"pt": "pt-BR"}.get(language, language))
    found["commands"] += _home_assistant(templates, slots, language)
    random.Random(f"commands {language}").shuffle(found["commands"])
    return found


def own_slots(own: Mapping[str, Any], names: Mapping[str, Any], language: str) -> dict[str, Any]:
    """The slots of a language: its own lists, the names, and numbers as people say them."""

    def say(function: Any) -> Any:
        return lambda rng: function(language, rng)

    forms = {
        "phone": spoken_forms.phone,
        "digits": spoken_forms.digit_string,
        "letters": spoken_forms.letters,
        "small": spoken_forms.small(2, 99),
        "few": spoken_forms.small(2, 9),
        "large": spoken_forms.large,
        "year": spoken_forms.year,
        "date": spoken_forms.date,
        "time": spoken_forms.time,
        "at_time": spoken_forms.at_time,
        "price": spoken_forms.price,
    }
    days = {"day": spoken_forms.DAYS[language].split()}
    return {**{name: say(function) for name, function in forms.items()}, **days, **names, **own}


_HOME_ASSISTANT_SLOTS = {"area": "room", "floor": "room", "name": "thing"}


def _home_assistant(templates: Sequence[str], slots: Mapping[str, Any], language: str) -> list[Line]:
    """Commands of Home Assistant: (a|b) and [a] are choices, {list:name} is a slot; a number for most of them.

    An article before a room or device could have the wrong gender, so these templates are used in English only.
    """
    plain = []
    for template in templates:
        text = re.sub(r"\((\w\w\w?)(\w*)\|(\1\w*)\)", r"\3", template)  # (minute|minutes)
        text = text.replace("[", "(").replace("]", "|)").replace("(", "[").replace(")", "]")
        names = re.findall(r"\{(\w+)", text)
        if "<" not in text and (language == "en" or not set(_HOME_ASSISTANT_SLOTS) & set(names)):
            plain.append(re.sub(r"\{(\w+)[^}]*\}", lambda at: f"{{{_HOME_ASSISTANT_SLOTS.get(at[1], 'few')}}}", text))
    rng = random.Random(f"assistant {language}")
    return [Line(text, "commands", "home-assistant") for text in many(plain, slots, 600, rng)] if plain else []


def _invented(plain: Sequence[str], language: str, count: int, frequencies: Frequencies) -> list[Line]:
    rng = random.Random(f"invented {language}")
    rare = frequencies.listed(language, 1.8, 3.2)
    maker = WordMaker(frequencies.listed(language, 2.8, 6.0))
    return [Line(text, "invented", "own") for text in invented_sentences(plain, maker, rare, language, count, rng)]


def _distinct(lines: Iterable[Line], language: str, forbidden: Excluded, taken: set[str], count: int) -> list[Line]:
    """The first `count` lines with a new and permitted text, cleaned for the voices. `taken` gets their texts."""
    found: list[Line] = []
    for line in lines:
        spoken = clean(line.spoken, language)
        text = normalize(spoken, language) if spoken else ""
        if spoken and text not in taken and text not in forbidden and len(text.split()) <= MAX_WORDS + 5:
            taken.add(text)
            found.append(replace(line, spoken=spoken))
        if len(found) == count:
            break
    return found


def write_rows(items: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes JSON lines, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in items), encoding="utf-8")
    os.replace(partial, path)
