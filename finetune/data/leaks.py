"""Finds leaks: audio, sentences and speakers of an evaluation split that are also in the training data.

The training data is read in blocks of columns. Only what it has in common with the scored split stays in memory.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from finetune.data.kept_rows import Columns, KeptRows, as_rows
from finetune.data.leak_text import comparison_key, num_words
from finetune.data.manifest import Utterance
from finetune.data.problems import Problem

MIN_OVERLAP = 0.5  # seconds; shorter overlaps of two segments are padding, unless half of the shorter segment
SHORT_SENTENCE = 4  # words; a sentence with fewer words is often spoken again (commands, digits, greetings)
REFUSED = ("audio", "overlapping audio")  # kinds that stop a run; the others are warnings


def find_leaks(
    train: KeptRows | Iterable[Utterance], scored: KeptRows | Iterable[Utterance], split: str = "train"
) -> list[Problem]:
    """Finds what `scored` (valid, test or canary) has in common with `train`.

    Kinds, each followed by " also in SPLIT":
        "audio": the same samples, whatever the file is called and whatever the transcript is.
        "overlapping audio": segments of the same file and channel overlap by more than `MIN_OVERLAP` seconds, or by
            more than half of the shorter segment.
        "sentence", "short sentence": another recording of the same sentence, compared without case, width and
            punctuation. A short sentence has fewer than `SHORT_SENTENCE` words.
        "speaker": one problem for each speaker.

    Args:
        train: utterances of a training split.
        scored: utterances of a split that is scored.
        split: name of the split `train`, for the kinds and the details.
    """
    train, scored = as_rows(train), as_rows(scored)
    rows = np.concatenate(list(scored.blocks()))
    common = _Common(train, rows)
    problems, reported = list[Problem](), set[bytes]()

    def add(kind: str, item: Utterance, detail: str) -> None:
        problems.append(Problem(f"{kind} also in {split}", item.id, item.audio_filepath, detail))

    for index in common.suspects:
        row, item = rows[index], scored.item(int(index))
        key = comparison_key(item.text)
        if (number := common.find("digest", row)) is not None:
            match = train.item(number)
            transcripts = "the same transcript" if comparison_key(match.text) == key else f"there {match.text[:60]!r}"
            add("audio", item, f"same samples as {match.id} ({match.audio_filepath}), {transcripts}")
        elif overlapping := common.segments.find(row):
            number, seconds = overlapping
            add("overlapping audio", item, f"{seconds:.2f} s are also in {train.item(number).id}")
        elif (number := common.find("sentence", row)) is not None:
            match, short = train.item(number), num_words(key) < SHORT_SENTENCE
            add("short sentence" if short else "sentence", item, f"{match.id}: {match.text[:80]!r}")
        speaker = bytes(row["speaker"])
        if speaker not in reported and (number := common.find("speaker", row)) is not None:
            reported.add(speaker)
            add("speaker", item, f"{item.speaker!r}, as in {train.item(number).id}")
    return problems


def is_refused(leak: Problem) -> bool:
    """Whether a leak stops the run."""
    return leak.kind.partition(" also in ")[0] in REFUSED


class _Common:
    """What a training split has in common with the rows of a scored split.

    Attributes:
        suspects: numbers of the scored rows that can be a leak, in order.
        segments: the training segments of files that the scored rows use too.
    """

    def __init__(self, train: KeptRows, scored: Columns) -> None:
        self._last: dict[str, dict[bytes, int]] = {name: {} for name in ("digest", "sentence", "speaker")}
        scored_keys = {name: np.unique(scored[name]) for name in (*self._last, "file")}
        scored_keys = {name: keys[keys != b""] for name, keys in scored_keys.items()}
        parts, start = list[tuple[NDArray[np.int64], Columns]](), 0
        for block in train.blocks():
            for name, last in self._last.items():
                hits = np.flatnonzero(_is_in(block[name], scored_keys[name]))
                last.update(zip(block[name][hits].tolist(), (start + hits).tolist(), strict=True))
            hits = np.flatnonzero(_is_in(block["file"], scored_keys["file"]))
            parts.append((start + hits, block[["file", "offset", "duration", "channel"]][hits]))
            start += len(block)
        self.segments = _Segments(
            np.concatenate([numbers for numbers, _ in parts]), np.concatenate([rows for _, rows in parts])
        )
        repeated = [
            _is_in(scored[name], np.array(sorted(last), scored[name].dtype)) for name, last in self._last.items()
        ]
        self.suspects = np.flatnonzero(np.any([*repeated, self.segments.has_file(scored["file"])], axis=0))

    def find(self, name: str, row: np.void) -> int | None:
        """The last training row with the same hash, by its number."""
        return self._last[name].get(bytes(row[name]))


class _Segments:
    """Segments by file, sorted by time.

    Args:
        numbers: (n,) the number of each row in its split.
        rows: (n,) with the columns file, offset, duration and channel.
    """

    def __init__(self, numbers: NDArray[np.int64], rows: Columns) -> None:
        order = np.lexsort((rows["offset"], rows["file"]))
        self._numbers, self._rows = numbers[order], rows[order]
        self._files, firsts = np.unique(self._rows["file"], return_index=True)
        self._bounds = [*firsts.tolist(), len(rows)]
        self._longest = np.maximum.reduceat(self._rows["duration"], firsts) if len(rows) else np.zeros(0)

    def has_file(self, files: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Which files have a segment."""
        return _is_in(files, self._files)

    def find(self, item: np.void) -> tuple[int, float] | None:
        """The first segment that overlaps a row, by its number, and the seconds of the overlap."""
        which = int(np.searchsorted(self._files, item["file"]))
        if which == len(self._files) or self._files[which] != item["file"]:
            return None
        rows = self._rows[self._bounds[which] : self._bounds[which + 1]]
        offset, duration = float(item["offset"]), float(item["duration"])
        end = offset + duration
        first, last = np.searchsorted(rows["offset"], [offset - self._longest[which], end])
        others = rows[first:last]
        seconds = np.minimum(end, others["offset"] + others["duration"]) - np.maximum(offset, others["offset"])
        shorter = np.minimum(duration, others["duration"])
        overlaps = seconds > np.minimum(MIN_OVERLAP, shorter / 2)
        if item["channel"] >= 0:  # no channel is the average of all channels, and contains each of them
            overlaps &= (others["channel"] < 0) | (others["channel"] == item["channel"])
        places = np.flatnonzero(overlaps)
        if not len(places):
            return None
        place = int(places[0])
        return int(self._numbers[self._bounds[which] + first + place]), float(seconds[place])


def _is_in(values: NDArray[np.bytes_], keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Which values are one of the sorted keys."""
    if not len(keys):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    is_key: NDArray[np.bool_] = keys[places] == values
    return is_key
