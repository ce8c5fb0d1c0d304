"""Compares the style of transcripts with that of the base model, which writes lower case words and nothing else.

Types of `manifests/style.json`; `scripts/write_schemas.py` writes their JSON schema to `docs/schemas/`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from finetune.core.files import read_json, write_json
from finetune.core.languages import SPEECH_LANGUAGES, TRANSLATION_TARGETS, row_language, suggested_language
from finetune.core.prompts import PUNCTUATED
from finetune.data.manifest import Utterance
from finetune.data.tags import find_tags, without_tags
from finetune.data.text_rules import EXAMPLES, NumberLeft, RuleUse, TextRules, strip_punctuation
from finetune.metrics.scripts import has_other_script, is_unspaced
from finetune.model.ctc import to_labels

BASE_STYLE = "the base model writes lower case words, numbers in words and no punctuation"
ESCAPE = re.compile(r"\\(?:[nrt]|u[0-9a-fA-F]{4})")  # of JSON or a program, which the export did not resolve
SHOWN = 70  # characters of a transcript in a line
MAX_VALUES = 20
# What each feature means, and what to do about it.
FEATURES = {
    "capitals": "data.text.case: lower converts them, text_style: punctuated asks for them (docs/tasks.md)",
    "punctuation": "data.text.punctuation: strip removes it, text_style: punctuated asks for it (docs/tasks.md)",
    "digits": "data.text.numbers: words writes numbers in words",
    "tags": "data.text.tags: strip removes annotations that are certain; name others in data.text.extra_tags",
    "escapes": "a backslash and a letter are no new line or tab, and the model learns to write them; correct the texts",
    "characters outside the CTC alphabet": "the CTC head cannot learn or write them; the language model can",
    "another script": "the text is not written in the script of its language; correct the text or the language",
    "unknown language": "use a code such as en or ja",
    "language not in the base": f"it transcribes {', '.join(SPEECH_LANGUAGES)}; train.goal: language teaches another",
}
RULES = {  # the rule of each feature
    "capitals": "case: lower",
    "punctuation": "punctuation: strip",
    "digits": "numbers: words",
    "tags": "tags: strip",
}
REMAINING = "the rule leaves them; correct the transcripts where they are wrong"
LISTED = ("tags", "escapes", "characters outside the CTC alphabet", "unknown language", "language not in the base")


@dataclass(frozen=True)
class StyleExample:
    """A transcript with a feature, and the part that shows it."""

    id: str
    text: str
    found: str


@dataclass(frozen=True)
class StyleFeature:
    """A feature of `FEATURES` with its number of rows, its most frequent values and its first examples.

    `values` has the number of rows of each tag, character or language; it is empty for the other features.
    """

    feature: str
    rows: int
    values: dict[str, int]
    examples: list[StyleExample]


@dataclass(frozen=True)
class SplitStyle:
    """The style of one split after the rules of `data.text`, and what the rules changed.

    Attributes:
        rows: number of transcripts.
        features: features of at least one transcript.
        rules: the rules that are on.
        numbers_left: numbers that `data.text.numbers: words` leaves, by reason.
        default_language: rows with converted numbers whose language is `data.text.language`.
    """

    rows: int
    features: list[StyleFeature]
    rules: list[RuleUse]
    numbers_left: list[NumberLeft]
    default_language: int


@dataclass(frozen=True, kw_only=True)
class StyleFile:
    """The content of `manifests/style.json`, by split."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    schema_version: Literal[1] = 1
    splits: dict[str, SplitStyle] = field(default_factory=dict)


Features = list[tuple[str, list[str]]]


class StyleCounter:
    """Counts the features of the transcripts of a split."""

    def __init__(self) -> None:
        self.rows, self._counts = 0, dict.fromkeys(FEATURES, 0)
        self._values: dict[str, Counter[str]] = {name: Counter() for name in FEATURES}
        self._examples: dict[str, list[StyleExample]] = {name: [] for name in FEATURES}

    def add(self, item: Utterance, features: Features) -> None:
        """Counts an utterance with its `text_features`."""
        self.rows += 1
        for name, parts in features:
            self._counts[name] += 1
            self._values[name].update(parts if name in LISTED else ())
            if len(self._examples[name]) < EXAMPLES:
                self._examples[name].append(StyleExample(item.id, item.text, " ".join(parts[:EXAMPLES])))

    def style(self, rules: TextRules) -> SplitStyle:
        """The style of all utterances, to which the rules were applied."""
        return SplitStyle(
            rows=self.rows,
            features=[
                StyleFeature(name, count, dict(self._values[name].most_common(MAX_VALUES)), self._examples[name])
                for name, count in self._counts.items()
                if count
            ],
            rules=rules.uses,
            numbers_left=rules.numbers_left,
            default_language=rules.defaulted,
        )


def split_style(utterances: Iterable[Utterance], rules: TextRules) -> SplitStyle:
    """The style of utterances.

    Args:
        utterances: utterances to which the rules were applied.
        rules: the rules of the split.
    """
    counter = StyleCounter()
    for item in utterances:
        counter.add(item, text_features(item, rules.settings.extra_tags))
    return counter.style(rules)


