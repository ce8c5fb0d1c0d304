"""The first pass over the rows of a corpus: its columns, the audio files that exist, and the facts for decisions."""

from array import array
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, islice

import numpy as np

from finetune.core.errors import DataError
from finetune.data.audio_file import count_channels
from finetune.data.audio_paths import ABSENT, UNKNOWN, AudioFinder, has_audio, is_searched
from finetune.data.cells import SIDES, cell_keywords, cell_text, no_number, shown
from finetune.data.channels import channel_number
from finetune.data.columns import column_keys, is_side, renamed, split_audio
from finetune.data.local_speakers import SpeakerNames
from finetune.data.manifest import ALWAYS_WRITTEN, VERSION_KEY, check_version
from finetune.data.raw_rows import BLOCK_ROWS, RawRows
from finetune.data.review_columns import ReviewColumns
from finetune.data.row import Row
from finetune.data.row_parts import unused_parts
from finetune.data.splits import SPLIT_COLUMNS, stated_split
from finetune.data.time_names import TimeNames

CACHED = 4096  # audio files that are not looked for again; rows of one file often follow each other
REPEATED = 0.1  # of the rows have the id of another clip: the column is no id
MAX_KEY_SETS = 10_000  # different sets of keys that are remembered
PERSONS = ("agent", "customer", "client", "caller", "callee", "operator", "inbound", "outbound")  # on an unknown side
CALL_SIDES = ("0", "1", *SIDES, *PERSONS)
MANIFEST_KEYS = frozenset({VERSION_KEY, *ALWAYS_WRITTEN})


