"""Turns sentences into the text that the model writes: lower case, no punctuation, letters of the CTC alphabet."""

import re
import unicodedata

from nano.texts.number_words import cardinal

LETTERS = {
    "en": "abcdefghijklmnopqrstuvwxyz",
    "es": "abcdefghijklmnopqrstuvwxyzáéíóúüñ",
    "fr": "abcdefghijklmnopqrstuvwxyzàâäçéèêëîïôöùûüÿ",
    "pt": "abcdefghijklmnopqrstuvwxyzàáâãçéêíóôõúü",
    "de": "abcdefghijklmnopqrstuvwxyzäöüßé",
    "it": "abcdefghijklmnopqrstuvwxyzàèéìíîòóù",
    "ja": "".join(map(chr, range(0x30A1, 0x30F7))) + "ー",
}
PUNCTUATION = ",.?!;:-'¿¡"
_JA_PUNCTUATION = "、。？！"
_ALLOWED = {language: frozenset(letters + PUNCTUATION + " ") for language, letters in LETTERS.items()}
_SAME = str.maketrans(
    {**dict.fromkeys("’‘ʼ´`ʹ", "'"), **dict.fromkeys('“”«»„"‹›', ""), **dict.fromkeys("–—―", ", "), "…": ".", "‑": "-"}
    | {"œ": "oe", "Œ": "Oe", "æ": "ae", "Æ": "Ae", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u00ad": ""}
)
_NUMBER = re.compile(r"(?<![\w.,:/+-])\d{1,6}(?![\w:/%°+-]|[.,]\d)")
_YEAR = range(1100, 2000)


def in_words(text: str, language: str) -> str | None:
    """`text` with its whole numbers in words; None if a number is left that has no single safe reading.

    Times, decimals, percentages and numbers with letters are not read. Where the form depends on the gender of a noun
    (1, 2, hundreds in Romance languages), the number is not read either.
    """
    text = _NUMBER.sub(lambda found: _reading(found[0], language) or found[0], text)
    return None if re.search(r"\d", text) else text


def _reading(number: str, language: str) -> str | None:
    n = int(number)
    if len(number) > 1 and number[0] == "0":
        return None
    if language in ("en", "de") and n in _YEAR and n % 100 > 9:
        joint = "hundert" if language == "de" else " "
        return f"{cardinal(n // 100, language)}{joint}{cardinal(n % 100, language)}"
    if language in ("es", "fr", "pt", "it", "de") and n % 10 == 1 and n % 100 != 11:
        return None
    if language in ("es", "pt") and (n % 1000 >= 200 or (language == "pt" and n % 10 == 2 and n % 100 != 12)):
        return None
    return cardinal(n, language)


def clean(text: str, language: str) -> str | None:
    """What a voice reads: one line, plain quotes and dashes, numbers in words; None for text with other characters."""
    text = unicodedata.normalize("NFC", text).translate(_SAME)
    if language == "ja":
        return _clean_japanese(text)
    if language == "en":
        text = without_accents(text)
    text = re.sub(r"\.{2,}", ".", re.sub(r"\s+", " ", text))
    text = re.sub(r"\s+([,.?!;:])", r"\1", text).strip(" ,;:-")
    spoken = in_words(text, language)
    if spoken is None or not _ALLOWED[language].issuperset(spoken.lower()):
        return None
    return spoken


def _clean_japanese(text: str) -> str | None:
    text = re.sub(r"[「」『』 　・]", "", text).replace("!", "！").replace("?", "？")
    return text if set(text) <= set(LETTERS["ja"] + _JA_PUNCTUATION) else None


def normalize(spoken: str, language: str) -> str:
    """The text of a cleaned sentence: lower case, without punctuation; apostrophes stay inside words only."""
    if language == "ja":
        return re.sub(f"[{_JA_PUNCTUATION} ]", "", spoken)
    text = re.sub(r"[^\w' ]", " ", spoken.lower())
    return " ".join(word for word in (word.strip("'") for word in text.split()) if word)


def without_accents(text: str) -> str:
    """`text` without diacritics: é -> e, ñ -> n."""
    if text.isascii():
        return text
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))
