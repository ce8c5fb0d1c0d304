"""The Japanese texts, in kana: sentences of the sources by the dictionary of Janome, and own templates."""

import importlib
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from nano.texts import spoken_forms
from nano.texts.corpus import Line, load_excluded, rows, uniform
from nano.texts.frequency import word_list
from nano.texts.grammar import many
from nano.texts.invented import WordMaker
from nano.texts.material import paragraphs
from nano.texts.normalize import LETTERS, normalize
from nano.texts.sources import Sources
from nano.texts.templates import read_templates

COUNTS = {"common": 4400, "rare": 1400, "names": 450, "numbers": 800, "commands": 700, "invented": 300}
SHORTEST, LONGEST = 4, 45  # kana of a sentence
_DIGITS = re.compile(r"[0-9０-９]")
_PARTICLES = str.maketrans("はへをui", "ハヘヲウイ"), str.maketrans("はへをui", "ワエオーー")


class Token(NamedTuple):
    """A word of the dictionary: its part of speech (four levels), reading as written and as said (* if unknown)."""

    surface: str
    part_of_speech: str
    reading: str
    phonetic: str


def lines_of(sources: Sources) -> list[dict[str, Any]]:
    """The Japanese rows. `text` is katakana without spaces; `spoken` is as said, with spaces between phrases."""
    forbidden = load_excluded(sources)
    tokenize = tokenizer(sources)
    found: dict[str, Line] = {}
    for source, paragraph in paragraphs(sources, "ja"):
        for line in sentences(paragraph, tokenize, source):
            assert line.written is not None
            if line.written not in forbidden:
                found.setdefault(line.written, line)
    chosen = []
    for kind in ("common", "rare"):
        lines = [line for line in found.values() if line.kind == kind]
        chosen += sorted(lines, key=lambda line: uniform(line.written or "", "sample ja"))[: COUNTS[kind]]
    words = [word for word in word_list(sources.wheel("wordfreq"), "ja") if set(word) <= set(LETTERS["ja"])]
    own = {line.written: line for line in _own(words) if line.written not in forbidden}
    for kind in ("names", "numbers", "commands", "invented"):
        chosen += [line for text, line in own.items() if line.kind == kind and text not in found][: COUNTS[kind]]
    return rows(chosen, "ja", {})


def sentences(paragraph: str, tokenize: Callable[[str], Iterable[Token]], source: str) -> Iterator[Line]:
    """The sentences of a paragraph whose words all have a reading; none with digits or other scripts."""
    for part in re.split(r"(?<=[。！？!?])|\n", re.sub(r"<[^>]*>|[「」『』（）…・]", "", paragraph)):
        part = part.strip().replace("!", "！").replace("?", "？")
        if part and not _DIGITS.search(part) and not re.search(r"[A-Za-zＡ-Ｚａ-ｚ]", part):
            line = _line([Token(*token) for token in tokenize(part)], source)
            if line:
                yield line


def _line(tokens: Sequence[Token], source: str) -> Line | None:
    written = spoken = ""
    for token in tokens:
        if token.part_of_speech.startswith("記号"):
            spoken += {"、": "、", "。": "。", "？": "？", "！": "！"}.get(token.surface, "")
            continue
        starts = not token.part_of_speech.startswith(("助詞", "助動詞")) and not any(
            level in token.part_of_speech for level in ("接尾", "非自立")
        )
        written += token.reading
        spoken += (" " if starts and spoken else "") + token.phonetic
    if not SHORTEST <= len(written) <= LONGEST or not set(written) <= set(LETTERS["ja"]):
        return None
    kind = "rare" if any("固有名詞" in token.part_of_speech for token in tokens) or len(written) > 28 else "common"
    return Line(spoken, kind, source, written=written)


def tokenizer(sources: Sources) -> Callable[[str], list[Token]]:
    """The tokenizer of Janome, imported from the cache."""
    sys.path.insert(0, str(sources.janome()))
    try:
        janome = importlib.import_module("janome.tokenizer").Tokenizer(mmap=True)
    finally:
        sys.path.remove(str(sources.janome()))
    return lambda text: [Token(t.surface, t.part_of_speech, t.reading, t.phonetic) for t in janome.tokenize(text)]


def _own(words: Sequence[str]) -> list[Line]:
    maker = WordMaker(words, order=2)
    slots: dict[str, Any] = {"made": maker.word, "day": spoken_forms.DAYS["ja"].split()}
    for name, function in (
        ("phone", spoken_forms.phone),
        ("digits", spoken_forms.digit_string),
        ("small", spoken_forms.small(2, 99)),
        ("few", spoken_forms.small(2, 9)),
        ("large", spoken_forms.large),
        ("time", spoken_forms.time),
    ):
        slots[name] = lambda rng, function=function: function("ja", rng)
    by_kind, words_of_slots = read_templates("ja")
    found = []
    for kind, templates in by_kind.items():
        key = "commands" if kind == "telephone" else kind
        for marked in many(templates, slots | words_of_slots, COUNTS[key], random.Random(f"{kind} ja")):
            written, spoken = (marked.replace(",", "、").translate(table) for table in _PARTICLES)
            found.append(Line(spoken, key, "own", written=normalize(written, "ja")))
    random.Random("own ja").shuffle(found)
    return found
