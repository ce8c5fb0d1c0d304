"""Characters as transcripts have them: composed (NFC), and no invisible ones."""

import re
import unicodedata

# Soft hyphen, zero-width space, byte-order mark, direction marks, invisible operators, the vowel separator of Mongolian
# and marks of annotations: invisible and silent, but separate tokens.
INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\ufeff\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufff9-\ufffb]"
)


def composed(text: str) -> str:
    """A text in NFC without invisible characters."""
    return INVISIBLE.sub("", unicodedata.normalize("NFC", text))
