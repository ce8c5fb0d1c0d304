"""Which clips a report shows, word by word, and their audio: in the page as long as there is room."""

import base64
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from finetune.core.errors import DataError
from finetune.data.snippet import mp3
from finetune.metrics.alignment import align
from finetune.metrics.word_changes import columns
from finetune.report.clips import Player, Shown, cells, direction
from finetune.report.wording import count

log = logging.getLogger(__name__)

SHOWN = 25  # clips in each list
EMBEDDED_BYTES = 4_000_000  # of audio in a page; what comes after is linked
EMBEDDED_SECONDS = 30.0  # longer clips are linked
Row = Mapping[str, Any]


def clip_lists(rows: Sequence[Row], suspicious: Sequence[Row], preset: str, folder: Path) -> dict[str, list[Shown]]:
    """The clips that gained most, lost most, have most errors left, and whose reference is most doubtful.

    Args:
        rows: of `utterances.jsonl`; a sentence stands once in a list.
        suspicious: of `suspicious.jsonl`, in its order.
        preset: normalizer of what is shown word by word.
        folder: where the page will lie; links to audio start there.
    """

    def first(chosen: Iterable[Row]) -> list[Row]:
        sentences: dict[str, Row] = {}
        for row in chosen:
            sentences.setdefault(row["text"], row)
        return list(sentences.values())[:SHOWN]

    by_gain = sorted(rows, key=lambda row: row["errors"] - row["errors_base"])
    chosen = {
        "fixed": first(row for row in by_gain if row["errors"] < row["errors_base"]),
        "broken": first(row for row in reversed(by_gain) if row["errors"] > row["errors_base"]),
        "worst": first(row for row in sorted(rows, key=lambda row: -row["errors"]) if row["errors"]),
        "suspicious": suspicious[:SHOWN],
    }
    audio = _Audio(folder)
    return {
        name: [_shown(f"{name}-{place}", row, preset, audio) for place, row in enumerate(found, 1)]
        for name, found in chosen.items()
    }


def _shown(anchor: str, row: Row, preset: str, audio: "_Audio") -> Shown:
    base, adapted = (align([row["text"]], [row[key]], preset)[0] for key in ("pred_text_base", "pred_text"))
    texts = [("said", row["text"]), ("base", row["pred_text_base"]), ("adapted", row["pred_text"])]
    facts = [f"{row['duration']:.1f} s", *([row["speaker"]] if row.get("speaker") else [])]
    if "suspicion" in row:
        texts.append(("CTC draft", row["pred_text_ctc"]))
        facts.append(f"suspicion {row['suspicion']:.2f}")
    else:
        facts.append(f"errors {row['errors_base']} → {row['errors']} in {count(row['words'], 'word')}")
    return Shown(
        row["id"],
        anchor,
        facts,
        direction(row["text"]),
        [cells(column) for column in columns(base, adapted)],
        texts,
        row.get("flags", []),
        audio.player(row, anchor),
    )


class _Audio:
    """Players, each clip's audio once in a page."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.room = folder.resolve(), EMBEDDED_BYTES
        self.played: dict[tuple[str, float], str] = {}

    def player(self, row: Row, anchor: str) -> Player | None:
        """None where there is no audio any more."""
        path, start, seconds = row["audio_filepath"], row["offset"], row["duration"]
        if before := self.played.get((path, start)):
            return Player("", before)
        if not Path(path).is_file():
            return None
        if seconds > EMBEDDED_SECONDS or not self.room:
            source = f"{quote(os.fsencode(os.path.relpath(path, self.folder)))}#t={start:g},{start + seconds:g}"
        else:
            try:
                sound = mp3(path, start, seconds)
            except DataError as error:
                log.warning("the report has no audio of a clip: %s", error)
                return None
            self.room = max(0, self.room - len(sound))
            source = f"data:audio/mpeg;base64,{base64.b64encode(sound).decode()}"
        self.played[path, start] = anchor
        return Player(source)
