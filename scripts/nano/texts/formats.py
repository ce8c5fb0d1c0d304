"""Readers of the formats of the sources: fortunes, WordNet, gettext, Ding, ChatterBot and Home Assistant."""

import json
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path


def fortunes(path: Path, verse_ok: bool = False) -> Iterator[str]:
    """The fortunes of a file, without the lines that name the author, each as one paragraph.

    Args:
        verse_ok: keep texts in which several lines start with a capital (verse, but German nouns too).
    """
    for fortune in filter(str.strip, re.split(r"^%$", path.read_text(encoding="utf-8", errors="ignore"), flags=re.M)):
        body = re.sub(r"\n?^\s*(--|~|—|–).*", "", fortune, flags=re.S | re.M)
        table = re.search(r"\S {4,}\S|\t\S+\t|^\s*[A-Z]:", body, flags=re.M)  # or dialogue with names
        verse = not verse_ok and len(re.findall(r"[a-zà-ÿ]\s*\n\s*[A-ZÀ-Þ]", body)) > 1
        if not table and not verse:
            yield re.sub(r"(?<=\S)[ \t]*\n(?=\s*[-•*])", "\n\n", body)


def wordnet_examples(path: Path) -> Iterator[str]:
    """The quoted examples of a WordNet data file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield from re.findall(r'"([^"]+)"', line.partition(" | ")[2])


def gettext_catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """The messages of a .mo file: original and translation, without contexts and plural forms."""
    data = path.read_bytes()
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, originals, translations = struct.unpack(f"{order}3I", data[8:20])
    for number in range(count):
        pair = []
        for table in (originals, translations):
            length, start = struct.unpack_from(f"{order}2I", data, table + 8 * number)
            pair.append(data[start : start + length].decode("utf-8", errors="replace"))
        original, translation = (text.partition("\0")[0].rpartition("\x04")[2] for text in pair)
        if original:
            yield original, translation


def ding_examples(path: Path) -> Iterator[tuple[str, str]]:
    """The example sentences of a Ding dictionary: German and English."""
    for line in path.read_text(encoding="utf-8").splitlines():
        german, _, english = line.partition(" :: ")
        pairs = zip(german.split("|"), english.split("|"), strict=False)
        for pair in pairs:
            left, right = (re.sub(r"\[[^\]]*\]|\{[^}]*\}", "", text).strip() for text in pair)
            if re.search(r"\w[.!?]$", left) and re.search(r"\w[.!?]$", right):
                yield left, right


def chatterbot(archive: zipfile.ZipFile, language: str) -> Iterator[str]:
    """The utterances of a ChatterBot corpus (YAML: lists of lists), read line by line."""
    for name in sorted(archive.namelist()):
        if f"/data/{language}/" in name and name.endswith(".yml"):
            for line in archive.read(name).decode("utf-8", errors="replace").splitlines():
                if found := re.match(r"\s*-\s+(?:-\s+)?(.+)", line):
                    yield found[1].strip("\"' ")


def home_assistant(archive: zipfile.ZipFile, language: str) -> tuple[list[str], list[str]]:
    """Sentence templates of commands, and answers without variables."""
    templates: list[str] = []
    name = f"home_assistant_intents/speech_to_phrase/{language}.json"
    if name in archive.namelist():
        for intent in json.loads(archive.read(name))["intents"].values():
            templates += [sentence for block in intent["data"] for sentence in block["sentences"]]
    answers: list[str] = []
    found = json.loads(archive.read(f"home_assistant_intents/data/{language}.json"))["responses"]
    _strings(found, answers)
    return templates, [answer for answer in answers if "{" not in answer]


def _strings(value: object, into: list[str]) -> None:
    if isinstance(value, str):
        into.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            _strings(item, into)
