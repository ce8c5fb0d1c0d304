"""Numbers as people say them: telephone numbers, spelled letters, times, dates, prices and quantities."""

import random
from collections.abc import Callable

from nano.texts.number_words import cardinal, digits

DAYS = {
    "en": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "es": "lunes martes miércoles jueves viernes sábado domingo",
    "fr": "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "pt": "segunda-feira terça-feira quarta-feira quinta-feira sexta-feira sábado domingo",
    "de": "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
    "it": "lunedì martedì mercoledì giovedì venerdì sabato domenica",
    "ja": "ゲツヨウビ カヨウビ スイヨウビ モクヨウビ キンヨウビ ドヨウビ ニチヨウビ",
}
MONTHS = {
    "en": "January February March April May June July August September October November December",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
}
_EN_ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
    "twenty-first",
    "twenty-second",
    "twenty-third",
    "twenty-fourth",
    "twenty-fifth",
    "twenty-sixth",
    "twenty-seventh",
    "twenty-eighth",
    "twenty-ninth",
    "thirtieth",
    "thirty-first",
]
_DE_ORDINALS = {1: "ersten", 3: "dritten", 7: "siebten", 8: "achten"}
_PAIRS = {"fr", "de", "it"}  # languages whose telephone numbers are often read in pairs


def phone(language: str, rng: random.Random) -> str:
    """A telephone number in groups of digits or, in French, German and Italian, sometimes in pairs."""
    if language in _PAIRS and rng.random() < 0.5:
        pairs = [cardinal(rng.randrange(10, 100), language) for _ in range(rng.choice((3, 4)))]
        return f"{cardinal(0, language)} {cardinal(rng.randrange(1, 8), language)}, {', '.join(pairs)}"
    groups = rng.choice(((3, 3, 4), (3, 4), (3, 2, 2), (4, 4), (2, 3, 3)))
    return ", ".join(digit_string(language, rng, size) for size in groups)


def digit_string(language: str, rng: random.Random, size: int = 0) -> str:
    """`size` digits one by one (3 to 6 by default). English says "oh" for some zeros."""
    names = digits("".join(str(rng.randrange(10)) for _ in range(size or rng.randint(3, 6))), language)
    if language == "en" and rng.random() < 0.4:
        names = ["oh" if name == "zero" else name for name in names]
    return ("" if language == "ja" else " ").join(names)


def letters(language: str, rng: random.Random) -> str:
    """Two to five spelled letters, with digits sometimes."""
    del language
    return ", ".join(rng.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(rng.randint(2, 5)))


def small(low: int, high: int) -> Callable[[str, random.Random], str]:
    """A number from `low` to `high`; not one that ends in 1, whose form depends on the noun in most languages."""

    def number(language: str, rng: random.Random) -> str:
        n = rng.randint(low, high)
        while (n % 10 == 1 and n % 100 != 11 and language != "en") or (language == "pt" and n % 10 == 2 and n != 12):
            n = rng.randint(low, high)
        return cardinal(n, language)

    return number


def large(language: str, rng: random.Random) -> str:
    """A number of three to seven digits, mostly round, that does not depend on the gender of the noun."""
    n = rng.choice((rng.randrange(100, 200), rng.randrange(1, 99) * 1000, rng.randrange(10, 20) * 10000))
    if language in ("es", "pt", "fr", "it", "de"):
        n = (
            n // 1000 * 1000
            if n >= 1000 and n // 1000 % 10 not in (1, 2)
            else rng.choice((100, 103, 115, 130, 190, 1000))
        )
    return cardinal(n, language)


def year(language: str, rng: random.Random) -> str:
    """A year from 1920 to 2039."""
    n = rng.randint(1920, 2039)
    if language in ("en", "de") and n < 2000:
        return f"{cardinal(19, language)}{'hundert' if language == 'de' else ' '}{cardinal(n - 1900, language)}"
    if language == "en" and n >= 2010 and rng.random() < 0.5:
        return f"twenty {cardinal(n - 2000, 'en')}"
    return cardinal(n, language)


def date(language: str, rng: random.Random) -> str:
    """Day and month, as said after a preposition: "the third of May", "el tres de mayo"."""
    day, month = rng.randint(1, 28), rng.choice(MONTHS[language].split())
    if language == "en":
        return rng.choice((f"the {_EN_ORDINALS[day - 1]} of {month}", f"{month} {_EN_ORDINALS[day - 1]}"))
    if language == "de":
        return f"{_de_ordinal(day)} {month}"
    first = {"es": "primero", "fr": "premier", "pt": "primeiro", "it": "primo"}[language]
    link = " de " if language in ("es", "pt") else " "
    return f"{first if day == 1 else cardinal(day, language)}{link}{month}"


def _de_ordinal(day: int) -> str:
    return _DE_ORDINALS.get(day, cardinal(day, "de") + ("sten" if day >= 20 else "ten"))


def time(language: str, rng: random.Random) -> str:
    """A time of day, without a preposition: "half past six", "las seis y media"."""
    hour, minute = rng.randint(1, 12), rng.choice((0, 0, 5, 10, 15, 15, 20, 30, 30, 40, 45, 50, 55, rng.randint(1, 59)))
    return _TIMES[language](hour, minute, rng)


