"""Writes numbers in words, with num2words for the cardinals and ordinals of a language.

Only forms with one usual reading are converted (docs/data.md lists them). Every other token with a digit
stays as it is and is returned, so that nothing is read wrongly in silence.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from num2words import CONVERTER_CLASSES, num2words

from finetune.data.telephone_numbers import spell_telephones

SPELLED = 7  # digits; a longer number without separators is a code or a telephone number, read digit by digit
YEARS = range(1800, 2100)  # numbers without separators that are read as years, if the language has a form for years
MAX_DIGITS = 30  # of one token; a longer one is no number that anybody reads


@dataclass(frozen=True)
class Reading:
    """How a language reads numbers. Languages without a `Reading` have cardinals only.

    Attributes:
        decimals: the word of each decimal mark.
        groups: marks between groups of three digits.
        signs: the words of minus and plus.
        percent: the word of %.
        to: the word of a range such as 5-10; "" leaves ranges.
        currencies: singular and plural by sign; the sign can be on either side of the number.
        ordinals: suffixes of ordinals, such as st in 21st.
        years: whether numbers in `YEARS` are read as years.
    """

    decimals: dict[str, str]
    groups: str
    signs: tuple[str, str]
    percent: str
    to: str
    currencies: dict[str, tuple[str, str]] = field(default_factory=dict)
    ordinals: tuple[str, ...] = ()
    years: bool = False


READINGS = {
    "en": Reading(
        {".": "point"},
        ",",
        ("minus", "plus"),
        "percent",
        "to",
        {"$": ("dollar", "dollars"), "€": ("euro", "euros"), "£": ("pound", "pounds"), "¥": ("yen", "yen")},
        ("st", "nd", "rd", "th"),
        years=True,
    ),
    "de": Reading(
        {",": "Komma"},
        ".",
        ("minus", "plus"),
        "Prozent",
        "bis",
        {"$": ("Dollar", "Dollar"), "€": ("Euro", "Euro"), "£": ("Pfund", "Pfund")},
        years=True,
    ),
    "fr": Reading(
        {",": "virgule"},
        " ",
        ("moins", "plus"),
        "pour cent",
        "à",
        {"$": ("dollar", "dollars"), "€": ("euro", "euros")},
        ("er", "ère", "e", "ème"),
    ),
    "es": Reading(
        {",": "coma", ".": "punto"},
        ".",
        ("menos", "más"),
        "por ciento",
        "a",
        {"$": ("dólar", "dólares"), "€": ("euro", "euros")},
    ),
    "pt": Reading(
        {",": "vírgula"},
        ".",
        ("menos", "mais"),
        "por cento",
        "a",
        {"R$": ("real", "reais"), "$": ("dólar", "dólares"), "€": ("euro", "euros")},
    ),
    "it": Reading(
        {",": "virgola"}, ".", ("meno", "più"), "per cento", "", {"$": ("dollaro", "dollari"), "€": ("euro", "euro")}
    ),
    "nl": Reading(
        {",": "komma"}, ".", ("min", "plus"), "procent", "tot", {"$": ("dollar", "dollar"), "€": ("euro", "euro")}
    ),
}
CARDINALS_ONLY = Reading({}, "", ("", ""), "", "")
SPACED_GROUPS = ("fr", "sv", "no", "fi", "pl", "cs", "sk", "ru", "uk", "bg", "be", "hu", "lt", "lv", "et")
UNSPACED = ("ja", "th")  # scripts without spaces: digits can touch letters of the script
# A token with a digit (or ² ½ Ⅳ ①), and a sign of percent or money beside it, also after a space.
_DIGIT = "[\\d\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u2189\u2460-\u24ff]"
_MONEY = "€$£¥₹₽₩₺₴₪₫₱₦฿"
_TOKEN = re.compile(
    rf"(?<!\S)(?<!\d\s)[{_MONEY}]?[1-9]\d?\s[1-9]\d\d(?:[.,]\d+)?(?!\S*\d|\S*\s\d)\S*|"  # 1 200: one number, or two
    rf"(?:(?<!\S)[A-Z]{{0,3}}[{_MONEY}]\s)?\S*{_DIGIT}\S*"
    rf"(?:\s[-\u2013]\s[{_MONEY}]?\d\S*)*(?:(?<=\d)\s[%{_MONEY}](?!\w))?"
)
_SPACED_DASH = re.compile(r"\d\s[-\u2013]\s")  # 5 - 10: a range, a score, a difference, or two parts of a sentence
_LEADING, _TRAILING = "\"'([{«“„‘¿¡", "\"')]}»”’.,;:!?…"
_MAGNITUDE = re.compile(r"(?<!\S)([$€£])(\d[\d.,]*) (thousand|million|billion|trillion)(?![\w-])")
_GROUPS_END = r"(?!\d| \d|[.,]\d+[.,]\d)"  # 12 500 and 12 500,5, but not 12 500,500.5
_THOUSANDS = re.compile(
    rf"(?<![\d,.] )(?<![\d,.])[1-9]\d{{0,2}}(?: \d{{3}})* 000{_GROUPS_END}"
)  # 1 000 in every language
_GROUP_SPACES = "\u00a0\u202f\u2009"  # no-break and thin spaces between groups of three digits, in every language


@dataclass(frozen=True)
class Spelled:
    """A text with numbers in words, and the tokens with digits that were left."""

    text: str
    left: list[str]


def is_supported(language: str) -> bool:
    """Whether num2words has the language (a two-letter code)."""
    return language in CONVERTER_CLASSES


def numbers_to_words(text: str, language: str) -> Spelled:
    """Converts the numbers of a text.

    Args:
        text: a transcript.
        language: a two-letter code; with a language that num2words does not have, everything is left.
    """
    left = list[str]()
    if not is_supported(language):
        return Spelled(text, _TOKEN.findall(text))
    if language != "en":  # before the groups of 900 123 000 are joined
        text = spell_telephones(text, language, lambda number: _digits(number, language))
    text = re.sub(rf"(?<=\d)[{_GROUP_SPACES}](?=\d{{3}}(?!\d))", "\u2007" if language in SPACED_GROUPS else "", text)
    text = _THOUSANDS.sub(_join_groups, text)
    if language in SPACED_GROUPS:  # 12 500, also with a plain space
        text = re.sub(
            rf"(?<![\d,.\u2007 ] )(?<![\d,.\u2007])(\d{{1,3}})((?:[ \u2007]\d{{3}})+){_GROUPS_END}", _join_groups, text
        )
        text = text.replace("\u2007", " ")
    if language == "en":
        text = spell_telephones(text, language, lambda number: _digits(number, language))
        text = _MAGNITUDE.sub(lambda match: f"{match[2]} {match[3]} {READINGS['en'].currencies[match[1]][1]}", text)

    def convert(match: re.Match[str]) -> str:
        token, last = match[0], match.end() == len(text)
        try:
            words = _unspaced(token, language) if language in UNSPACED else _token(token, language, last)
        except Exception:  # num2words lacks the number in this language; its errors have no common class
            words = None
        if words is None or any(char.isdigit() for char in words):
            left.append(token)
        return token if words is None else words

    return Spelled(_TOKEN.sub(convert, text), left)


def _join_groups(match: re.Match[str]) -> str:
    return match[0].replace(" ", "").replace("\u2007", "")


def _token(token: str, language: str, last: bool) -> str | None:
    """The words of a token without white space, such as `"5%,`; None if it has no usual reading.

    `last` says whether it is the last token of the text.
    """
    if _SPACED_DASH.search(token) or re.match(r"\D?\d+\s\d", token):
        return None
    core = token.lstrip(_LEADING)
    start = token[: len(token) - len(core)]
    core = core.rstrip(_TRAILING)
    end = token[len(start) + len(core) :]
    if language == "de" and end.startswith(".") and not last:  # am 21. Mai: an ordinal, or the end of a sentence
        return None
    words = _number(re.sub(r"\s", "", core), language)
    return None if words is None else f"{start}{words}{end}"


def _unspaced(token: str, language: str) -> str | None:
    """Numbers inside a text without spaces; signs, decimals and Latin letters at a number leave the token."""
    if re.search(rf"\d[.,:/％%-]|[.,:/$¥€-]\d|[A-Za-z]\d|\d[A-Za-z]|\d{{{MAX_DIGITS + 1}}}", token):
        return None
    return re.sub(r"\d+", lambda match: _integer(match[0], language) or match[0], token)


def _number(core: str, language: str) -> str | None:
    reading = READINGS.get(language, CARDINALS_ONLY)
    if sum(map(str.isdigit, core)) > MAX_DIGITS:
        return None
    forms = (_plain, _signed, _percent, _money, _ordinal, _time, _range)
    return next((words for form in forms if (words := form(core, language, reading)) is not None), None)


def _plain(core: str, language: str, reading: Reading) -> str | None:
    """12, 1,234, 2.5, 1999, 007."""
    if re.fullmatch(r"\d+", core):
        if reading.years and len(core) == 4 and int(core) in YEARS:
            return _words(int(core), language, "year")
        return _integer(core, language)
    return _amount(core, language, reading)


def _amount(core: str, language: str, reading: Reading) -> str | None:
    """An integer or decimal, with marks between groups of three digits."""
    marks = re.escape(reading.groups)
    decimal = "".join(map(re.escape, reading.decimals))
    if re.fullmatch(r"0|[1-9]\d*", core) or (marks and re.fullmatch(rf"[1-9]\d{{0,2}}(?:[{marks}]\d{{3}})+", core)):
        return _words(int(re.sub(r"\D", "", core)), language)
    if decimal and (
        match := re.fullmatch(rf"(\d{{1,3}}(?:[{marks or decimal}]\d{{3}})+|0|[1-9]\d*)([{decimal}])(\d+)", core)
    ):
        integer = _words(int(re.sub(r"\D", "", match[1])), language)
        return f"{integer} {reading.decimals[match[2]]} {_digits(match[3], language)}"
    return None


def _signed(core: str, language: str, reading: Reading) -> str | None:
    """-5, +2.5, \u22125."""
    words = _amount(core[1:], language, reading) if core[:1] in tuple("-+\u2212") else None
    return f"{reading.signs[core[0] == '+']} {words}" if words and reading.signs[0] else None


def _percent(core: str, language: str, reading: Reading) -> str | None:
    """5%, -2.5%."""
    if not (core.endswith("%") and reading.percent):
        return None
    number = core[:-1]
    words = _amount(number, language, reading) or _signed(number, language, reading)
    return f"{words} {reading.percent}" if words else None


def _money(core: str, language: str, reading: Reading) -> str | None:
    """$5, 1,000\u20ac; amounts with cents are left, because people read them in several ways."""
    sign = next((sign for sign in reading.currencies if core.startswith(sign) or core.endswith(sign)), None)
    number = core.strip(sign) if sign else ""
    if sign is None or re.search(r"[.,]\d{1,2}$", number) or core.count(sign) > 1:
        return None
    words = _amount(number, language, reading)
    return f"{words} {reading.currencies[sign][number != '1']}" if words else None


def _ordinal(core: str, language: str, reading: Reading) -> str | None:
    """21st, 1er."""
    match = re.fullmatch(r"(\d{1,6})([^\W\d]+)", core)
    if not match or match[2].lower() not in reading.ordinals or match[1].startswith("0"):
        return None
    if language == "fr" and (match[1] == "1") != (match[2].lower() in ("er", "ère")):
        return None
    if language == "fr" and match[2].lower() == "ère":
        return "première"
    return _words(int(match[1]), language, "ordinal")


def _time(core: str, language: str, _: Reading) -> str | None:
    """10:15 and 9:05 in English; other languages read times in several ways."""
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", core)
    if not match or language != "en":
        return None
    hour, minute = _words(int(match[1]), language), int(match[2])
    if minute == 0:
        return f"{hour} o'clock" if 1 <= int(match[1]) <= 12 else None
    return f"{hour} {'oh ' if minute < 10 else ''}{_words(minute, language)}"


def _range(core: str, language: str, reading: Reading) -> str | None:
    """5-10, with a rising value; 3-2 is a score, 555-1234 a number."""
    match = re.fullmatch(r"([1-9]\d{0,3})[-\u2013]([1-9]\d{0,3})", core)
    if not match or not reading.to or int(match[1]) >= int(match[2]) or len(match[2]) - len(match[1]) > 1:
        return None
    first, second = (_plain(item, language, reading) for item in match.groups())
    return f"{first} {reading.to} {second}"


def _integer(digits: str, language: str) -> str | None:
    """A cardinal; digit by digit with a leading zero, and from `SPELLED` digits on unless it is round."""
    if len(digits) > 1 and (digits[0] == "0" or (len(digits) >= SPELLED and not digits.endswith("000"))):
        return _digits(digits, language)
    return _words(int(digits), language)


def _digits(text: str, language: str) -> str:
    """Each digit of a text as a word."""
    space = "" if language in UNSPACED else " "
    return space.join(_words(int(char), language) for char in text if char.isdigit())


@lru_cache(maxsize=10_000)
def _words(number: int, language: str, form: str = "cardinal") -> str:
    """num2words without its commas; in English also without hyphens, as the base model writes."""
    words = str(num2words(number, lang=language, to=form)).replace(",", "")
    return words.replace("-", " ") if language == "en" else words
