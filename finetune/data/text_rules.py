"""Applies the rules of `data.text` to transcripts, and counts what they change."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from finetune.core.data_config import TextSection
from finetune.core.languages import row_language
from finetune.data.cells import clean_text
from finetune.data.manifest import Utterance
from finetune.data.number_words import is_supported, numbers_to_words
from finetune.data.tags import strip_tags
from finetune.metrics.scripts import has_other_script, is_unspaced

EXAMPLES = 3
# Signs that are spoken, or that are part of a word or number in some position.
SPOKEN_SIGNS = frozenset("%‰&@#§*/\\_~·־׳״")
_SIGN = re.compile(r"[^\w\s]|_")
_NUMBER = re.compile(r"[.,]?\d")
DOTLESS = ("tr", "az")  # languages in which I is the capital of \u0131
HYPHENS = "-\u2010\u2011"


@dataclass(frozen=True)
class TextChange:
    """A transcript before and after one rule."""

    id: str
    before: str
    after: str


@dataclass(frozen=True)
class RuleUse:
    """How often a rule changed a row, with the first examples."""

    rule: str
    rows: int
    examples: list[TextChange]


@dataclass(frozen=True)
class NumberLeft:
    """Tokens with digits that `data.text.numbers: words` leaves, with the reason and the first examples."""

    reason: str
    rows: int
    examples: list[TextChange]


@dataclass(frozen=True)
class TextEvent:
    """What one rule did to one transcript.

    `what`: "changed" (`name` is the rule), "left" (`name` is the reason, `after` has the numbers) or "default
    language".
    """

    what: str
    name: str = ""
    before: str = ""
    after: str = ""


@dataclass
class _Count:
    rows: int = 0
    examples: list[TextChange] = field(default_factory=list)

    def add(self, utterance_id: str, before: str, after: str) -> None:
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(TextChange(utterance_id, before, after))


class TextRules:
    """The rules of one split; call it with each utterance.

    `apply` changes an utterance and counts nothing; `record` counts what it did.
    """

    def __init__(self, settings: TextSection) -> None:
        self.settings = settings
        self._uses: dict[str, _Count] = {}
        self._left: dict[str, _Count] = {}
        self.defaulted = 0  # rows with numbers that have no language, and are read in data.text.language
        rules: dict[str, tuple[bool, Callable[[str, Utterance, list[TextEvent]], str]]] = {
            "tags: strip": (settings.tags == "strip", lambda text, *_: strip_tags(text, settings.extra_tags)),
            "numbers: words": (settings.numbers == "words", self._numbers),
            "punctuation: strip": (settings.punctuation == "strip", lambda text, *_: strip_punctuation(text)),
            "case: lower": (settings.case == "lower", self._lower_case),
        }
        self._rules = {name: rule for name, (is_on, rule) in rules.items() if is_on}

    def __call__(self, utterance: Utterance) -> Utterance:
        """The utterance with the changed transcript. Keywords and terms are not changed."""
        changed, events = self.apply(utterance)
        self.record(utterance.id, events)
        return changed

    def apply(self, utterance: Utterance) -> tuple[Utterance, list[TextEvent]]:
        """The utterance with the changed transcript, and what the rules did."""
        text, events = utterance.text, list[TextEvent]()
        for name, rule in self._rules.items():
            changed = rule(text, utterance, events)
            if changed != text and (changed := clean_text(changed)) != text:
                events.append(TextEvent("changed", name, text, changed))
            text = changed
        return (utterance if text == utterance.text else replace(utterance, text=text)), events

    def record(self, utterance_id: str, events: Iterable[TextEvent]) -> None:
        """Counts what the rules did to an utterance."""
        for event in events:
            if event.what == "default language":
                self.defaulted += 1
            else:
                counts = self._uses if event.what == "changed" else self._left
                counts.setdefault(event.name, _Count()).add(utterance_id, event.before, event.after)

    @property
    def uses(self) -> list[RuleUse]:
        """Every rule that is on, in the order of application."""
        counts = ((name, self._uses.get(name, _Count())) for name in self._rules)
        return [RuleUse(name, count.rows, count.examples) for name, count in counts]

    @property
    def numbers_left(self) -> list[NumberLeft]:
        return [NumberLeft(reason, count.rows, count.examples) for reason, count in self._left.items()]

    def _numbers(self, text: str, utterance: Utterance, events: list[TextEvent]) -> str:
        stated = utterance.text_language
        code, reason = row_language(stated or self.settings.language), "no usual reading"
        if not code:
            reason = f"unknown language {stated!r}"
        elif has_other_script(text, code):
            reason, code = f"the text is not written in the script of {code!r}", ""
        elif not is_supported(code):
            reason = f"num2words has no language {code!r}"
        spelled = numbers_to_words(text, code)
        if spelled.left:
            events.append(TextEvent("left", reason, text, ", ".join(spelled.left)))
        if not stated and spelled.text != text:
            events.append(TextEvent("default language"))
        return spelled.text

    def _lower_case(self, text: str, utterance: Utterance, _: list[TextEvent]) -> str:
        return lower_case(text, row_language(utterance.text_language or self.settings.language))


def lower_case(text: str, code: str) -> str:
    """The text in lower case. In Turkish and Azerbaijani I becomes \u0131; \u0130 becomes i without a combining dot."""
    if code in DOTLESS:
        text = text.replace("I", "\u0131")
    return text.replace("\u0130", "i").lower()


def strip_punctuation(text: str) -> str:
    """The text without punctuation; a sign between two words becomes a space.

    Apostrophes and hyphens inside words stay, as do the signs of numbers (2.5, 10:15, -5) and signs that are spoken
    (%, &, @, $). The dots of initials are removed without a space (U.S. becomes US).
    """
    if not _SIGN.search(text):
        return " ".join(text.split())
    text = re.sub(r"(?<!\w)['‘’](?=\w)(.*?)(?<=\w)['’](?!\w)", r"\1", text)  # quoted words
    text = re.sub(r"(?<![^\W\d_])((?:[^\W\d_]\.){2,})", lambda match: match[1].replace(".", "") + " ", text)
    return " ".join(_SIGN.sub(_kept, text).split())


def _kept(match: re.Match[str]) -> str:
    """The sign, or a space if it is punctuation at its position."""
    char, (before, after) = match[0], _neighbours(match)
    category = unicodedata.category(char)
    if category[0] != "P":
        return char
    if char in ".,:" and before.isdigit() and after.isdigit():
        return char
    if char in ".," and after.isdigit() and (not before.strip() or before in "-\u2212+$\u20ac\u00a3"):
        return char  # .5 is not 5
    inside = before.isalnum() and after.isalnum()
    if char in "()[]" and before.isalpha() and after.isalpha():
        return ""  # th[e]
    if category == "Pd":
        in_word = inside and (char in HYPHENS or (before.isdigit() and after.isdigit()))
        return char if in_word or (_NUMBER.match(match.string, match.end()) and not before.isalnum()) else " "
    if inside and is_unspaced(before + after):
        return char if char == "・" else ""  # the sign between the words of a name in katakana
    if char in "'’ʼ":
        return char if before.isalnum() or after.isalnum() else " "
    return char if char in SPOKEN_SIGNS else " "


def _neighbours(match: re.Match[str]) -> tuple[str, str]:
    start, end = match.span()
    return match.string[start - 1 : start], match.string[end : end + 1]
