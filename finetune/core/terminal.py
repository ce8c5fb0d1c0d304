"""Escapes text for a terminal, because transcripts and ids can contain control sequences."""

import logging
import unicodedata

HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (text direction), surrogates, line and paragraph separators
JOINERS = "\u200c\u200d"  # zero-width joiners, which Persian and Hindi need


def visible(text: str) -> str:
    """Replaces control characters by escapes such as `\\x1b`; line breaks and tabs stay."""
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in HARMFUL and char not in "\n\t" + JOINERS else char
        for char in text
    )


class VisibleFormatter(logging.Formatter):
    """Formats log messages through `visible`."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
