"""Cardinal numbers in the words of English, Spanish, French, Portuguese, German, Italian and Japanese (katakana)."""

LIMIT = 10**9  # numbers from here on are not written in words


def cardinal(number: int, language: str) -> str:
    """`number` in words, with the hyphens and accents of the language; the masculine form where there are two.

    Raises:
        ValueError: the number is negative or not below `LIMIT`.
        KeyError: an unknown language.
    """
    if not 0 <= number < LIMIT:
        raise ValueError(f"{number} is not between 0 and {LIMIT - 1}")
    return _WORDS[language](number)


def digits(text: str, language: str) -> list[str]:
    """The name of each digit in `text`, in order; other characters are left out."""
    return [cardinal(int(char), language) for char in text if char.isdecimal()]


_EN = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_EN_TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def _english(n: int) -> str:
    if n < 20:
        return _EN[n]
    if n < 100:
        return _EN_TENS[n // 10] + (f"-{_EN[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{_EN[n // 100]} hundred" + (f" and {_english(n % 100)}" if n % 100 else "")
    size, name = (1000, "thousand") if n < 10**6 else (10**6, "million")
    rest = n % size
    link = " and " if 0 < rest < 100 else " " if rest else ""
    return f"{_english(n // size)} {name}{link}{_english(rest) if rest else ''}"


_ES = [
    "cero",
    "uno",
    "dos",
    "tres",
    "cuatro",
    "cinco",
    "seis",
    "siete",
    "ocho",
    "nueve",
    "diez",
    "once",
    "doce",
    "trece",
    "catorce",
    "quince",
    "dieciséis",
    "diecisiete",
    "dieciocho",
    "diecinueve",
    "veinte",
    "veintiuno",
    "veintidós",
    "veintitrés",
    "veinticuatro",
    "veinticinco",
    "veintiséis",
    "veintisiete",
    "veintiocho",
    "veintinueve",
]
_ES_TENS = ["-", "-", "-", "treinta", "cuarenta", "cincuenta", "sesenta", "setenta", "ochenta", "noventa"]
_ES_HUNDREDS = [
    "-",
    "ciento",
    "doscientos",
    "trescientos",
    "cuatrocientos",
    "quinientos",
    "seiscientos",
    "setecientos",
    "ochocientos",
    "novecientos",
]


def _spanish(n: int) -> str:
    if n < 30:
        return _ES[n]
    if n < 100:
        return _ES_TENS[n // 10] + (f" y {_ES[n % 10]}" if n % 10 else "")
    if n == 100:
        return "cien"
    if n < 1000:
        return f"{_ES_HUNDREDS[n // 100]} {_spanish(n % 100)}" if n % 100 else _ES_HUNDREDS[n // 100]
    size, one, many = (1000, "mil", "mil") if n < 10**6 else (10**6, "un millón", "millones")
    count, rest = divmod(n, size)
    head = one if count == 1 else f"{_before_noun_es(count)} {many}"
    return f"{head} {_spanish(rest)}" if rest else head


def _before_noun_es(n: int) -> str:
    words = _spanish(n)
    return words[:-9] + "veintiún" if words.endswith("veintiuno") else words[:-1] if words.endswith("uno") else words


_FR = [
    "zéro",
    "un",
    "deux",
    "trois",
    "quatre",
    "cinq",
    "six",
    "sept",
    "huit",
    "neuf",
    "dix",
    "onze",
    "douze",
    "treize",
    "quatorze",
    "quinze",
    "seize",
    "dix-sept",
    "dix-huit",
    "dix-neuf",
]
_FR_TENS = [
    "-",
    "-",
    "vingt",
    "trente",
    "quarante",
    "cinquante",
    "soixante",
    "soixante",
    "quatre-vingt",
    "quatre-vingt",
]


def _french(n: int, final: bool = True) -> str:
    """`final`: nothing follows, so that "quatre-vingts" and "cents" have their s."""
    if n < 20:
        return _FR[n]
    if n < 100:
        tens, unit = divmod(n, 10)
        if tens in (7, 9):
            unit += 10
        if tens == 8 and not unit:
            return "quatre-vingts" if final else "quatre-vingt"
        link = " et " if unit in (1, 11) and tens < 8 else "-"
        return _FR_TENS[tens] + (link + _FR[unit] if unit else "")
    if n < 1000:
        hundreds, rest = divmod(n, 100)
        head = "cent" if hundreds == 1 else f"{_FR[hundreds]} cent"
        if rest:
            return f"{head} {_french(rest, final)}"
        return head + "s" if hundreds > 1 and final else head
    if n < 10**6:
        count, rest = divmod(n, 1000)
        head = "mille" if count == 1 else f"{_french(count, final=False)} mille"
        return f"{head} {_french(rest, final)}" if rest else head
    count, rest = divmod(n, 10**6)
    head = "un million" if count == 1 else f"{_french(count)} millions"
    return f"{head} {_french(rest, final)}" if rest else head


_PT = [
    "zero",
    "um",
    "dois",
    "três",
    "quatro",
    "cinco",
    "seis",
    "sete",
    "oito",
    "nove",
    "dez",
    "onze",
    "doze",
    "treze",
    "quatorze",
    "quinze",
    "dezesseis",
    "dezessete",
    "dezoito",
    "dezenove",
]
_PT_TENS = ["-", "-", "vinte", "trinta", "quarenta", "cinquenta", "sessenta", "setenta", "oitenta", "noventa"]
_PT_HUNDREDS = [
    "-",
    "cento",
    "duzentos",
    "trezentos",
    "quatrocentos",
    "quinhentos",
    "seiscentos",
    "setecentos",
    "oitocentos",
    "novecentos",
]


def _portuguese(n: int) -> str:
    if n < 20:
        return _PT[n]
    if n < 100:
        return _PT_TENS[n // 10] + (f" e {_PT[n % 10]}" if n % 10 else "")
    if n == 100:
        return "cem"
    if n < 1000:
        return f"{_PT_HUNDREDS[n // 100]} e {_portuguese(n % 100)}" if n % 100 else _PT_HUNDREDS[n // 100]
    size, one, many = (1000, "mil", "mil") if n < 10**6 else (10**6, "um milhão", "milhões")
    count, rest = divmod(n, size)
    head = one if count == 1 else f"{_portuguese(count)} {many}"
    link = " e " if 0 < rest <= 100 or (rest < 1000 and not rest % 100) else " "
    return f"{head}{link}{_portuguese(rest)}" if rest else head


_DE = [
    "null",
    "eins",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]
_DE_TENS = ["-", "-", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]


def _german(n: int) -> str:
    if n < 10**6:
        return _german_word(n)
    count, rest = divmod(n, 10**6)
    head = "eine Million" if count == 1 else f"{_german_word(count)} Millionen"
    return f"{head} {_german_word(rest)}" if rest else head


def _german_word(n: int) -> str:
    if n < 20:
        return _DE[n]
    if n < 100:
        tens, unit = divmod(n, 10)
        return f"{_de_one(unit)}und{_DE_TENS[tens]}" if unit else _DE_TENS[tens]
    size, name = (100, "hundert") if n < 1000 else (1000, "tausend")
    count, rest = divmod(n, size)
    return _de_one(count) + name + (_german_word(rest) if rest else "")


def _de_one(n: int) -> str:
    words = _german_word(n)
    return words[:-1] if words.endswith("eins") else words


_IT = [
    "zero",
    "uno",
    "due",
    "tre",
    "quattro",
    "cinque",
    "sei",
    "sette",
    "otto",
    "nove",
    "dieci",
    "undici",
    "dodici",
    "tredici",
    "quattordici",
    "quindici",
    "sedici",
    "diciassette",
    "diciotto",
    "diciannove",
]
_IT_TENS = ["-", "-", "venti", "trenta", "quaranta", "cinquanta", "sessanta", "settanta", "ottanta", "novanta"]


def _italian(n: int) -> str:
    words = _italian_word(n)
    return words[:-3] + "tré" if n > 20 and words.endswith("tre") else words


def _italian_word(n: int) -> str:
    if n < 20:
        return _IT[n]
    if n < 100:
        tens, unit = divmod(n, 10)
        head = _IT_TENS[tens][:-1] if unit in (1, 8) else _IT_TENS[tens]
        return head + (_IT[unit] if unit else "")
    if n < 1000:
        hundreds, rest = divmod(n, 100)
        return ("" if hundreds == 1 else _IT[hundreds]) + "cento" + (_italian_word(rest) if rest else "")
    if n < 10**6:
        count, rest = divmod(n, 1000)
        head = "mille" if count == 1 else f"{_italian_word(count)}mila"
        return head + (_italian_word(rest) if rest else "")
    count, rest = divmod(n, 10**6)
    head = "un milione" if count == 1 else f"{_italian(count)} milioni"
    return f"{head} {_italian_word(rest)}" if rest else head


_JA = ["ゼロ", "イチ", "ニ", "サン", "ヨン", "ゴ", "ロク", "ナナ", "ハチ", "キュウ"]
_JA_HUNDREDS = {1: "ヒャク", 3: "サンビャク", 6: "ロッピャク", 8: "ハッピャク"}
_JA_THOUSANDS = {1: "セン", 3: "サンゼン", 8: "ハッセン"}


def _japanese(n: int) -> str:
    if n == 0:
        return _JA[0]
    parts = []
    for size, unit in ((10**8, "オク"), (10**4, "マン")):
        if n >= size:
            parts.append(_japanese(n // size) + unit)
            n %= size
    thousands, hundreds, tens, ones = n // 1000, n // 100 % 10, n // 10 % 10, n % 10
    if thousands:
        parts.append(_JA_THOUSANDS.get(thousands, _JA[thousands] + "セン"))
    if hundreds:
        parts.append(_JA_HUNDREDS.get(hundreds, _JA[hundreds] + "ヒャク"))
    if tens:
        parts.append("ジュウ" if tens == 1 else _JA[tens] + "ジュウ")
    if ones:
        parts.append(_JA[ones])
    return "".join(parts)


_WORDS = {
    "en": _english,
    "es": _spanish,
    "fr": _french,
    "pt": _portuguese,
    "de": _german,
    "it": _italian,
    "ja": _japanese,
}
