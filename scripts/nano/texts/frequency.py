"""Word frequencies of the PyPI package wordfreq, read from its wheel without its dependencies."""

import gzip
import re
import zipfile
from functools import cache
from pathlib import Path

from nano.texts.normalize import without_accents

LANGUAGES = ("en", "es", "fr", "pt", "de", "it")
_PARTS = re.compile(r"[^']+'?")


class Frequencies:
    """Zipf frequencies (log10 of the uses in a billion words) of the words of each language."""

    def __init__(self, tables: dict[str, dict[str, float]]) -> None:
        self.tables = tables

    @classmethod
    def from_wheel(cls, wheel: Path, language: str) -> "Frequencies":
        """Reads the large lists of `language` and English, and the small ones of the other languages."""
        with zipfile.ZipFile(wheel) as archive:
            return cls(
                {
                    name: _table(archive.read(f"wordfreq/data/{size}_{name}.msgpack.gz"))
                    for name in LANGUAGES
                    for size in ("large" if name in (language, "en") else "small",)
                }
            )

    def zipf(self, word: str, language: str) -> float:
        """Frequency of `word`; of its rarest part for a word with an apostrophe that is not listed; 0 if unknown."""
        table = self.tables[language]
        if (found := table.get(word)) is not None:
            return found
        parts = _PARTS.findall(word)
        if len(parts) < 2:
            return 0.0
        return min(table.get(part, table.get(part.rstrip("'"), 0.0)) for part in parts)

    def is_language(self, words: list[str], language: str) -> bool:
        """Whether `language` is the one of the known languages in which the words are most frequent on average."""
        own = sum(self.zipf(word, language) for word in words)
        others = (table for name, table in self.tables.items() if name != language)
        return all(own >= sum(table.get(word, 0.0) for word in words) for table in others)

    def lacks_accents(self, words: list[str], language: str) -> bool:
        """Whether a word is probably one with accents that were left out: "mao" for "mão"."""
        accented = self._accented(language)
        return any(accented.get(word, 0.0) > self.zipf(word, language) + 1 for word in words)

    @cache  # noqa: B019 - one object lives as long as the build
    def _accented(self, language: str) -> dict[str, float]:
        """The highest frequency of a word with accents for each form without them."""
        found: dict[str, float] = {}
        for word, zipf in self.tables[language].items():
            plain = word if word.isascii() else without_accents(word)
            if plain != word and found.get(plain, 0.0) < zipf:
                found[plain] = zipf
        return found

    @cache  # noqa: B019 - one object lives as long as the build
    def listed(self, language: str, low: float, high: float, shortest: int = 3) -> list[str]:
        """Words with a frequency of `low` to `high`, more frequent here than in other languages, sorted."""
        return sorted(
            word
            for word, zipf in self.tables[language].items()
            if low <= zipf < high
            and shortest <= len(word) <= 14
            and word.isalpha()
            and all(zipf > table.get(word, 0.0) for name, table in self.tables.items() if name != language)
        )


def word_list(wheel: Path, language: str) -> list[str]:
    """The words of the small list of a language, sorted."""
    with zipfile.ZipFile(wheel) as archive:
        return sorted(_table(archive.read(f"wordfreq/data/small_{language}.msgpack.gz")))


def _table(packed: bytes) -> dict[str, float]:
    """A list of word lists: those at index i have the frequency 10^(-i/100)."""
    header, *levels = _unpack(gzip.decompress(packed))
    if header != {"format": "cB", "version": 1}:
        raise ValueError(f"unknown word frequency format {header}")
    return {word: 9 - level / 100 for level, words in enumerate(levels) for word in words}


def _unpack(data: bytes) -> list:  # type: ignore[type-arg]
    """The part of MessagePack that the lists use: arrays, maps, strings and small integers."""
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        position += count
        return data[position - count : position]

    def value() -> object:
        tag = take(1)[0]
        if tag < 0x80:
            return tag
        if tag < 0x90:
            return {value(): value() for _ in range(tag & 15)}
        if tag < 0xA0:
            return [value() for _ in range(tag & 15)]
        if tag < 0xC0:
            return take(tag & 31).decode()
        sizes = {0xD9: 1, 0xDA: 2, 0xDC: 2, 0xDD: 4}
        if tag not in sizes:
            raise ValueError(f"unknown MessagePack tag {tag:#x} at byte {position - 1}")
        count = int.from_bytes(take(sizes[tag]))
        return take(count).decode() if tag in (0xD9, 0xDA) else [value() for _ in range(count)]

    result = value()
    assert isinstance(result, list)
    return result
