"""Made-up words by letter chains, and sentences with words that a language model cannot predict."""

import random
from collections.abc import Callable, Sequence

SHORTEST, LONGEST = 4, 13
TRIES = 10_000
CARRIERS = {
    "en": (
        "The word is {}|Add {} to the list|Tell me more about {}|{} and {} are here|Who wrote {}|Search for {}|"
        "We ordered {} for the office|It is called {}, not {}|Ask for {} at the counter"
    ),
    "es": (
        "La palabra es {}|Añade {} a la lista|Háblame de {}|{} y {} están aquí|Pedimos {} para la oficina|Busca {}|"
        "Se llama {}, no {}|Pregunta por {} en la entrada"
    ),
    "fr": (
        "Le mot est {}|Ajoute {} à la liste|Parle-moi de {}|{} et {} sont ici|Nous avons commandé {}|Cherche {}|"
        "Ça s'appelle {}, pas {}|Demande {} à l'accueil"
    ),
    "pt": (
        "A palavra é {}|Coloque {} na lista|Fale mais sobre {}|{} e {} estão aqui|Pedimos {} para o escritório|"
        "Procure {}|O nome é {}, não {}|Pergunte por {} na entrada"
    ),
    "de": (
        "Das Wort ist {}|Setze {} auf die Liste|Erzähl mir von {}|{} und {} sind hier|Wir haben {} bestellt|"
        "Suche nach {}|Es heißt {}, nicht {}|Frag nach {} am Empfang"
    ),
    "it": "La parola è {}|Aggiungi {} alla lista|Parlami di {}|{} e {} sono qui|Cerca {}",
}


class WordMaker:
    """Makes up words that look like those of a language.

    Args:
        words: words of the language; a made-up word is none of them.
        order: how many letters decide the next one.
    """

    def __init__(self, words: Sequence[str], order: int = 3) -> None:
        self._known, self._order = set(words), order
        self._next: dict[str, list[str]] = {}
        for word in sorted(self._known):
            padded = "^" * order + word + "$"
            for i in range(len(padded) - order):
                self._next.setdefault(padded[i : i + order], []).append(padded[i + order])

    def word(self, rng: random.Random) -> str:
        """A new word of `SHORTEST` to `LONGEST` letters.

        Raises:
            ValueError: the words are too few to make new ones.
        """
        for _ in range(TRIES):
            word = "^" * self._order
            while word[-1] != "$" and len(word) < LONGEST + self._order + 2:
                word += rng.choice(self._next[word[-self._order :]])
            made = word[self._order : -1]
            if word[-1] == "$" and SHORTEST <= len(made) <= LONGEST and made not in self._known:
                return made
        raise ValueError(f"no new word in {TRIES} tries; {len(self._known)} words are too few")


def invented_sentences(
    plain: Sequence[str], maker: WordMaker, rare: Sequence[str], language: str, count: int, rng: random.Random
) -> list[str]:
    """`count` sentences: six of ten are plain ones with one or two words replaced, others are carriers or word lists.

    Args:
        plain: sentences as a voice reads them.
        rare: rare words of the language, used as often as made-up ones in two of five cases.
    """

    def word() -> str:
        return rng.choice(rare) if rng.random() < 0.4 else maker.word(rng)

    found: dict[str, None] = {}
    while len(found) < count:
        kind = len(found) % 10
        if kind < 6:
            made = replace_words(rng.choice(plain), word, rng)
        elif kind < 9:
            carrier = rng.choice(CARRIERS[language].split("|"))
            made = carrier.format(*(word() for _ in range(carrier.count("{}"))))
        else:
            made = ", ".join(word() for _ in range(rng.randint(2, 5)))
        found[made[:1].upper() + made[1:]] = None
    return list(found)


def replace_words(sentence: str, word: Callable[[], str], rng: random.Random) -> str:
    """Replaces one or two words of at least four letters; punctuation stays."""
    words = sentence.split()
    places = [i for i, old in enumerate(words) if len(old.strip(".,?!;:")) >= 4 and "'" not in old and "-" not in old]
    for place in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
        bare = words[place].strip("¿¡.,?!;:")
        words[place] = words[place].replace(bare, word())
    return " ".join(words)
