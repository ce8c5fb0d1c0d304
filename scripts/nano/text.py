"""Collects general English sentences from two Debian packages, at build time only.

Sources: the quotations of `fortunes` and the example sentences of `wordnet-base`. None of
their text is committed; the model card names them.
"""

import random
import re
from collections import Counter
from pathlib import Path

FORTUNES = Path("/usr/share/games/fortunes")
WORDNET = Path("/usr/share/wordnet")
VOCABULARY = 4000
RARER = 9000
MIN_WORDS, MAX_WORDS = 3, 9


def normalize(text: str) -> str | None:
    """Lower case words of a-z and inner apostrophes; None for text with digits or other marks."""
    text = text.lower().replace("-", " ").replace("--", " ")
    text = re.sub(r'[",;:()\[\]*_~`]', " ", text)
    text = " ".join(word.strip("'") for word in text.split())
    return text if re.fullmatch(r"[a-z' ]+", text) else None


def _pieces(text: str) -> list[str]:
    """Sentences and clauses of `text`; one that is too long is cut into runs of words."""
    found = []
    for sentence in re.split(r"[.!?;:]+\s|[.!?]+$|--|\n\s*\n", text):
        clean = normalize(" ".join(sentence.split()))
        words = clean.split() if clean else []
        while len(words) > MAX_WORDS:
            take = MAX_WORDS - 2 if len(words) < MAX_WORDS + MIN_WORDS else MAX_WORDS - len(words) % 3
            found.append(" ".join(words[:take]))
            words = words[take:]
        if len(words) >= MIN_WORDS:
            found.append(" ".join(words))
    return found


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


def collect() -> tuple[list[str], list[str]]:
    """Distinct sentences of 3 to 9 words, in a fixed shuffled order.

    Returns:
        Those over the 4,000 commonest words, and `RARER` of those that hold a rarer word: they teach the
        language model to spell what it hears where it does not know the word.
    """
    raw = _raw()
    counts = Counter(word for text in raw for word in text.split())
    common = {word for word, _ in counts.most_common(VOCABULARY)}
    known = {text: all(word in common for word in text.split()) for text in raw}
    kept, rarer = sorted(t for t, yes in known.items() if yes), sorted(t for t, yes in known.items() if not yes)
    random.Random(0).shuffle(kept)
    random.Random(0).shuffle(rarer)
    return kept, rarer[:RARER]


if __name__ == "__main__":
    for texts in collect():
        print(len(texts), "sentences,", sum(len(t.split()) for t in texts), "words:", texts[:5])
