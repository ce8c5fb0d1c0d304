"""What the rows of a split state, in one pass: durations, lengths of texts, speakers, and a sample of clips."""

import heapq
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import soundfile

from finetune.core.data_config import DataSection
from finetune.core.errors import DataError
from finetune.data.audio_file import open_audio
from finetune.data.byte_range import is_fetched, is_url
from finetune.data.cells import cell_channel, cell_keywords, cell_seconds, cell_speaker, cell_text, clean_text
from finetune.data.corpora import preview_rows
from finetune.data.corpus import Corpus
from finetune.data.corpus_entries import preview_entry, use_numbers, with_number
from finetune.data.manifest import KEYS, Utterance
from finetune.data.row import Row
from finetune.data.row_checks import prompt_columns, stated_weight
from finetune.data.text_rules import TextRules

MAX_SPEAKERS = 100_000

Visit = Callable[[Row], object]


@dataclass(frozen=True)
class Limits:
    """Up to which size a check is exact, and what it keeps of a larger split.

    Attributes:
        clips: rows of a split up to which every clip is kept and each check is exact.
        sample: clips of a larger split, at equal distances.
        largest: clips of a larger split with the most seconds and characters.
        headers: files of a larger split whose headers are read; the others get the mean duration.
        remote_headers: the same for files on other machines, in a split of any size.
        exact: clips of all epochs up to which the plan of the steps is exact.
        planned: rows of an epoch that an estimate plans, at equal distances.
    """

    clips: int = 20_000
    sample: int = 2_000
    largest: int = 200
    headers: int = 2_000
    remote_headers: int = 50
    exact: int = 20_000
    planned: int = 100_000


LIMITS = Limits()


@dataclass
class SplitFacts:
    """The rows of a split.

    Attributes:
        split: its name.
        rows: number of rows.
        durations: seconds of each row, NaN if not known; `characters`, the length of its text; `weights`, how often it
            occurs in an epoch.
        complete: whether `clips` has all clips, and `durations` all durations that headers state.
        clips: the clips that `prepare` will probably keep; of a large split, a sample.
        longest: of a large split, the longest clip, then those with the most seconds and characters.
        speakers: clips of each speaker, up to MAX_SPEAKERS.
        unknown_speakers: rows without a speaker.
        stated: rows whose duration is in a column.
    """

    split: str
    rows: int = 0
    complete: bool = True
    durations: "array[float]" = field(default_factory=lambda: array("d"))
    characters: "array[int]" = field(default_factory=lambda: array("l"))
    weights: "array[float]" = field(default_factory=lambda: array("d"))
    clips: list[Utterance] = field(default_factory=list)
    longest: list[Utterance] = field(default_factory=list)
    speakers: Counter[str] = field(default_factory=Counter)
    unknown_speakers: int = 0
    stated: int = 0


def open_split(
    data: DataSection, split: str, open_corpus: Callable[..., Corpus | None] = preview_rows
) -> list[Corpus] | None:
    """The corpora of a split; None if one of them is opened only by `prepare`.

    Args:
        data: the section of the recipe.
        split: name of the split.
        open_corpus: opens a corpus by its name.

    Raises:
        DataError: a corpus cannot be read.
    """
    corpora, entries = [], getattr(data, split)
    for entry, number in zip(entries, use_numbers(entries), strict=True):
        if (corpus := preview_entry(entry, open_corpus)) is None:
            return None
        corpora.append(with_number(corpus, number))
    return corpora


