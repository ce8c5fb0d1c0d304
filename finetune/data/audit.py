"""Checks every row of a corpus and its audio; keeps the usable rows and reports every problem.

Workers check blocks of rows (`row_blocks`). This module then compares the rows with each other, one by one in their
order: ids, copies of audio, the first row of each file. All problems are collected before any is reported, so that a
user can fix a corpus in one pass.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from finetune.core.data_config import TextSection
from finetune.core.errors import DataError
from finetune.core.hash_index import HashIndex, text_key
from finetune.core.worker_pool import WorkerPool, available_cores
from finetune.data.manifest import PROMPT_COLUMNS, Utterance, numbered_id
from finetune.data.problems import Finding, Problem, ProblemSummary
from finetune.data.row import Row
from finetune.data.row_audio import stated_audio
from finetune.data.row_blocks import BlockChecker, RowBlocks, uses_processes
from finetune.data.row_checks import Wordless, to_utterance
from finetune.data.row_result import RowResult, RowSettings, place_id, stated_id
from finetune.data.style import StyleCounter
from finetune.data.text_rules import TextRules

STOP_AFTER = 100  # rows, see `RowComparison`


@dataclass(frozen=True)
class Audit:
    """The utterances to use and the problems: one Problem for each dropped row, any number of warnings."""

    kept: list[Utterance]
    dropped: list[Problem]
    warnings: list[Problem]


class AuditSink(Protocol):
    """Where the results of an audit go."""

    def keep(self, utterance: Utterance, sentence: str) -> None: ...
    def drop(self, problem: Problem) -> None: ...
    def warn(self, problem: Problem) -> None: ...
    def kept_item(self, index: int) -> Utterance:
        """The utterance of the `keep` call with this number, from 0."""
        ...


class RowComparison:
    """Compares the results of rows in their order, in about 100 bytes of memory for each row.

    Args:
        rows: all rows.
        rules: the rules of the recipe, which count what they did.
        sink: receives the utterances and problems.
        max_dropped: number of dropped rows that the caller accepts. If all rows so far, at least STOP_AFTER and more
            than this number, are dropped for the same reason, DataError is raised.
    """

    def __init__(self, rows: RowBlocks, rules: TextRules, sink: AuditSink, max_dropped: float) -> None:
        self._rows, self._rules, self._sink, self._max_dropped = rows, rules, sink, max_dropped
        self._ids, self._digests, self._mixed_files = HashIndex(), HashIndex(), HashIndex()
        self._used_ids = _UsedIds(self._ids, rows)
        self._numbers = dict[str, int]()  # of generated ids
        self.num_rows = self.num_kept = 0
        self.dropped, self.warnings, self.style = ProblemSummary(), ProblemSummary(), StyleCounter()

    def add_block(self, results: Sequence[RowResult]) -> None:
        """Compares the next rows with all rows before them. Raises DataError, see `max_dropped`."""
        kept = [result.utterance for result in results if result.utterance]
        self._ids.prefetch(text_key(result.stated_id) for result in results if result.stated_id)
        self._digests.prefetch(text_key(item.audio_digest) for item in kept)
        self._mixed_files.prefetch(
            text_key(result.utterance.audio_filepath) for result in results if result.mix and result.utterance
        )
        for result in results:
            self._stop_early()
            self._add(result)
            self.num_rows += 1

    def _add(self, result: RowResult) -> None:
        if result.stated_id and (first := self._ids.get(result.stated_id)) is not None:
            detail = f"{self._rows.where(first)} has the same id"
            self._drop(Problem("duplicate id", result.stated_id, result.where, detail))
            return
        utterance_id = result.stated_id or numbered_id(result.place, self._used_ids, self._numbers)
        self._ids.set_new(utterance_id, self.num_rows)
        self._rules.record(utterance_id, result.events)
        if result.utterance is None:
            assert result.finding is not None, "a row is kept or dropped"
            self._drop(Problem(result.finding.kind, utterance_id, result.where, result.finding.detail))
            return
        utterance = replace(result.utterance, id=utterance_id)
        self._sink.keep(utterance, result.sentence)
        self.style.add(utterance, result.features)
        copies, mixes = self._copy_warning(utterance, result), self._mix_warning(utterance, result)
        for warning in (*result.warnings, *copies, *mixes):
            problem = Problem(warning.kind, utterance_id, result.where, warning.detail)
            self.warnings.add(problem)
            self._sink.warn(problem)
        self.num_kept += 1

    def _drop(self, problem: Problem) -> None:
        self.dropped.add(problem)
        self._sink.drop(problem)

    def _copy_warning(self, utterance: Utterance, result: RowResult) -> Iterable[Finding]:
        """A warning if an earlier row has the same samples and the same task and prompt."""
        key = text_key(utterance.audio_digest)
        index = self._digests.get_key(key)
        if index is None:
            self._digests.set_new_key(key, self.num_kept)
        elif result.has_speech and prompt_of(first := self._sink.kept_item(index)) == prompt_of(utterance):
            text = utterance.text
            same = first.text == text
            texts = "the same transcript" if same else f"transcripts {first.text[:60]!r} and {text[:60]!r}"
            yield Finding("duplicate audio", f"same samples as {first.id!r}, {texts}")

    def _mix_warning(self, utterance: Utterance, result: RowResult) -> Iterable[Finding]:
        """One warning for each file of several channels that are mixed."""
        if result.mix and utterance.audio_filepath not in self._mixed_files:
            self._mixed_files.set_new(utterance.audio_filepath, 1)
            yield result.mix

    def _stop_early(self) -> None:
        number = self.dropped.total
        if self.num_kept or number < STOP_AFTER or number <= self._max_dropped:
            return
        if len(self.dropped.counts) == 1:
            raise DataError(
                f"the first {number} of {len(self._rows)} rows are all unusable for the same reason, so the others "
                f"were not read\n{self.dropped.text()}"
            )


def prompt_of(item: Utterance) -> tuple[str, ...]:
    """The values of PROMPT_COLUMNS of an utterance."""
    return tuple(getattr(item, name) for name in PROMPT_COLUMNS)


class _UsedIds:
    """The ids so far and the stated ids of all rows, which are read only if a row has no id."""

    def __init__(self, ids: HashIndex, rows: RowBlocks) -> None:
        self._ids, self._rows = ids, rows
        self._stated: HashIndex | None = None

    def __contains__(self, name: object) -> bool:
        if self._stated is None:
            self._stated = _stated_ids(self._rows)
        key = text_key(str(name))
        return self._ids.get_key(key) is not None or self._stated.get_key(key) is not None


def _stated_ids(rows: RowBlocks) -> HashIndex:
    index = HashIndex()
    for number in range(rows.num_blocks):
        keys = dict.fromkeys(text_key(name) for row in rows.block(number) if (name := stated_id(row)))
        index.prefetch(keys)
        for key in keys:
            if index.get_key(key) is None:
                index.set_new_key(key, 1)
    return index


def audit(
    rows: Sequence[Row],
    *,
    min_duration: float,
    max_duration: float,
    max_chars_per_second: float,
    special_tokens: Sequence[str],
    workers: int = 0,
    wordless: Wordless = "drop",
    text: TextSection = TextSection(),  # noqa: B008 (frozen)
    max_dropped: float = math.inf,
) -> Audit:
    """Checks every row of a corpus and returns the results in memory. A bad row never raises an error.

    A row with an `offset` is a segment of `duration` seconds, or ends with the file if it has no duration. A row
    without an `offset` is the whole file; its `duration` is compared with the audio. A small difference is corrected
    with a warning, a large one (see `row_audio`) drops the row.

    Args:
        rows: the rows from `read_corpus`.
        min_duration: seconds; shorter utterances are dropped.
        max_duration: seconds; longer utterances are dropped.
        max_chars_per_second: utterances with a higher rate are dropped, because the text belongs to other audio.
        special_tokens: see `RowSettings`.
        workers: number of threads or processes that decode audio; 0 means one for each core.
        wordless: which transcripts without words stay; every word that is recognized there is an error.
        text: rules that change the transcripts.
        max_dropped: see `RowComparison`, which raises DataError.
    """
    settings = RowSettings(
        min_duration=min_duration,
        max_duration=max_duration,
        max_chars_per_second=max_chars_per_second,
        special_tokens=tuple(special_tokens),
        wordless=wordless,
        text=text,
    )
    blocks, sink = RowBlocks([("", rows)]), _Lists()
    comparison = RowComparison(blocks, TextRules(text), sink, max_dropped)
    with WorkerPool(workers or available_cores(), uses_processes(len(rows))) as pool:
        for results in BlockChecker(blocks, settings, pool).results():
            comparison.add_block(results)
    return sink.audit


class _Lists:
    """Keeps the results of an audit in memory."""

    def __init__(self) -> None:
        self.audit = Audit([], [], [])

    def keep(self, utterance: Utterance, sentence: str) -> None:
        self.audit.kept.append(utterance)

    def drop(self, problem: Problem) -> None:
        self.audit.dropped.append(problem)

    def warn(self, problem: Problem) -> None:
        self.audit.warnings.append(problem)

    def kept_item(self, index: int) -> Utterance:
        return self.audit.kept[index]


def stated_utterances(rows: Sequence[Row], source: str) -> list[Utterance]:
    """The utterances of rows with a duration, as they are stated. No audio is read.

    Raises:
        DataError: two rows have the same id.
    """
    ids, utterances = {stated for row in rows if (stated := stated_id(row))}, dict[str, Utterance]()
    numbers = dict[str, int]()
    for row in rows:
        utterance_id = stated_id(row) or numbered_id(place_id(row), ids, numbers)
        ids.add(utterance_id)
        if utterance_id in utterances:
            raise DataError(f"{row.where}: the id {utterance_id!r} is used twice in {source}; make the ids unique")
        utterances[utterance_id] = to_utterance(row, utterance_id, stated_audio(row))
    return list(utterances.values())
