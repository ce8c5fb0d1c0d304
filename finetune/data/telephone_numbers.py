"""Finds telephone numbers in the usual forms of a language, which are read digit by digit."""

import re
from collections.abc import Callable

_PHONE = re.compile(  # 555-1234, (555) 123-4567, 555.123.4567, 555 123 4567, +44 20 7946 0958
    r"(?<![\w.,-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}"
    r"|(?:\(\d{3}\) ?|\d{3}[ .-])?\d{3}[.-]\d{4}|\d{3} \d{3} \d{4})(?![\w-]|[.,]\d)"
)
_LOCAL_PHONE = re.compile(  # 0800 123 456, (020) 7946 0958, 0161-496 0000, 07700 900123, 1800 123 456
    r"(?<![\w.,-])(?:(?:\(0\d{1,5}\) ?|0\d{1,5}[ -])\d{3,4}[ -]\d{3,4}(?:[ -]\d{3,4})?"
    r"|(?:\(0\d{2,5}\) ?|0\d{2,5} )\d{4,8}|0\d{2,5}-\d{5,8}|1[38]00[ -]\d{3}[ -]\d{3})(?![\w%-]|[.,:]\d)"
)
_PHONE_START = re.compile(r"(?<![\w.,-])1[ .-](?=\(?\d{3}\)?[ .-]\d{3}[.-]\d{4})")  # 1-800-555-1234
# Of other languages: 0800 123 456, (030) 1234567, 0171/1234567, 089 123 45 67. The second one stands between letters.
_ZERO = r"(?:\(0\d{1,5}\)\s?|0\d{1,5}[\s/-])(?:\d{2,4}(?:[\s-]\d{2,4}){1,3}|\d{4,8})"
_WITH_ZERO = re.compile(rf"(?<![\w.,/-]){_ZERO}(?![\w%-]|[.,:/]\d)")
_UNSPACED_ZERO = re.compile(rf"(?<![A-Za-z0-9.,/-]){_ZERO}(?![A-Za-z0-9%-]|[.,:/]\d)")
_WITHOUT_ZERO = {
    language: re.compile(rf"(?<![\w.,/-])(?<!\d )(?:{form})(?![\w%-]|\s\d|[.,:/]\d)")
    for language, form in {
        "es": r"[6-9]\d\d\s\d{3}\s\d{3}",
        "pt": r"[239]\d\d\s\d{3}\s\d{3}|\(\d\d\)\s?\d{4,5}[\s-]\d{4}",
        "it": r"[38]\d\d\s\d{3}\s\d{3,4}",
    }.items()
}
_DATE = re.compile(r"0\d[\s/-]\d\d?[\s/-](?:19|20)\d\d")
MIN_DIGITS = 8  # of a number that begins with 0


def spell_telephones(text: str, language: str, digits: Callable[[str], str]) -> str:
    """The text with its telephone numbers in words.

    Args:
        text: a transcript.
        language: a two-letter code.
        digits: writes each digit of a text as a word.
    """
    if language == "en":
        text = _PHONE_START.sub("one ", _LOCAL_PHONE.sub(lambda match: _english(match, digits), text))
        return _PHONE.sub(lambda match: _english(match, digits), text)
    forms = [_UNSPACED_ZERO if language == "ja" else _WITH_ZERO, _WITHOUT_ZERO.get(language)]
    for form in filter(None, forms):
        text = form.sub(lambda match: digits(match[0]) if _is_telephone(match[0]) else match[0], text)
    return text


def _english(match: re.Match[str], digits: Callable[[str], str]) -> str:
    """Digit by digit; a signed number or a decimal stays: +150, +10.25, 123.4567."""
    if re.fullmatch(r"\+\d{,6}|\+?\d+\.\d+", match[0]):
        return match[0]
    return ("plus " if match[0].startswith("+") else "") + digits(match[0])


def _is_telephone(number: str) -> bool:
    """Whether digits are a telephone number.

    These are none: dates (01-02-2020), round numbers one after another (900 800 700), and groups of two digits, which
    are read as such (06 12 34 56 78).
    """
    groups = re.findall(r"\d+", number)
    is_round = groups[0][0] != "0" and all(group.endswith("0") for group in groups)
    is_long = sum(map(len, groups)) >= MIN_DIGITS and max(map(len, groups)) > 2
    return is_long and not is_round and not _DATE.fullmatch(number)
