"""One row of a corpus, before its columns and its audio are checked."""

from dataclasses import dataclass

from finetune.data.problems import Finding


@dataclass(frozen=True)
class Row:
    """One row of a corpus.

    Attributes:
        where: its position: file:line, file and row number, or archive and member.
        values: its values by column.
        fault: a reason not to use it, if there is one.
    """

    where: str
    values: dict[str, object]
    fault: Finding | None = None
