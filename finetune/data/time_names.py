"""Finds the columns whose names have words for the start, the end or the duration of a segment, and their units."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetune.data.cells import cell_seconds, cell_text, no_number
from finetune.data.row import Row


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


START = _set("start starts begin begins beginning beg onset from tmin xmin anfang beginn von debut inicio")
END = _set("end ends ending stop to until till tmax xmax ende bis fin")
DURATION = _set("duration dur length len seconds dauer lange laenge duree duracion durata")
WEAK = _set("from to von bis fin stop until till length len seconds lange laenge")  # these have other meanings too
UNITS = {
    1.0: _set("s sec secs second seconds sekunden ss hh"),  # hh and ss: a format of clock times, as ELAN exports it
    1e-3: _set("ms msec msecs millis millisec millisecs millisecond milliseconds"),
    1e-6: _set("us usec micros microsecond microseconds"),
    1e-9: _set("ns nanos nanosecond nanoseconds"),
    60.0: _set("minute minutes"),
    3600.0: _set("hour hours"),
}
UNIT_OF = {word: unit for unit, words in UNITS.items() for word in words}
COUNTS = _set("frame frames sample samples")
PAIRS = _set(
    "segment seg interval span range region bounds timestamp timestamps time times"
)  # such as "segment": [0.0, 1.7]
NEUTRAL = PAIRS | _set(
    "timecode ts tc t zeit temps clip utt utterance audio wav turn chunk cue subtitle at in of mm point"
)
EDGES = {"in": "start", "out": "end", "t0": "start", "t1": "end"}  # cue_in and cue_out
MAX_DEPTH = 4  # of objects in objects
OF_THE_FILE = _set("file recording total")  # a duration with one of these is not that of a segment
# In a name with one of these words, a start or end is not a time: char_start, start_date, end_page.
NOT_TIMES = _set(
    "char chars character characters word words token tokens page pages line lines year date day month chapter verse "
    "byte bytes row text id utc timezone tz phone"
)
VOCABULARY = START | END | DURATION | UNIT_OF.keys() | NEUTRAL | COUNTS | {"offset", "tstart", "tend"}


@dataclass(frozen=True)
class TimeColumn:
    """A column with times: the keys that lead to its values, its role, seconds of one unit, other words of its name."""

    path: tuple[str, ...]
    role: str  # start, end, duration, both (such as start_end) or pair
    unit: float = 1.0
    weak: bool = False
    count: bool = False
    other_words: frozenset[str] = frozenset()
    is_offset: bool = False
    is_position: bool = False  # probably in a text: word_start, line_end

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def value(self, row: Row) -> object:
        """The value in a row; None if it is empty."""
        value: object = row.values
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if no_number(value) else value

    def values(self, rows: Iterable[Row]) -> list[object]:
        return [value for row in rows if (value := self.value(row)) is not None]


def words_of(name: str) -> list[str]:
    """The words of a column name in lower case without accents: `startTime`, `Start-Time` and `starttime` are equal."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).lower()
    return [word for token in re.findall(r"[a-z0-9]+", plain) for word in _split(token)]


def _split(token: str) -> list[str]:
    """`starttimems` as start, time, ms; any other token as it is."""
    if token in ("tstart", "tend", "stime", "etime"):
        return ["t", {"tstart": "start", "stime": "start"}.get(token, "end")]
    known = "|".join(sorted((word for word in VOCABULARY if len(word) > 1), key=len, reverse=True))
    parts = token in VOCABULARY or re.fullmatch(rf"(start|begin|end|offset|duration|onset)((?:{known})+)", token)
    if parts is True or parts is None:
        return [token]
    return [parts[1], *_split(parts[2])] if parts[2] in VOCABULARY else [parts[1], *re.findall(known, parts[2])]


def time_columns(rows: Sequence[Row]) -> list[TimeColumn]:
    """The columns whose names have a word for a start, an end or a duration, in the order of the first rows."""
    paths = dict.fromkeys(path for row in rows for path in _paths(row.values))
    found = []
    for path in paths:
        words = set(words_of(" ".join(path)))
        column = _column(path, words)
        if column and column.role == "pair" and not any(map(_is_pair, column.values(rows))):
            continue
        found += [column] if column else []
    return found


def _paths(values: Mapping[str, object], depth: int = 1) -> Iterator[tuple[str, ...]]:
    """The keys that lead to each value, also to those inside objects."""
    for name, value in values.items():
        if isinstance(value, dict) and value and depth < MAX_DEPTH and not value.keys() & {"bytes", "array"}:
            yield from ((name, *inner) for inner in _paths({str(key): item for key, item in value.items()}, depth + 1))
        else:
            yield (name,)


def _column(path: tuple[str, ...], words: set[str]) -> TimeColumn | None:
    """The role and unit of a column by the words of its name; None if it has no role."""
    is_offset = "offset" in words and not words & (START | END)
    roles = [
        role
        for role, known in (("start", START), ("end", END), ("duration", DURATION - {"seconds"}))
        if words & known or (role == "start" and is_offset)
    ]
    if not roles and "seconds" in words and not words - NEUTRAL - {"seconds"}:
        roles = ["duration"]
    if not roles and len(edges := [word for word in words if word in EDGES]) == 1 and not words - NEUTRAL - {*EDGES}:
        return TimeColumn(path, EDGES[edges[0]], other_words=frozenset({"edge"}), is_position=True)
    if not roles:
        return TimeColumn(path, "pair") if words & PAIRS and not words - NEUTRAL else None
    if words & NOT_TIMES:
        return TimeColumn(path, roles[0], other_words=frozenset(words - VOCABULARY), is_position=True)
    units = {UNIT_OF[word] for word in words & UNIT_OF.keys()}
    return TimeColumn(
        path,
        roles[0] if len(roles) == 1 else "both",
        1.0 if 1.0 in units or not units else units.pop(),
        bool(words & WEAK) and not words & (START | END | DURATION) - WEAK and not is_offset,
        bool(words & COUNTS),
        frozenset(words - VOCABULARY),
        is_offset,
    )


def _is_pair(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(cell_seconds(item) is not None for item in value)
    parts = re.split(r"\s*(?:-+>|-|–|,|;|\.\.+|\s)\s*", cell_text(value).strip("[]() "))
    times = [cell_seconds(part) for part in parts] if all(parts) else []
    return len(times) == 2 and times[0] is not None and times[1] is not None and times[0] < times[1]
