"""What no training text may contain: the sentences and terms of the test sets, and coarse words."""

import csv
import gzip
import json
import re
from collections.abc import Iterable
from pathlib import Path

from nano.texts.normalize import without_accents

DATA = Path(__file__).resolve().parents[3] / "data"
INSIDE = 4  # a forbidden sentence of at least so many words may not be a part of a text either
_COARSE = re.compile(
    r"\b(fuck\w*|shit\w*|cunts?|nigg\w+|faggots?|whores?|bitch\w*|dicks?|puta\w*|puto\w*|mierda\w*|coño|joder|maric\w+|"
    r"merde|putain|salope\w*|encul\w+|connard\w*|caralho|porra|merda\w*|foder|viado|buceta|arsch\w*|schei(ss|ß)\w*|"
    r"fick\w*|hure\w?|nutte\w?|fotze\w?|neger\w*|cazzo|stronz\w+|puttan\w*|vaffanculo|rape[ds]?|rapist|sexo?|sexual\w*|"
    r"penis|culos?|cojones|polla|tetas?|bosta|bordel|kack\w*|kotz\w*|pupsen|vagina|porn\w*|orgasm\w*)\b"
)


class Excluded:
    """Forbidden sentences (compared without case, punctuation and accents) and forbidden words."""

    def __init__(self, sentences: Iterable[str], terms: Iterable[str]) -> None:
        self.sentences = {plain for text in sentences for plain in _forms(text)}
        self.terms = {without_accents(term.lower()) for term in terms}
        self._starts: dict[tuple[str, ...], list[list[str]]] = {}
        for text in sorted(self.sentences):
            if len(words := text.split()) >= INSIDE:
                self._starts.setdefault(tuple(words[:INSIDE]), []).append(words)

    def __contains__(self, text: str) -> bool:
        """Whether `text` is a forbidden sentence, contains a long one or a forbidden word."""
        plain = _plain(text)
        words = plain.split()
        if plain in self.sentences or not self.terms.isdisjoint(words) or _COARSE.search(text.lower()):
            return True
        return any(
            words[start : start + len(other)] == other
            for start in range(len(words) - INSIDE + 1)
            for other in self._starts.get(tuple(words[start : start + INSIDE]), ())
        )


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", without_accents(text.casefold())))


def _forms(text: str) -> set[str]:
    """A text as a whole, and each of its sentences of three words or more."""
    parts = [_plain(part) for part in re.split(r"[.!?;:]+", text)]
    return {_plain(text)} | {part for part in parts if len(part.split()) >= 3} - {""}


def test_sentences(data: Path = DATA) -> list[str]:
    """The sentences of data/vocabulary (all splits) and data/ivr-en."""
    found = []
    for path in sorted((data / "vocabulary").glob("*.jsonl")):
        found += [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    for path in (data / "vocabulary" / "sentences.tsv", data / "ivr-en" / "transcripts.tsv"):
        with path.open(newline="", encoding="utf-8") as file:
            found += [row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return found


def terms(data: Path = DATA) -> list[str]:
    """The terms of data/vocabulary."""
    return (data / "vocabulary" / "terms.txt").read_text(encoding="utf-8").split()


def prompt_sentences(listing: Path) -> list[str]:
    """The sentences of an Asterisk listing core-sounds-XX.txt.gz: `name: text` lines; ; starts a comment."""
    found = []
    for line in gzip.decompress(listing.read_bytes()).decode("utf-8", errors="replace").splitlines():
        if not line.startswith(";") and ":" in line:
            found.append(line.partition(":")[2].strip())
    return found
