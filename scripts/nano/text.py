"""Collects general English sentences from two Debian packages and generates more, at build time only.

Sources: the quotations of `fortunes`, the example sentences and the word list of `wordnet-base`. Their text is not
committed; the model card names the sources. The terms of data/vocabulary are excluded, so the base model has
never seen them.
"""

import random
import re
from collections import Counter
from pathlib import Path

FORTUNES = Path("/usr/share/games/fortunes")
WORDNET = Path("/usr/share/wordnet")
VOCABULARY = 4000
RARER = 24_000
INVENTED = 24_000
TERMS = Path(__file__).resolve().parents[2] / "data" / "vocabulary" / "terms.txt"
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


def collect() -> tuple[list[str], list[str]]:
    """Distinct sentences of 3 to 9 words, in a fixed shuffled order.

    Returns:
        The sentences whose words are all among the 4,000 most frequent ones, and at most `RARER` sentences with a
        rarer word. The latter train the model to spell words that it does not know.
    """
    raw = _raw()
    counts = Counter(word for text in raw for word in text.split())
    common = {word for word, _ in counts.most_common(VOCABULARY)}
    is_common = {text: all(word in common for word in text.split()) for text in raw}
    frequent, rarer = (
        sorted(t for t, yes in is_common.items() if yes),
        sorted(t for t, yes in is_common.items() if not yes),
    )
    random.Random(0).shuffle(frequent)
    random.Random(0).shuffle(rarer)
    terms = set(TERMS.read_text(encoding="utf-8").split())
    return frequent, [text for text in rarer[:RARER] if not terms & set(text.split())]


def invent(common: list[str], rarer: list[str]) -> list[str]:
    """`INVENTED` texts that a language model cannot predict, and long ones. A comma is a pause, not part of the text.

    In equal parts: sentences in which one or two words are replaced by a word of WordNet or a random pseudo-word,
    sequences of such words only, and two to five sentences without a stop (up to 20 seconds).
    """
    rng = random.Random(1)
    words = _words()
    chain = _letters(words)
    sample_word = lambda: _pseudo_word(chain, rng) if rng.random() < 0.4 else rng.choice(words)  # noqa: E731
    plain = common[len(common) // 50 :]  # the first sentences are for evaluation only
    texts = []
    for number in range(INVENTED):
        if number % 3 == 0:
            sentence = rng.choice(plain).split()
            for position in rng.sample(range(len(sentence)), rng.choice((1, 1, 2))):
                sentence[position] = sample_word()
            texts.append(" ".join(sentence))
        elif number % 3 == 1:
            texts.append(" ".join(sample_word() for _ in range(rng.randint(2, 6))))
        else:
            parts = rng.choices(plain, k=rng.randint(1, 3)) + rng.choices(rarer[: RARER // 2], k=rng.randint(1, 2))
            rng.shuffle(parts)
            texts.append(rng.choice((" ", ", ")).join(parts))
    return texts


def _words() -> list[str]:
    """Single words of WordNet's index, without the terms of data/vocabulary."""
    terms, words = set(TERMS.read_text(encoding="utf-8").split()), set()
    for name in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"index.{name}").read_text(encoding="utf-8").splitlines():
            word = line.partition(" ")[0]
            if re.fullmatch("[a-z]{3,14}", word) and word not in terms:
                words.add(word)
    return sorted(words)


def _letters(words: list[str]) -> dict[str, str]:
    """The letters that follow each sequence of three letters in `words`; ^ starts a word and $ ends it."""
    chain: dict[str, list[str]] = {}
    for word in words:
        padded = f"^^^{word}$"
        for i in range(len(padded) - 3):
            chain.setdefault(padded[i : i + 3], []).append(padded[i + 3])
    return {key: "".join(value) for key, value in chain.items()}


def _pseudo_word(chain: dict[str, str], rng: random.Random) -> str:
    """A random pseudo-word of 4 to 13 letters that looks English."""
    while True:
        word = "^^^"
        while word[-1] != "$":
            word += rng.choice(chain[word[-3:]])
        if 4 <= len(word) - 4 <= 13:
            return word[3:-1]


if __name__ == "__main__":
    known, less_known = collect()
    for texts in (known, less_known, invent(known, less_known)):
        print(len(texts), "sentences,", sum(len(t.split()) for t in texts), "words:", texts[:6])
