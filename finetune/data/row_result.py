"""Everything about a row that does not depend on other rows: its utterance or the reason to drop it, and warnings.

Worker processes make these results in blocks; the text form of a block is what they send and what `prepare` keeps on
disk until it has finished.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.core.data_config import TextSection
from finetune.data.cells import cell_channel, cell_number, cell_text
from finetune.data.kept_rows import comparison_hash
from finetune.data.manifest import Utterance, id_of_place
from finetune.data.problems import Finding
from finetune.data.row import Row
from finetune.data.row_audio import Inspect, inspect_row, time_warnings
from finetune.data.row_checks import (
    Wordless,
    check_length,
    check_prompt,
    check_text,
    mix_warning,
    text_warnings,
    to_utterance,
)
from finetune.data.style import Features, text_features
from finetune.data.text_rules import TextEvent, TextRules


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """The limits and rules for the rows of a split; see `data` in docs/recipes.md.

    `special_tokens` are the tokenizer's control tokens, such as `<|audio|>`: in a text they act as commands, in any
    case, and with spaces inside. `wordless` says which transcripts without words stay.
    """

    min_duration: float
    max_duration: float
    max_chars_per_second: float
    special_tokens: tuple[str, ...]
    wordless: Wordless
    text: TextSection


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """What is known about a row before it is compared with the others.

    Attributes:
        where: the position of the row.
        stated_id: its id, "" if it has none.
        place: the id that it gets without one, unless that is used already.
        finding: the reason to drop it.
        utterance: the utterance, with the id "" if none is stated; None if the row is dropped.
        events: what the rules of `data.text` did, also in a row that is dropped after them.
        warnings: warnings.
        has_speech: whether a copy of the audio in another row is worth a warning.
        mix: a warning for the first row of its file.
        features: the features of the transcript.
        sentence: `comparison_hash` of the transcript.
    """

    where: str
    stated_id: str
    place: str
    finding: Finding | None = None
    utterance: Utterance | None = None
    events: tuple[TextEvent, ...] = ()
    warnings: tuple[Finding, ...] = ()
    has_speech: bool = False
    mix: Finding | None = None
    features: Features
    sentence: str = ""


def stated_id(row: Row) -> str:
    """The id in a row; "" if it has none."""
    return " ".join(cell_text(row.values.get("id")).split())


def place_id(row: Row) -> str:
    """An id from the file, offset and channel of a row."""
    path, offset = cell_text(row.values.get("audio_filepath")), cell_number(row.values.get("offset"))
    try:
        channel = cell_channel(row.values.get("channel"))
    except ValueError:
        channel = None
    return id_of_place(path or "row", offset or 0.0, channel)


def check_row(row: Row, settings: RowSettings, rules: TextRules, inspect: Inspect) -> RowResult:
    """Decodes the audio of a row and checks everything that depends on this row only. A bad row raises no error."""
    result = RowResult(where=row.where, stated_id=stated_id(row), place=place_id(row), features=[])
    audio = inspect_row(row, settings.max_duration, inspect)
    if isinstance(audio, Finding):
        return replace(result, finding=audio)
    original = to_utterance(row, result.stated_id, audio)
    utterance, events = rules.apply(original)
    result = replace(result, events=tuple(events))
    finding = (
        check_prompt(row, utterance)
        or check_text(row, original, utterance, settings.special_tokens, settings.wordless)
        or check_length(utterance, settings.min_duration, settings.max_duration, settings.max_chars_per_second)
    )
    if finding:
        return replace(result, finding=finding)
    return replace(
        result,
        utterance=utterance,
        warnings=(*time_warnings(row, audio), *text_warnings(row, original, utterance, audio.info)),
        has_speech=bool(utterance.text) and not audio.info.silent,
        mix=mix_warning(utterance, audio.info),
        features=text_features(utterance, rules.settings.extra_tags),
        sentence=comparison_hash(utterance.text),
    )


def encode_results(results: Sequence[RowResult]) -> bytes:
    """The results as compressed JSON."""
    rows = [{key: value for key, value in vars(result).items() if value} for result in results]
    return zlib.compress(json.dumps(rows, default=vars).encode(), 1)


def decode_results(content: bytes) -> list[RowResult]:
    """The results of `encode_results`.

    Raises:
        ValueError, TypeError, KeyError, zlib.error: the content is damaged.
    """
    return [_result(row) for row in json.loads(zlib.decompress(content))]


def _result(row: dict[str, Any]) -> RowResult:
    item, finding, mix = row.get("utterance"), row.get("finding"), row.get("mix")
    return RowResult(
        where=row.get("where", ""),
        stated_id=row.get("stated_id", ""),
        place=row.get("place", ""),
        finding=Finding(**finding) if finding else None,
        utterance=Utterance(**item | {"keywords": tuple(item["keywords"])}) if item else None,
        events=tuple(TextEvent(**event) for event in row.get("events", ())),
        warnings=tuple(Finding(**warning) for warning in row.get("warnings", ())),
        has_speech=row.get("has_speech", False),
        mix=Finding(**mix) if mix else None,
        features=[(name, parts) for name, parts in row.get("features", ())],
        sentence=row.get("sentence", ""),
    )
