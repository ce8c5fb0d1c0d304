"""The scripts of languages, and texts that are mostly written in another one."""

import unicodedata
from collections import Counter
from functools import lru_cache

_LATIN = (
    "af az bs ca cs cy da de en eo es et eu fi fr fy ga gd gl ha ht hu ia id ig io is it la lb lt lv mg mi ms mt nb nl "
    "nn no om pl pt qu rm ro sk sl sm sn so sq st su sv sw tk tl tn tr ts vi wo xh yo zu"
)
SCRIPTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_LATIN.split(), ("LATIN",)),
    **dict.fromkeys(("be", "bg", "ky", "mk", "mn", "ru", "tg", "uk", "ba", "cv", "os"), ("CYRILLIC",)),
    **dict.fromkeys(("ar", "fa", "ps", "ur", "ug", "sd"), ("ARABIC",)),
    **dict.fromkeys(("hi", "mr", "ne", "sa"), ("DEVANAGARI",)),
    **dict.fromkeys(("bn", "as"), ("BENGALI",)),
    **dict.fromkeys(("am", "ti"), ("ETHIOPIC",)),
    **dict.fromkeys(("he", "yi"), ("HEBREW",)),
    **{"el": ("GREEK",), "hy": ("ARMENIAN",), "ka": ("GEORGIAN",), "ko": ("HANGUL",), "th": ("THAI",), "lo": ("LAO",)},
    **{"ta": ("TAMIL",), "te": ("TELUGU",), "kn": ("KANNADA",), "ml": ("MALAYALAM",), "gu": ("GUJARATI",)},
    **{"si": ("SINHALA",), "km": ("KHMER",), "my": ("MYANMAR",), "bo": ("TIBETAN",)},
    "ja": ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK", "IDEOGRAPHIC", "HALFWIDTH"),
    "zh": ("CJK", "IDEOGRAPHIC", "BOPOMOFO"),
}

EAST_ASIAN = (*SCRIPTS["ja"], *SCRIPTS["zh"])
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "THAI", "LAO", "KHMER", "MYANMAR")


def has_other_script(text: str, language: str) -> bool:
    """Whether more than half of the letters are not of a script of the language; False for an unknown language."""
    scripts = SCRIPTS.get(language)
    letters = [char for char in text if char.isalpha()]
    return bool(scripts) and 2 * sum(script(char) not in (scripts or ()) for char in letters) > len(letters)


def is_unspaced(text: str) -> bool:
    """Whether a text has a character of a script that is written without spaces between words."""
    return any(char.isalpha() and script(char) in UNSPACED for char in text)


def main_script(text: str) -> str:
    """The script of most letters of a text; that of Japanese and Chinese is CJK. "" without letters."""
    counts = Counter("CJK" if script(char) in EAST_ASIAN else script(char) for char in text if char.isalpha())
    return counts.most_common(1)[0][0] if counts else ""


@lru_cache(maxsize=10_000)
def script(char: str) -> str:
    """The first word of the Unicode name of a letter, without FULLWIDTH: LATIN, HIRAGANA, CJK."""
    name = unicodedata.name(char, "").split(" ")
    return name[1] if name[0] == "FULLWIDTH" and len(name) > 1 else name[0]