def at_time(language: str, rng: random.Random) -> str:
    """A time with its preposition, for the languages where the two melt: "às três horas", "alle tre"."""
    said = time(language, rng)
    if language == "pt":
        return f"{'à' if said.startswith('uma') else 'às'} {said}"
    return f"all'{said[2:]}" if said.startswith("l'") else f"alle {said.removeprefix('le ')}"


def _time_en(hour: int, minute: int, rng: random.Random) -> str:
    name = cardinal(hour, "en")
    if minute == 0:
        return rng.choice(
            (f"{name} o'clock", f"{name} {rng.choice(('in the morning', 'in the afternoon', 'p m', 'a m'))}")
        )
    if minute in (15, 30) and rng.random() < 0.5:
        return f"{'a quarter' if minute == 15 else 'half'} past {name}"
    if minute == 45 and rng.random() < 0.5:
        return f"a quarter to {cardinal(hour % 12 + 1, 'en')}"
    return f"{name} {'oh ' if minute < 10 else ''}{cardinal(minute, 'en')}"


def _time_es(hour: int, minute: int, rng: random.Random) -> str:
    article = _article_es(hour)
    if minute == 45 and rng.random() < 0.5:
        return f"{_article_es(hour % 12 + 1)} menos cuarto"
    part = {0: rng.choice(("", " en punto", " de la tarde")), 15: " y cuarto", 30: " y media"}
    return article + part.get(minute, f" y {cardinal(minute, 'es')}")


def _article_es(hour: int) -> str:
    return "la una" if hour == 1 else f"las {cardinal(hour, 'es')}"


def _time_fr(hour: int, minute: int, rng: random.Random) -> str:
    if hour == 12:
        name = rng.choice(("midi", "minuit"))
    else:
        name = "une heure" if hour == 1 else f"{cardinal(hour, 'fr')} heures"
    half = " et demi" if hour == 12 else " et demie"
    part = {0: "", 15: " et quart", 30: half, 45: " quarante-cinq"}
    return name + part.get(minute, f" {_feminine_fr(minute)}")


def _feminine_fr(n: int) -> str:
    words = cardinal(n, "fr")
    return words + "e" if words.endswith("un") else words


def _time_pt(hour: int, minute: int, rng: random.Random) -> str:
    feminine = {1: "uma hora", 2: "duas horas"}.get(hour, f"{cardinal(hour, 'pt')} horas")
    if minute == 0:
        return feminine + rng.choice(("", " em ponto", " da manhã" if hour < 12 else ""))
    bare = feminine.rpartition(" ")[0]
    return f"{bare} e {'meia' if minute == 30 else cardinal(minute, 'pt')}"


def _time_de(hour: int, minute: int, rng: random.Random) -> str:
    following = cardinal(hour % 12 + 1, "de")
    if minute == 30 and rng.random() < 0.7:
        return f"halb {following}"
    if minute in (15, 45) and rng.random() < 0.6:
        return f"Viertel {'nach' if minute == 15 else 'vor'} {cardinal(hour, 'de') if minute == 15 else following}"
    name = "ein" if hour == 1 else cardinal(hour, "de")
    return f"{name} Uhr {cardinal(minute, 'de')}" if minute else f"{name} Uhr"


def _time_it(hour: int, minute: int, rng: random.Random) -> str:
    del rng
    article = "l'una" if hour == 1 else f"le {cardinal(hour, 'it')}"
    part = {0: "", 15: " e un quarto", 30: " e mezza"}
    return article + part.get(minute, f" e {cardinal(minute, 'it')}")


def _time_ja(hour: int, minute: int, rng: random.Random) -> str:
    names = {4: "ヨ", 7: "シチ", 9: "ク"}
    head = names.get(hour, cardinal(hour, "ja")) + "ジ"
    return head if minute == 0 else head + ("ハン" if minute == 30 or rng.random() < 0.5 else "ジュップン")


_TIMES = {
    "en": _time_en,
    "es": _time_es,
    "fr": _time_fr,
    "pt": _time_pt,
    "de": _time_de,
    "it": _time_it,
    "ja": _time_ja,
}
_MONEY = {
    "en": (("dollars", "pounds", "euros"), "and", "cents"),
    "es": (("euros", "pesos", "dólares"), "con", "centavos"),
    "fr": (("euros", "dollars", "francs"), "", ""),
    "pt": (("reais", "euros"), "e", "centavos"),
    "de": (("Euro", "Franken"), "", ""),
    "it": (("euro",), "e", "centesimi"),
}


def price(language: str, rng: random.Random) -> str:
    """An amount of money, with or without the small coins."""
    currencies, link, coins = _MONEY[language]
    currency = rng.choice(currencies)
    whole = small(2, 99)(language, rng) if rng.random() < 0.8 else large(language, rng)
    if rng.random() < 0.5:
        return f"{whole} {currency}"
    cents = cardinal(rng.choice((5, 10, 20, 25, 30, 40, 50, 60, 75, 80, 90, 95, 99)), language)
    if currency == "pounds":
        link, coins = "", ""
    return " ".join(filter(None, (whole, currency, link, cents, coins)))
