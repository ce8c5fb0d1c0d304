"""Text as a terminal may show it: transcripts and ids come from anywhere, and could hold commands to it."""

import logging
import unicodedata

HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (marks of direction), half surrogates, line separators
JOINERS = "\u200c\u200d"  # letters of Persian and Hindi need them


def visible(text: str) -> str:
    """`text` with every character that acts instead of standing there as its escape, such as `\\x1b`; lines stay."""
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in HARMFUL and char not in "\n\t" + JOINERS else char
        for char in text
    )


class VisibleFormatter(logging.Formatter):
    """Log lines through `visible`."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
