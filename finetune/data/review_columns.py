"""Columns in which other tools state that a row was skipped or rejected. No stage reads them, which is said."""

import re
from collections.abc import Iterable, Mapping

from finetune.data.cells import cell_text, shown

# Names without `is`, such as `is_rejected`.
_WORDS = (
    "skip skipped exclude excluded ignore ignored reject rejected discard discarded deleted cancelled was_cancelled "
    "status review_status annotation_status task_status review verdict decision approved accepted verified "
    "validated valid usable use keep marked_for_review"
)
NAMES = frozenset(_WORDS.split())
MOST = 6  # different values of such a column; with more it is something else


class ReviewColumns:
    """Collects the values of columns with one of NAMES."""

    def __init__(self) -> None:
        self._names, self._values = list[str](), dict[str, dict[str, None]]()

    def use(self, names: Iterable[str]) -> None:
        """Sets the columns of the next rows."""
        self._names = [name for name in names if _without_is(str(name)) in NAMES]

    def add(self, values: Mapping[str, object]) -> None:
        for name in self._names:
            seen = self._values.setdefault(name, {})
            if len(seen) <= MOST and not isinstance(value := values.get(name), list | dict):
                seen[cell_text(value)] = None

    def notes(self) -> list[str]:
        """A note for each column that differs between rows."""
        return [
            f"column {name!r} has the values {', '.join(map(shown, seen))}, but it is not read, so rows with each of "
            "them are used; remove the rows that were not accepted"
            for name, seen in self._values.items()
            if 1 < len(seen) <= MOST
        ]


def _without_is(name: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return re.sub(r"[\W_]+", "_", words).strip("_").removeprefix("is_")
