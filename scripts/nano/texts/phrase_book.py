"""The phrase book: aligned short sentences in five languages, from own templates with agreement of gender and case.

A template has one text for each language with slots in braces: `{x}` inserts a value as it is, `{the x}`, `{acc x}`,
`{a x}`, `{an x}`, `{to x}`, `{from x}`, `{in x}`, `{with x}`, `{my x}`,
`{withmy x}`, `{behind x}` insert a noun with its article or preposition
(`acc`, `an`: accusative), and `{y of x}` an adjective that agrees with noun x.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nano.texts.excluded import Excluded
from nano.texts.normalize import clean, normalize

LANGUAGES = ("en", "es", "fr", "pt", "de")
EACH = 110  # sentences of a template at most
DEV, HELD_OUT = 0.04, 0.04
_SLOT = re.compile(r"\{([^}]*)\}")
_VOWEL = re.compile(r"[aeiouyhâàéèêîôœ]", re.IGNORECASE)
Values = Mapping[str, Sequence[Sequence[str]]]  # slot -> one value in each language

_ARTICLES = {  # language -> form -> article before a masculine, feminine and neuter noun
    "en": {form: (article,) * 3 for form, article in (
        ("the", "the"), ("acc", "the"), ("to", "to the"), ("from", "from the"), ("in", "in the"), ("with", "with the"),
        ("my", "my"), ("withmy", "with my"))},
    "es": {"the": ("el", "la"), "acc": ("el", "la"), "a": ("un", "una"), "an": ("un", "una"), "to": ("al", "a la"),
           "from": ("del", "de la"), "in": ("en el", "en la"), "with": ("con el", "con la"), "my": ("mi", "mi"),
           "withmy": ("con mi", "con mi")},
    "fr": {"the": ("le", "la"), "acc": ("le", "la"), "a": ("un", "une"), "an": ("un", "une"), "to": ("au", "à la"),
           "from": ("du", "de la"), "in": ("dans le", "dans la"), "with": ("avec le", "avec la"), "my": ("mon", "ma"),
           "withmy": ("avec mon", "avec ma")},
    "pt": {"the": ("o", "a"), "acc": ("o", "a"), "a": ("um", "uma"), "an": ("um", "uma"), "to": ("ao", "à"),
           "from": ("do", "da"), "in": ("no", "na"), "with": ("com o", "com a"), "my": ("o meu", "a minha"),
           "withmy": ("com o meu", "com a minha")},
    "de": {"the": ("der", "die", "das"), "acc": ("den", "die", "das"), "a": ("ein", "eine", "ein"),
           "an": ("einen", "eine", "ein"), "to": ("zum", "zur", "zum"), "from": ("vom", "von der", "vom"),
           "in": ("im", "in der", "im"), "with": ("mit dem", "mit der", "mit dem"), "my": ("mein", "meine", "mein"),
           "withmy": ("mit meinem", "mit meiner", "mit meinem"),
           "behind": ("hinter dem", "hinter der", "hinter dem")},
}  # fmt: skip
_ELIDED = {
    "the": "l'", "acc": "l'", "to": "à l'", "from": "de l'", "in": "dans l'", "with": "avec l'", "my": "mon ",
}  # fmt: skip


@dataclass(frozen=True)
class Phrase:
    """One sentence in each language."""

    id: str
    texts: dict[str, str]
    split: str


def with_article(form: str, noun: str, language: str) -> str:
    """A noun `gender:word` (m, f or n; English without) after its article or preposition."""
    if language == "en":
        if form in ("a", "an"):
            return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
        return f"{_ARTICLES['en'][form][0]} {noun}"
    gender, _, word = noun.partition(":")
    if language == "fr" and _VOWEL.match(word) and form in _ELIDED:
        return _ELIDED[form] + word
    return f"{_ARTICLES[language][form]['mfn'.index(gender)]} {word}"


def agree(adjective: str, noun: str, language: str) -> str:
    """The form of `masculine/feminine` that agrees with a noun; adjectives with one form have no slash."""
    masculine, _, feminine = adjective.partition("/")
    return feminine if feminine and language != "en" and noun.startswith("f:") else masculine


def fill(template: str, values: Mapping[str, str], language: str) -> str:
    """The sentence of a template in one language.

    Args:
        values: slot -> value in this language.
    """

    def insert(found: re.Match[str]) -> str:
        words = found[1].split()
        if len(words) == 1:
            return values[words[0]].rpartition(":")[2]
        if len(words) == 3:
            return agree(values[words[0]], values[words[2]], language)
        return with_article(words[0], values[words[1]], language)

    text = _SLOT.sub(insert, template)
    return text[:1].upper() + text[1:]


def slots_of(template: str) -> list[str]:
    """The names of the slots in a template, each once, in order."""
    found: dict[str, None] = {}
    for slot in _SLOT.findall(template):
        words = slot.split()
        found |= dict.fromkeys([words[0], words[2]] if len(words) == 3 else words[-1:])
    return list(found)


def phrases(templates: Iterable[Sequence[str]], values: Values, forbidden: Excluded, each: int = EACH) -> list[Phrase]:
    """At most `each` sentences of every template, without repetitions and forbidden sentences in any language.

    The split depends on the English text: 4 % dev, 4 % held_out, with combinations of words that training lacks.
    """
    found: list[Phrase] = []
    taken: dict[str, set[str]] = {language: set() for language in LANGUAGES}
    for number, template in enumerate(templates):
        names = slots_of(template[0])
        combinations = list(itertools.product(*(values[name] for name in names)))
        random.Random(f"phrases {template[0]}").shuffle(combinations)
        for count, combination in enumerate(combinations[:each]):
            texts = {
                language: _sentence(template[i], {n: v[i] for n, v in zip(names, combination, strict=True)}, language)
                for i, language in enumerate(LANGUAGES)
            }
            plain = {language: normalize(text, language) for language, text in texts.items()}
            if any(plain[lang] in taken[lang] or plain[lang] in forbidden for lang in LANGUAGES):
                continue
            for language in LANGUAGES:
                taken[language].add(plain[language])
            found.append(Phrase(f"p{number:03d}-{count:03d}", texts, _split(plain["en"])))
    return found


def _sentence(template: str, values: Mapping[str, str], language: str) -> str:
    text = clean(fill(template, values, language), language)
    if text is None:
        raise ValueError(
            f"the phrase {fill(template, values, language)!r} has characters that {language} does not allow"
        )
    return text


def _split(text: str) -> str:
    place = int.from_bytes(hashlib.sha256(f"phrase {text}".encode()).digest()[:8]) / 2**64
    return "dev" if place < DEV else "held_out" if place < DEV + HELD_OUT else "train"


def phrase_rows(book: Iterable[Phrase]) -> list[dict[str, str]]:
    """The rows of texts/phrase_book.jsonl: the texts without punctuation, and the split."""
    return [
        {
            "phrase": phrase.id,
            **{lang: normalize(text, lang) for lang, text in phrase.texts.items()},
            "split": phrase.split,
        }
        for phrase in book
    ]