class Columns:
    """The columns of the rows that were read so far.

    Attributes:
        names: in the order of the rows.
        lists: columns with a list in some row.
        are_manifest: whether each row has the keys of a manifest.
        sides: columns named `side`, `leg` or `channel_name` whose values are all sides of a call, or their persons.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.names, self.lists, self.are_manifest = dict[str, None](), set[str](), True
        self._key_sets = set[tuple[str, ...]]()
        self._sides, self._other_sides = set[str](), set[str]()
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> bool:
        """Adds the columns of a row. Returns whether it can have a key, also inside an object, that no other row has.

        Raises:
            DataError: the row is from a manifest of a later version.
        """
        values = row.values
        kinds, keys = set(map(type, values.values())), tuple(values)
        if list in kinds or tuple in kinds:
            self.lists.update(name for name, value in values.items() if isinstance(value, list | tuple))
        if VERSION_KEY in values:
            check_version(values, row.where)
        is_known = keys in self._key_sets
        if not is_known:
            self._sides.update(name for name in keys if is_side(str(name)))
        for name in self._sides & values.keys():
            if not no_number(values[name]) and cell_text(values[name]).casefold() not in CALL_SIDES:
                self._other_sides.add(name)
        if is_known:
            return dict in kinds
        if len(self._key_sets) >= MAX_KEY_SETS:
            self._key_sets.clear()
        self._key_sets.add(keys)
        self.names |= dict.fromkeys(keys)
        self.are_manifest = self.are_manifest and values.keys() >= MANIFEST_KEYS
        return True

    @property
    def sides(self) -> list[str]:
        return sorted(self._sides - self._other_sides)


class Survey:
    """Facts about the rows of a corpus.

    Args:
        source: the source, for messages.
        finder: finds the audio files.
        columns: the columns of the corpus, or those of its first rows.
        exact: the rows have the manifest's keys.
        text_required: a column of texts must be there.
        with_sides: a column of sides (`side`, `leg`, `channel_name`) is the channel if no other column is.

    Attributes:
        columns: the columns of the rows that were added.
        is_manifest: the rows have the manifest's keys, and their other columns have no meaning.
        keys: the key of each column that gets another name.
        first: the first row, with these keys.
        candidates: for each row the number of the candidate that is its audio, see `AudioFinder`.
        files: for each row a hash of its file and channel; none for a manifest.
        ids, clips: for each row with an id a hash of it, and one of id, file, channel and text; none for a manifest.
        num_missing: rows without an audio file.
        num_faults, first_fault: rows with a fault, and the number of the first.
        has_keywords: whether a row has keywords.
        splits: see `CorpusFacts`.
        speakers: the names of the speakers.
        reviews: the columns about rows that were skipped or rejected.
        parts: what to do with parts with times in one cell of a row; "" without any.
        tried: paths of the first name that were tried.
        times: the columns with times.
        has_channels, has_channel_0: whether a row has a number of a channel, and the number 0.

    Raises:
        DataError: a column is missing.
    """

    def __init__(
        self, source: str, finder: AudioFinder, columns: Columns, exact: bool, text_required: bool, with_sides: bool
    ) -> None:
        self.source, self.columns, self.exact = source, Columns(), exact
        self._needed = ("audio_filepath", "text") if text_required else ("audio_filepath",)
        self.with_sides, self._audio = with_sides, ""
        self.is_manifest, self.keys = self._keys(columns)
        self.first, self.num_missing, self.tried = Row("", {}), 0, list[str]()
        self.num_faults, self.first_fault, self.has_keywords = 0, 0, False
        self.speakers, self.reviews, self.parts = SpeakerNames(), ReviewColumns(), ""
        self.splits, self._split_columns = set[tuple[str, str]](), list[str]()
        self.candidates, self.files, self.ids, self.clips = bytearray(), array("q"), array("q"), array("q")
        self.times, self.has_channels, self.has_channel_0 = TimeNames(), False, False
        self._finder = finder
        self._find, self._path = lru_cache(CACHED)(finder.find), lru_cache(CACHED)(finder.path)

    def add(self, row: Row) -> None:
        """Adds a row with the columns of the source."""
        num_columns = len(self.columns.names)
        has_new_key = self.columns.add(row)
        if len(self.columns.names) > num_columns:
            self._split_columns = [name for name in self.columns.names if name.lower() in SPLIT_COLUMNS]
            self.reviews.use([] if self.is_manifest else self.columns.names)
        self.splits.update((name, stated_split(row.values.get(name, ""))) for name in self._split_columns)
        if row.fault is None:
            self.reviews.add(row.values)
        values = renamed(row.values, self.keys) if self.keys else row.values
        if not self.candidates:
            self.first = Row(row.where, dict(values), row.fault)
        if row.fault is not None:
            self.first_fault = self.first_fault if self.num_faults else len(self.candidates)
            self.num_faults += 1
        if not self.has_keywords and (keywords := values.get("keywords")) is not None:
            self.has_keywords = bool(cell_keywords(keywords))
        name, inner = split_audio(values.get("audio_filepath"))
        if is_searched(name):
            number = self._find(name)
            path: object = self._path(name, number)
            exists = number != ABSENT
        else:
            number, path = UNKNOWN, name if isinstance(name, str) else None
            exists = isinstance(path, str) and has_audio(path)
        self.candidates.append(number)
        if not exists:
            self._add_missing(name)
        elif not self._audio:
            self._audio = cell_text(path)
        is_inside = cell_text(path).endswith(".parquet")  # in a preview, the audio of each row has this path
        self.speakers.add(values.get("speaker"), row.where if is_inside else cell_text(path))
        if not self.is_manifest:
            values = inner | values | {"audio_filepath": path}
            channel = values.get("channel")
            self.files.append(hash((cell_text(path), cell_text(channel))))
            if row_id := cell_text(values.get("id")):
                self.ids.append(hash(row_id))
                place = row.where if is_inside else self.files[-1]
                self.clips.append(hash((row_id, place, cell_text(values.get("text")))))
            self.times.add(values, has_new_key)
            self.parts = self.parts or unused_parts(values)
            if channel is not None and not self.has_channel_0 and (index := channel_number(channel)) is not None:
                self.has_channels, self.has_channel_0 = True, index == 0

    def name_of(self, key: str) -> str:
        """The column of a key of the manifest."""
        return next((name for name, renamed_to in self.keys.items() if renamed_to == key), key)

    def is_valid(self) -> bool:
        """Whether the rows have the columns that were assumed."""
        return self._keys(self.columns) == (self.is_manifest, self.keys)

    def needs_sides(self) -> bool:
        """Whether a column of sides is the channel: no other column is, and the first audio file has several."""
        if self.with_sides or self.is_manifest or not self.columns.sides:
            return False
        if "channel" in {*self.columns.names, *self.keys.values()}:
            return False
        try:
            return count_channels(self._audio) > 1
        except DataError:  # reported when the audio is read
            return False

    def num_repeated_ids(self) -> int:
        """Rows that have the id of another clip, if each row has one and they are so many that the column is no id.

        Such as the number of the sentence in FLEURS, of which several speakers read the same, or of the segment in
        its file. Rows that are equal are not counted: they are copies.
        """
        if len(self.ids) < len(self.candidates) or self.is_manifest:
            return 0
        number = len(np.unique(np.array(self.clips))) - len(np.unique(np.array(self.ids)))
        return number if number > REPEATED * len(self.candidates) else 0

    def _keys(self, columns: Columns) -> tuple[bool, dict[str, str]]:
        is_manifest = self.exact or columns.are_manifest
        if is_manifest:
            return True, {}
        sides = columns.sides if self.with_sides else []
        return False, column_keys(columns.names, columns.lists, self.source, self._needed, sides)

    def _add_missing(self, name: object) -> None:
        self.num_missing += 1
        if not self.tried and name is not None and name != "":
            self.tried = self._finder.tried(name) if is_searched(name) else [shown(name)]


def survey(rows: RawRows, source: str, finder: AudioFinder, exact: bool, text_required: bool) -> Survey:
    """The facts about all rows. If later rows have columns that change the meaning of others, the rows are read again.

    Raises:
        DataError: there are no rows, a column is missing, or the rows cannot be read.
    """
    columns: Columns | None = None
    with_sides = False
    while True:
        iterator = iter(rows)
        first = list(islice(iterator, BLOCK_ROWS))
        columns = columns or Columns(first)
        try:
            facts = Survey(source, finder, columns, exact, text_required, with_sides)
        except DataError:
            if len(columns.names) == len((columns := Columns(chain(first, iterator))).names):
                raise
            continue
        if not first:
            raise DataError(f"{source}: the corpus has no rows")
        for row in chain(first, iterator):
            facts.add(row)
        if facts.is_valid():
            if not facts.needs_sides():
                return facts
            with_sides = True
        columns = facts.columns
