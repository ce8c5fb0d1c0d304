"""Characters as transcripts have them: composed (NFC), and no invisible ones. Lists of texts inside a cell."""

import ast
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


def listed(text: str) -> list[str] | None:
    """The texts of a list as JSON, Python or pandas write it into a cell (`["a", "b"]`, `['a']`, `[]`), or None."""
    if not re.fullmatch(r"\[.*\]", text, re.DOTALL) or re.search(r"['\"]\s+['\"]", text):  # ['a' 'b'] would be "ab"
        return None
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: deep nesting
        return None
    return items if isinstance(items, list) and all(isinstance(item, str) for item in items) else None
