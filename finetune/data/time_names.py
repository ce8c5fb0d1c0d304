"""Finds the columns whose names have words for the start, the end or the duration of a segment, and their units."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
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
    "segment seg interval span range region bounds timestamp timestamps time times timecode"
)  # such as "segment": [0.0, 1.7]
STAMPS = _set("timestamp timestamps time times timecode")  # of these, a single time can be the start of a segment
NEUTRAL = PAIRS | _set("ts tc t zeit temps clip utt utterance audio wav turn chunk cue subtitle at in of mm point")
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

    def is_stamp(self, value: object) -> bool:
        """Whether a value can be the start of a segment, by the name of the column."""
        return bool(STAMPS & {*words_of(self.path[-1])}) and cell_seconds(value) is not None

    def value(self, row: Row) -> object:
        """The value in a row; None if it is empty."""
        return self.value_in(row.values)

    def value_in(self, values: Mapping[str, object]) -> object:
        """The value in the values of a row; None if it is empty."""
        value: object = values
        for key in self.path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if no_number(value) else value


def words_of(name: str) -> list[str]:
    """The words of a column name in lower case without accents: `startTime`, `Start-Time` and `starttime` are equal."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word for token in re.findall(r"[a-z0-9]+", without_accents(name)) for word in _split(token)]


def without_accents(name: str) -> str:
    """A name in lower case without accents; the signs of kana stay."""
    marks = ("\u3099", "\u309a")
    parts = (c for c in unicodedata.normalize("NFKD", name) if c in marks or not unicodedata.combining(c))
    return unicodedata.normalize("NFC", "".join(parts)).lower()


def _split(token: str) -> list[str]:
    """`starttimems` as start, time, ms; any other token as it is."""
    if token in ("tstart", "tend", "stime", "etime"):
        return ["t", {"tstart": "start", "stime": "start"}.get(token, "end")]
    known = "|".join(sorted((word for word in VOCABULARY if len(word) > 1), key=len, reverse=True))
    parts = token in VOCABULARY or re.fullmatch(rf"(start|begin|end|offset|duration|onset)((?:{known})+)", token)
    if parts is True or parts is None:
        return [token]
    return [parts[1], *_split(parts[2])] if parts[2] in VOCABULARY else [parts[1], *re.findall(known, parts[2])]


class TimeNames:
    """Collects the columns whose names have a word for a start, an end or a duration, and that have values."""

    def __init__(self) -> None:
        self._columns = dict[tuple[str, ...], TimeColumn | None]()
        self._empty = list[TimeColumn]()  # without a value so far

    def add(self, values: Mapping[str, object], has_new_key: bool) -> None:
        """Adds a row.

        Args:
            values: its values.
            has_new_key: it can have a column, or a key of an object, that no earlier row has.
        """
        if has_new_key:
            for path in _paths(values):
                if path not in self._columns:
                    self._columns[path] = column = _column(path, set(words_of(" ".join(path))))
                    self._empty += [column] if column else []
        for column in [*self._empty]:
            value = column.value_in(values)
            if value is not None and (column.role != "pair" or is_pair(value) or column.is_stamp(value)):
                self._empty.remove(column)

    def named(self) -> list[TimeColumn]:
        """The columns by their names, with or without a value, in the order of the rows."""
        return [column for column in self._columns.values() if column]

    def with_values(self) -> list[TimeColumn]:
        """The columns with a value, in the order of the rows."""
        return [column for column in self.named() if column not in self._empty]


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


def is_pair(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(cell_seconds(item) is not None for item in value)
    parts = re.split(r"\s*(?:-+>|-|–|,|;|\.\.+|\s)\s*", cell_text(value).strip("[]() "))
    times = [cell_seconds(part) for part in parts] if all(parts) else []
    return len(times) == 2 and times[0] is not None and times[1] is not None and times[0] < times[1]
