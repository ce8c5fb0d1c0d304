"""The spoken sentences of the build: shards of int16 samples with a JSON index, mapped into memory.

A shard is `LANG/NNNN.i16` with `LANG/NNNN.json`, a list of rows with id, start, num_samples, text, language, voice,
engine, kind, split and, for a sentence of the phrase book, phrase. The index is written last, so a shard without one is
not read.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shards = dict[str, list[str]]  # the names of the shards of each language
TRAIN = "train"  # the split of sentences that train
JAPANESE = "ja"
COLUMNS = ("language", "voice", "engine", "kind", "split")


@dataclass(frozen=True)
class Clips:
    """Rows of all shards as columns.

    Attributes:
        files: the mapped samples of each shard.
        shard, start, num_samples: where the samples of a row are.
        columns: for each of COLUMNS, its distinct values and their numbers by row.
        texts: what the model must write.
        phrases: id in the phrase book, or "".
        ids: of the sentence, the same for all its voices.
    """

    files: list[NDArray[np.int16]]
    shard: NDArray[np.int64]
    start: NDArray[np.int64]
    num_samples: NDArray[np.int64]
    columns: dict[str, tuple[list[str], NDArray[np.int64]]]
    texts: list[str]
    phrases: list[str]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def wave(self, row: int) -> NDArray[np.float32]:
        """The samples (N,) of a row, full scale 1."""
        start = self.start[row]
        samples = self.files[self.shard[row]][start : start + self.num_samples[row]]
        return samples.astype(np.float32) / np.float32(32768.0)

    def value(self, column: str, row: int) -> str:
        """The value of one of COLUMNS in a row."""
        names, numbers = self.columns[column]
        return names[numbers[row]]

    def select(self, rows: NDArray[np.int64]) -> "Clips":
        """The clips with these row numbers."""
        picked = rows.tolist()
        return replace(
            self,
            shard=self.shard[rows],
            start=self.start[rows],
            num_samples=self.num_samples[rows],
            columns={name: (values, numbers[rows]) for name, (values, numbers) in self.columns.items()},
            texts=[self.texts[row] for row in picked],
            phrases=[self.phrases[row] for row in picked],
            ids=[self.ids[row] for row in picked],
        )


def find_shards(folder: Path) -> Shards:
    """The complete shards of each language."""
    return {
        path.name: names for path in sorted(folder.glob("*")) if (names := sorted(p.stem for p in path.glob("*.json")))
    }


def open_clips(folder: Path, shards: Shards) -> Clips:
    """Opens shards of `folder`.

    Raises:
        SystemExit: a shard is missing or incomplete.
    """
    files, rows, shard = list[NDArray[np.int16]](), list[dict[str, Any]](), list[int]()
    for language, names in shards.items():
        for name in names:
            index = folder / language / f"{name}.json"
            if not index.exists():
                raise SystemExit(f"{index}: missing, but a stage has begun with it; restore it, or delete the stage")
            found = json.loads(index.read_text(encoding="utf-8"))
            samples = _map(index.with_suffix(".i16"))
            if max((row["start"] + row["num_samples"] for row in found), default=0) > len(samples):
                raise SystemExit(f"{index.with_suffix('.i16')}: shorter than its index states; delete both")
            shard += [len(files)] * len(found)
            rows += found
            files.append(samples)
    return Clips(
        files,
        np.array(shard, np.int64),
        np.array([row["start"] for row in rows], np.int64),
        np.array([row["num_samples"] for row in rows], np.int64),
        {name: _numbered([row[name] for row in rows]) for name in COLUMNS},
        [row["text"] for row in rows],
        [row.get("phrase") or "" for row in rows],
        [row["id"] for row in rows],
    )


def _map(path: Path) -> NDArray[np.int16]:
    count = path.stat().st_size // 2
    return np.memmap(path, np.int16, "r", shape=(count,)) if count else np.empty(0, np.int16)


def _numbered(values: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    names = sorted(set(values))
    number = {name: place for place, name in enumerate(names)}
    return names, np.array([number[value] for value in values], np.int64)


def split(clips: Clips) -> tuple[Clips, Clips]:
    """The clips for training, and those of other sentences, which are for evaluation."""
    names, numbers = clips.columns["split"]
    trains = numbers == (names.index(TRAIN) if TRAIN in names else -1)
    return clips.select(np.flatnonzero(trains)), clips.select(np.flatnonzero(~trains))


def join_texts(texts: Sequence[str], language: str) -> str:
    """Sentences one after another; Japanese has no spaces."""
    return ("" if language == JAPANESE else " ").join(texts)