def format_style(split: str, style: SplitStyle, language: str) -> list[str]:
    """The lines about one split that `finetune check` and `finetune prepare` print.

    Args:
        split: name of the split.
        style: its style.
        language: `data.text.language`.
    """
    lines = list[str]()
    for use in style.rules:
        lines.append(f"{split}: data.text.{use.rule} changed {_count(use.rows)}")
        lines += [f"  {item.id}: {_short(item.before)} -> {_short(item.after)}" for item in use.examples]
    if style.default_language:
        lines.append(
            f"{split}: no language in {_count(style.default_language)} with numbers; the numbers were read in "
            f"data.text.language ({language})"
        )
    for left in style.numbers_left:
        lines.append(f"{split}: numbers stay in {_count(left.rows)}: {left.reason}")
        lines += [f"  {item.id}: {item.after} in {_short(item.before)}" for item in left.examples]
    for item in style.features:
        share = f"{item.rows} of {_count(style.rows)} ({100 * item.rows / style.rows:.3g} %)"
        is_on = any(use.rule == RULES.get(item.feature) for use in style.rules)
        lines.append(f"{split}: {item.feature} in {share}; {REMAINING if is_on else FEATURES[item.feature]}")
        if item.values:
            lines.append("  " + ", ".join(f"{value} {count}" for value, count in item.values.items()))
        lines += [f"  {example.id}: {example.found} in {_short(example.text)}" for example in item.examples]
    return lines


def write_style(path: Path, splits: dict[str, SplitStyle]) -> None:
    """Writes `style.json`."""
    write_json(path, TypeAdapter(StyleFile).dump_python(StyleFile(splits=splits), mode="json"))


def read_style(path: Path) -> StyleFile | None:
    """Reads `style.json`; None if it is missing or of another version."""
    try:
        return TypeAdapter(StyleFile).validate_python(read_json(path))
    except (OSError, ValueError, ValidationError):
        return None


def text_features(item: Utterance, extra_tags: Sequence[str]) -> Features:
    """The features of a transcript, each with the distinct parts that show it: all of LISTED, else the first ones."""
    return [
        (name, _distinct(parts, None if name in LISTED else EXAMPLES)) for name, parts in _features(item, extra_tags)
    ]


def _distinct(parts: Iterable[str], limit: int | None) -> list[str]:
    """The first distinct parts, at most `limit`."""
    distinct = dict[str, None]()
    for part in parts:
        distinct[part] = None
        if len(distinct) == limit:
            break
    return list(distinct)


def _features(item: Utterance, extra_tags: Sequence[str]) -> Iterable[tuple[str, Iterable[str]]]:
    """The features of a transcript, each with the parts that show it; capitals only if no prompt asks for them."""
    text, is_plain = item.text, item.text_style != PUNCTUATED
    tags = [tag.text for tag in find_tags(text, extra_tags)]
    spoken = without_tags(text, extra_tags) if tags else text
    if is_plain and spoken.lower() != spoken:
        yield "capitals", (word for word in spoken.split() if word.lower() != word)
    if is_plain and strip_punctuation(spoken) != " ".join(spoken.split()):
        yield "punctuation", (word for word in spoken.split() if strip_punctuation(word) != word)
    if is_plain and _has_digit(spoken):
        yield "digits", filter(_has_digit, spoken.split())
    if tags:
        yield "tags", tags
    if escapes := ESCAPE.findall(spoken):
        yield "escapes", escapes
    if not item.is_translation and to_labels(spoken)[1]:
        unknown = dict.fromkeys(char for char in spoken if to_labels(char)[1])
        yield "characters outside the CTC alphabet", [f"{char} (U+{ord(char):04X})" for char in unknown]
    yield from _language_features(item, spoken)


def _language_features(item: Utterance, spoken: str) -> Iterable[tuple[str, list[str]]]:
    names = ((item.language, SPEECH_LANGUAGES), (item.target_language, TRANSLATION_TARGETS))
    stated = [(name, row_language(name), languages) for name, languages in names if name]
    if unknown := [name for name, code, _ in stated if not code]:
        yield "unknown language", [_with_hint(name) for name in unknown]
    if other := [name for name, code, languages in stated if code and code not in languages]:
        yield "language not in the base", other
    if stated and _is_other_script(spoken, stated[-1][1]):
        yield "another script", [f"language {stated[-1][0]!r}"]


def _is_other_script(text: str, language: str) -> bool:
    """Whether a text is written in another script; Chinese and Japanese texts often have Latin names (NHK です)."""
    return has_other_script(text, language) and not (language in ("ja", "zh") and is_unspaced(text))


def _with_hint(language: str) -> str:
    hint = suggested_language(language)
    return repr(language) + (f" (did you mean {hint}?)" if hint else "")


def _has_digit(text: str) -> bool:
    """Whether a text has a digit or a sign such as ½; Chinese numerals are words."""
    return any(map(str.isnumeric, text)) and any(char.isnumeric() and not char.isalpha() for char in text)


def _count(rows: int) -> str:
    return f"{rows:,} transcript{'s' * (rows != 1)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...")