def read_facts(
    data: DataSection, split: str, corpora: list[Corpus], visitors: Sequence[Visit] = (), limits: Limits = LIMITS
) -> SplitFacts:
    """Reads every row of a split once.

    Args:
        data: the section of the recipe.
        split: name of the split.
        corpora: from `open_split`.
        visitors: are called with each row.
        limits: what is kept.
    """
    rows = sum(map(len, corpora))
    facts = SplitFacts(split, rows, rows <= limits.clips)
    rules, distance = TextRules(data.text), 1 if facts.complete else max(1, rows // limits.sample)
    spacing = 1 if facts.complete else math.ceil(rows / limits.headers), max(1, math.ceil(rows / limits.remote_headers))
    largest, longest = list[tuple[float, int, Utterance]](), None
    for number, (row, seconds) in enumerate(_with_seconds(corpora, spacing, facts)):
        for visit in visitors:
            visit(row)
        seconds = math.nan if row.fault else seconds  # no clip
        text = row.values.get("text")
        length = len(text) if isinstance(text, str) else len(cell_text(text))
        facts.durations.append(seconds)
        facts.characters.append(length)
        facts.weights.append(stated_weight(row) or 1.0)
        _count_speaker(facts, row)
        if math.isnan(seconds) or not data.min_duration <= seconds <= data.max_duration:
            continue
        size = seconds + length / 10  # ten characters need about as many positions as a second
        is_large = not facts.complete and (len(largest) < limits.largest or size > largest[0][0])
        is_longest = not facts.complete and (longest is None or seconds > longest.duration)
        if number % distance and not (is_large or is_longest):
            continue
        clip = rules(stated_utterance(row, seconds, f"{split}-{number + 1} ({row.where})"))
        if is_large:
            (heapq.heappush if len(largest) < limits.largest else heapq.heapreplace)(largest, (size, number, clip))
        if is_longest:
            longest = clip
        if number % distance == 0:
            facts.clips.append(clip)
    facts.longest = [longest] if longest else []
    facts.longest += [clip for _, _, clip in sorted(largest, reverse=True, key=lambda item: item[:2])]
    _fill_unknown(facts, data)
    return facts


def stated_utterance(row: Row, seconds: float, default_id: str) -> Utterance:
    """The utterance of a row as it is stated; a row without an id gets `default_id`."""
    values = row.values
    try:
        channel = cell_channel(values.get("channel"))
    except ValueError:
        channel = None
    return Utterance(
        id=cell_text(values.get("id")) or default_id,
        audio_filepath=cell_text(values.get("audio_filepath")),
        duration=seconds,
        text=clean_text(values.get("text")),
        offset=cell_seconds(values.get("offset")) or 0.0,
        language=cell_text(values.get("language")),
        speaker=cell_speaker(values.get("speaker")),
        keywords=tuple(cell_keywords(values.get("keywords"))),
        extra={key: value for key, value in values.items() if key not in KEYS},
        channel=channel,
        **prompt_columns(row),
        sampling_weight=stated_weight(row) or 1.0,
    )


def _with_seconds(
    corpora: Iterable[Corpus], spacing: tuple[int, int], facts: SplitFacts
) -> Iterator[tuple[Row, float]]:
    """Each row with its seconds: from its columns, or at distances from the header of its file.

    Args:
        corpora: the corpora of a split.
        spacing: distance of the rows whose header is read: of files here, and on other machines.
        facts: counts the rows that state their duration.
    """
    number = 0
    for corpus in corpora:
        for row in corpus:
            value = row.values.get("duration")
            seconds = value if type(value) is float else cell_seconds(value) or 0.0
            if seconds > 0:
                facts.stated += 1
            elif number % spacing[is_url(cell_text(row.values.get("audio_filepath")))] == 0:
                seconds = _from_header(row)
            else:
                facts.complete = False
            yield row, seconds if seconds > 0 else math.nan
            number += 1


def _from_header(row: Row) -> float:
    """Seconds to the end of the file; NaN if they cannot be read."""
    path = cell_text(row.values.get("audio_filepath"))
    try:
        if is_fetched(path):
            with open_audio(path) as file:
                seconds = file.frames / file.samplerate
        elif not os.path.isfile(path):  # to open a pipe waits for its writer
            return math.nan
        else:
            seconds = float(soundfile.info(path).duration)
    except (OSError, RuntimeError, ValueError, TypeError, DataError):
        return math.nan
    rest = seconds - (cell_seconds(row.values.get("offset")) or 0.0)
    return rest if rest > 0 else math.nan


def _count_speaker(facts: SplitFacts, row: Row) -> None:
    if not (name := cell_speaker(row.values.get("speaker"))):
        facts.unknown_speakers += 1
    elif name in facts.speakers or len(facts.speakers) < MAX_SPEAKERS:
        facts.speakers[name] += 1


def _fill_unknown(facts: SplitFacts, data: DataSection) -> None:
    """Gives the rows of a large split whose header was not read the mean duration of the others."""
    if facts.complete:
        return
    known = [seconds for seconds in facts.durations if seconds > 0]
    mean = math.fsum(known) / len(known) if known else math.nan
    if data.min_duration <= mean <= data.max_duration:
        facts.durations = array("d", (seconds if seconds > 0 else mean for seconds in facts.durations))
