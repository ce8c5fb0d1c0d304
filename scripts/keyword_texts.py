"""General English sentences from Debian's `fortunes` and the examples of `wordnet-base`, and made-up words.

scripts/make_keyword_clips.py uses them. The texts are not committed.
"""

import random
import re
from collections import Counter
from pathlib import Path

FORTUNES = Path("/usr/share/games/fortunes")
WORDNET = Path("/usr/share/wordnet")
VOCABULARY = 4000
TERMS = Path(__file__).resolve().parents[1] / "data" / "vocabulary" / "terms.txt"
MIN_WORDS, MAX_WORDS = 3, 9


def normalize(text: str) -> str | None:
    """Lower-case words of a-z and inner apostrophes; None for text with digits or other characters."""
    text = text.lower().replace("-", " ").replace("--", " ")
    text = re.sub(r'[",;:()\[\]*_~`]', " ", text)
    text = " ".join(word.strip("'") for word in text.split())
    return text if re.fullmatch(r"[a-z' ]+", text) else None


def _pieces(text: str) -> list[str]:
    """Sentences and clauses of `text`. A long one is cut into sequences of at most MAX_WORDS words."""
    pieces = []
    for sentence in re.split(r"[.!?;:]+\s|[.!?]+$|--|\n\s*\n", text):
        clean = normalize(" ".join(sentence.split()))
        words = clean.split() if clean else []
        while len(words) > MAX_WORDS:
            take = MAX_WORDS - 2 if len(words) < MAX_WORDS + MIN_WORDS else MAX_WORDS - len(words) % 3
            pieces.append(" ".join(words[:take]))
            words = words[take:]
        if len(words) >= MIN_WORDS:
            pieces.append(" ".join(words))
    return pieces


def _raw() -> list[str]:
    raw: list[str] = []
    for path in sorted(FORTUNES.glob("*")):
        if path.suffix or "art" in path.name or path.name in {"translate-me", "perl", "magic"}:
            continue
        for fortune in path.read_text(encoding="utf-8", errors="ignore").split("\n%\n"):
            raw += _pieces(re.sub(r"\n\s*-- .*", "", fortune, flags=re.S))
    for name in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{name}").read_text(encoding="utf-8").splitlines():
            for example in re.findall(r'"([^"]+)"', line.partition(" | ")[2]):
                raw += _pieces(example)
    return raw


def common_sentences() -> list[str]:
    """Distinct sentences of 3 to 9 words, all among the 4,000 most frequent ones, in a fixed shuffled order."""
    raw = _raw()
    counts = Counter(word for text in raw for word in text.split())
    common = {word for word, _ in counts.most_common(VOCABULARY)}
    frequent = sorted({text for text in raw if common.issuperset(text.split())})
    random.Random(0).shuffle(frequent)
    return frequent


def words_of_wordnet() -> list[str]:
    """Single words of WordNet's index, without the terms of data/vocabulary."""
    terms, words = set(TERMS.read_text(encoding="utf-8").split()), set()
    for name in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"index.{name}").read_text(encoding="utf-8").splitlines():
            word = line.partition(" ")[0]
            if re.fullmatch("[a-z]{3,14}", word) and word not in terms:
                words.add(word)
    return sorted(words)


def letter_chain(words: list[str]) -> dict[str, str]:
    """The letters that follow each sequence of three letters in `words`; ^ starts a word and $ ends it."""
    chain: dict[str, list[str]] = {}
    for word in words:
        padded = f"^^^{word}$"
        for i in range(len(padded) - 3):
            chain.setdefault(padded[i : i + 3], []).append(padded[i + 3])
    return {key: "".join(value) for key, value in chain.items()}


def pseudo_word(chain: dict[str, str], rng: random.Random) -> str:
    """A random pseudo-word of 4 to 13 letters that looks English."""
    while True:
        word = "^^^"
        while word[-1] != "$":
            word += rng.choice(chain[word[-3:]])
        if 4 <= len(word) - 4 <= 13:
            return word[3:-1]
