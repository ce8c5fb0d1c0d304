"""Words that are numbers in other languages than English: cardinals, and ordinals of dates, by num2words."""

import re
from functools import cache

from finetune.metrics.multilingual import has_number_words
from finetune.metrics.normalizer import normalize

_LARGEST = 2100  # years too: some languages write a number as one word
_LARGEST_ORDINAL = 31
_LARGE = (10_000, 100_000, 1_000_000, 2_000_000, 1_000_000_000)
_CHARACTERS = {language: frozenset("〇零一二三四五六七八九十百千万億") for language in ("ja", "zh")}
_ENDINGS = {"de": "nrsm"}  # of ordinals: dritte, dritten, dritter
# Articles, conjunctions and verbs that num2words writes too.
_NOT_ALONE = frozenset(["un", "une", "uno", "una", "um", "uma", "ein", "eine", "et", "e", "y", "und", "sei", "de"])
# Forms that num2words does not write: of some regions, of the feminine, and short ones.
_OTHER_FORMS = {
    "es": "veintiún doscientas trescientas cuatrocientas quinientas seiscientas setecientas ochocientas novecientas",
    "fr": "septante huitante octante nonante",
    "it": "mila",
    "pt": "duas dezesseis dezessete dezenove duzentas trezentas quatrocentas quinhentas seiscentas setecentas "
    "oitocentas novecentas bilhão bilhões",
}
_UNIT = "ein|zwei|zwo|drei|vier|fünf|sechs|sieben|acht|neun"
_TENS = "zwanzig|dreissig|vierzig|fünfzig|sechzig|siebzig|achtzig|neunzig"
_TEENS = "zehn|elf|zwölf|dreizehn|vierzehn|fünfzehn|sechzehn|siebzehn|achtzehn|neunzehn"
_BELOW_100 = f"(?:(?:(?:{_UNIT})und)?(?:{_TENS})|{_TEENS}|eins|{_UNIT})"
_HUNDREDS = f"(?:(?:{_TEENS}|{_UNIT})?hundert)"  # also of years: neunzehnhundert
_BELOW_1000 = f"(?:{_HUNDREDS}(?:(?:und)?{_BELOW_100})?|{_BELOW_100})"
_LOW_ORDINAL = "erste|zweite|zwote|dritte|vierte|fünfte|sechste|siebte|siebente|achte|neunte"
_ORDINAL = f"(?:{_LOW_ORDINAL}|(?:{_TEENS})te|(?:(?:{_UNIT})und)?(?:{_TENS})ste)[nrsm]?"
_GERMAN = re.compile(  # hundertzwanzig, neunzehnhundertneunzig, zwo, zweieinhalb, anderthalb, hundertzwanzigster
    rf"(?:{_BELOW_1000}?tausend(?:und)?)?{_BELOW_1000}"
    rf"|{_BELOW_1000}?tausend"
    rf"|(?:{_BELOW_1000}?tausend(?:und)?)?{_HUNDREDS}?(?:und)?(?:{_ORDINAL}|(?<=[dt])ste[nrsm]?)"
    rf"|(?:{_BELOW_100}(?:und)?ein|andert)halb(?:e[nrsm]?)?"
)


def is_numeral_word(word: str, language: str) -> bool:
    """Whether a word is a number in words of the language, in any case.

    Args:
        word: a normalized word.
        language: a two-letter code.
    """
    folded = word.casefold()
    if folded in _NOT_ALONE:
        return False
    return folded in numeral_words(language) or (language == "de" and bool(_GERMAN.fullmatch(folded)))


@cache
def numeral_words(language: str) -> frozenset[str]:
    """The single words of numbers, in lower case and normalized; characters for Japanese and Chinese.

    Args:
        language: a two-letter code. English, whose number words are in `words`, and languages that num2words does not
            have give no words.
    """
    if language in _CHARACTERS:
        return _CHARACTERS[language]
    if language == "en" or not has_number_words(language):
        return frozenset()
    texts = [_written(number, language, "cardinal") for number in (*range(_LARGEST + 1), *_LARGE)]
    ordinals = [_written(number, language, "ordinal") for number in range(1, _LARGEST_ORDINAL + 1)]
    texts += [f"{text}{ending}" for text in ordinals for ending in ("", *_ENDINGS.get(language, ""))]
    words = {word for text in texts for word in normalize(text, "basic@2").split()}
    words |= {*_OTHER_FORMS.get(language, "").split()}
    return frozenset(word for word in words - _NOT_ALONE if word.isalpha())


def _written(number: int, language: str, form: str) -> str:
    from num2words import num2words

    try:
        return str(num2words(number, lang=language, to=form))
    except Exception:  # num2words lacks the number in this language; its errors have no common class
        return ""
