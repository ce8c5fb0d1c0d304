"""The free text of the sources in each language, as paragraphs."""

import zipfile
from collections.abc import Iterator

from nano.texts import formats
from nano.texts.sources import Sources

_CHATTERBOT = {
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "pt": "portuguese",
    "de": "german",
    "it": "italian",
} | {"ja": "japanese"}
_WESNOTH = {"es": "es", "fr": "fr", "pt": "pt_BR", "de": "de", "it": "it", "ja": "ja"}
_HOME_ASSISTANT = {"pt": "pt-BR"}
_FORTUNES = {
    "en": (("fortunes", "fortunes-min"), "usr/share/games/fortunes/*"),
    "es": (("fortunes-es",), "usr/share/games/fortunes/es/*.fortunes"),
    "pt": (("fortunes-br",), "usr/share/games/fortunes/*"),
    "de": (("fortunes-de",), "usr/share/games/fortunes/de/*"),
    "it": (("fortunes-it",), "usr/share/games/fortunes/it/*"),
}
# Code, verse, lists of names, recipes, insults and jokes about groups of people.
_SKIPPED = """
ascii-art art perl magic translate-me definitions ethnic men-women drugs zippy debian knghtbrd startrek  songs-poems
asciiart gedichte vornamen namen woerterbuch warmduscher channel-debian.fortunes translations  infodrom holenlassen
hauptgericht beilagen vorspeise suppe salat sauce dessert kuchen brot kalt plaetzchen  huhn loewe elefanten quiz ms
linuxtag lieberals regeln murphy computer computers linux linuxcookie paradoxum
"""


def paragraphs(sources: Sources, language: str) -> Iterator[tuple[str, str]]:
    """Source and text of each paragraph, in a fixed order."""
    packages, pattern = _FORTUNES.get(language, ((), ""))
    for path in (path for package in packages for path in sources.path(package, pattern)):
        if path.is_file() and path.suffix not in (".dat", ".u8") and path.name not in _SKIPPED.split():
            yield from (("fortunes", text) for text in formats.fortunes(path, verse_ok=language == "de"))
    if language == "en":
        for path in sources.path("wordnet-base", "usr/share/wordnet/data.*"):
            yield from (("wordnet", text) for text in formats.wordnet_examples(path))
    if language in ("de", "en"):
        for path in sources.path("trans-de-en", "usr/share/trans/de-en"):
            yield from (("ding", pair[language == "en"]) for pair in formats.ding_examples(path))
    yield from (("wesnoth", text) for text in _wesnoth(sources, language))
    with zipfile.ZipFile(sources.wheel("chatterbot-corpus")) as archive:
        yield from (("chatterbot", text) for text in formats.chatterbot(archive, _CHATTERBOT[language]))
    with zipfile.ZipFile(sources.wheel("home-assistant-intents")) as archive:
        _, answers = formats.home_assistant(archive, _HOME_ASSISTANT.get(language, language))
        yield from (("home-assistant", text) for text in answers)


def _wesnoth(sources: Sources, language: str) -> Iterator[str]:
    """Dialogue of the campaigns. The English text is the key of every catalogue."""
    locale = _WESNOTH.get(language, "de")
    for path in sources.path("wesnoth-*", f"usr/share/games/wesnoth/*/locale/{locale}/LC_MESSAGES/*.mo"):
        for original, translation in formats.gettext_catalogue(path):
            yield original if language == "en" else translation
