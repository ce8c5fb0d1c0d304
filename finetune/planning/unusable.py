"""Rows that `prepare` will drop for what they state: a missing file, text or length. Their audio is not decoded."""

from collections import Counter
from dataclasses import dataclass, field

from finetune.core.data_config import DataSection
from finetune.core.errors import DataError
from finetune.core.wording import count
from finetune.data.audio_file import count_channels
from finetune.data.cells import cell_channel, cell_seconds, cell_text
from finetune.data.corpora import has_audio_file
from finetune.data.prepare_split import SPECIAL_TOKENS
from finetune.data.row import Row
from finetune.data.row_checks import Wordless, check_length, check_text
from finetune.data.splits import SCORED_SPLITS
from finetune.data.text_rules import TextRules
from finetune.planning.split_facts import LIMITS, stated_utterance


@dataclass
class UnusableRows:
    """Counts the rows of a split that cannot be used; of a large split, nothing is counted.

    Args:
        split: its name.
        data: the section of the recipe.
        total: number of rows.
        kinds: rows by kind of problem, as `prepare` names it.
    """

    split: str
    data: DataSection
    total: int
    kinds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rules, self.ids = TextRules(self.data.text), set[str]()

    def add(self, row: Row) -> None:
        """Looks at a row."""
        if self.total <= LIMITS.clips and (kind := self._kind(row)):
            self.kinds[kind] += 1

    def _kind(self, row: Row) -> str:
        name = " ".join(cell_text(row.values.get("id")).split())
        if name and name in self.ids:
            return "duplicate id"
        self.ids.add(name)
        if row.fault is not None:
            return row.fault.kind
        if not has_audio_file(row):
            return "missing audio"
        if _has_no_channel(row):
            return "invalid channel"
        seconds = cell_seconds(row.values.get("duration"))
        clip = stated_utterance(row, seconds or 0.0, row.where)
        changed = self.rules(clip)
        wordless: Wordless = "keep empty" if self.split in SCORED_SPLITS else "drop"
        finding = check_text(row, clip, changed, SPECIAL_TOKENS, wordless)
        data = self.data
        is_cut = data.too_long == "segment" and self.split == "train" and seconds and seconds > data.max_duration
        if finding is None and seconds and not is_cut:
            finding = check_length(changed, data.min_duration, data.max_duration, data.max_chars_per_second)
        return finding.kind if finding else ""

    def check(self) -> None:
        """Raises DataError, as `prepare` does, if the split has too many such rows."""
        number = sum(self.kinds.values())
        kinds = ", ".join(f"{kind}: {rows}" for kind, rows in self.kinds.most_common())
        if number and number == self.total:
            raise DataError(
                f"data.{self.split}: 0 of {count(self.total, 'row')} are usable; fix the problems above ({kinds})"
            )
        if number > self.data.max_bad_fraction * self.total:
            raise DataError(
                f"data.{self.split}: {number} of {count(self.total, 'row')} are unusable, more than "
                f"data.max_bad_fraction {self.data.max_bad_fraction:g} allows; fix the rows or raise "
                f"data.max_bad_fraction ({kinds})"
            )


def _has_no_channel(row: Row) -> bool:
    """Whether a row of a file with several channels states something else than one of them, such as `agent`."""
    try:
        cell_channel(row.values.get("channel"))
    except ValueError:
        try:
            return count_channels(cell_text(row.values.get("audio_filepath"))) > 1
        except DataError:
            return False  # prepare reports the audio
    return False
