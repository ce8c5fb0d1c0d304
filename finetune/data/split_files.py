"""The files of one split while `prepare` works on it: its manifest, its problems and the columns of `kept_rows`."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from finetune.core.files import sha256_file
from finetune.core.lazy_sequence import LazySequence
from finetune.data.kept_rows import COLUMNS, UNKNOWN, Columns, cached_status, row_of
from finetune.data.manifest import Utterance, manifest_line, parse_manifest_line
from finetune.data.problems import Problem, ProblemSummary
from finetune.data.style import SplitStyle

BLOCK = 1 << 16  # rows of columns in memory


@dataclass(frozen=True)
class SplitPaths:
    """The names of the files in the folder of a split."""

    manifest: Path
    columns: Path
    dropped: Path
    warnings: Path


def split_paths(folder: Path) -> SplitPaths:
    return SplitPaths(*(folder / name for name in ("manifest.jsonl", "columns", "dropped.jsonl", "warnings.jsonl")))


class SplitWriter:
    """Receives the results of an audit; replaces the files of an earlier attempt."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = split_paths(folder)
        self._manifest, self._columns, self._dropped, self._warnings = (
            open(path, "w+b")  # noqa: SIM115 - closed by `close`
            for path in (self.paths.manifest, self.paths.columns, self.paths.dropped, self.paths.warnings)
        )
        self._rows, self._line = list[tuple[Any, ...]](), 0
        self._status_of = cached_status()
        self.num_kept, self.seconds, self.has_keywords = 0, 0.0, False
        self._read = lru_cache(256)(self._read_kept)  # a clip with many copies is asked for often

    def keep(self, utterance: Utterance, sentence: str) -> None:
        self._rows.append(row_of(utterance, sentence, self._line, self._status_of))
        self._line += self._manifest.write(manifest_line(utterance))
        self.num_kept, self.seconds = self.num_kept + 1, self.seconds + utterance.duration
        self.has_keywords = self.has_keywords or bool(utterance.keywords)
        if len(self._rows) >= 1024:
            self._write_columns()

    def drop(self, problem: Problem) -> None:
        self._dropped.write(_problem_line(problem))

    def warn(self, problem: Problem) -> None:
        self._warnings.write(_problem_line(problem))

    def kept_item(self, index: int) -> Utterance:
        return self._read(index)

    def _read_kept(self, index: int) -> Utterance:
        self._write_columns()
        for file in (self._manifest, self._columns):
            file.flush()
        item = _read_item(self._manifest, self._columns, index)
        for file in (self._manifest, self._columns):
            file.seek(0, 2)
        return item

    def close(self) -> None:
        self._write_columns()
        for file in (self._manifest, self._columns, self._dropped, self._warnings):
            file.close()

    def _write_columns(self) -> None:
        self._columns.write(np.array(self._rows, COLUMNS).tobytes())
        self._rows.clear()


@dataclass
class SplitResult:
    """A split after the audit.

    Attributes:
        folder: its files.
        num_kept: utterances in its manifest.
        seconds: of audio in its manifest.
        dropped: the dropped rows.
        style: the style of its transcripts.
        has_keywords: whether an utterance has keywords.
    """

    folder: Path
    num_kept: int
    seconds: float
    dropped: ProblemSummary
    style: SplitStyle
    has_keywords: bool = False

    @property
    def paths(self) -> SplitPaths:
        return split_paths(self.folder)

    def blocks(self) -> Iterator[Columns]:
        with open(self.paths.columns, "rb") as file:
            while content := file.read(BLOCK * COLUMNS.itemsize):
                yield np.frombuffer(content, COLUMNS)

    def item(self, index: int) -> Utterance:
        with open(self.paths.manifest, "rb") as manifest, open(self.paths.columns, "rb") as columns:
            return _read_item(manifest, columns, index)

    def items(self) -> Iterator[Utterance]:
        with open(self.paths.manifest, "rb") as manifest:
            yield from map(parse_manifest_line, manifest)

    def recorded(self, started: int, media: Path) -> Iterator[Columns]:
        """`blocks`, without the state of files that were written after `prepare` began, except by `prepare`.

        The next stage compares the samples of these files.

        Args:
            started: nanoseconds since 1970.
            media: the folder where `prepare` writes audio.
        """
        first, own = 0, f"{media}{os.sep}"
        for block in self.blocks():
            block = block.copy()
            for index in np.flatnonzero(block["time"] >= started).tolist():
                if not self.item(first + index).audio_filepath.startswith(own):
                    block["size"][index] = block["time"][index] = UNKNOWN
            first += len(block)
            yield block

    def publish(self, target: Path) -> str:
        """Moves the manifest to its place; returns its SHA-256."""
        digest = sha256_file(self.paths.manifest)
        with open(self.paths.manifest, "rb") as file:
            os.fsync(file.fileno())
        self.paths.manifest.replace(target)
        return digest

    def add_warnings(self, problems: list[Problem]) -> None:
        with open(self.paths.warnings, "ab") as file:
            file.writelines(map(_problem_line, problems))


class SplitItems(LazySequence[Utterance]):
    """The utterances of a split, which are read from its manifest in each iteration."""

    def __init__(self, split: SplitResult) -> None:
        self._split = split

    def __len__(self) -> int:
        return self._split.num_kept

    def __iter__(self) -> Iterator[Utterance]:
        return self._split.items()

    def item(self, index: int) -> Utterance:
        return self._split.item(index)


def _read_item(manifest: BinaryIO, columns: BinaryIO, index: int) -> Utterance:
    columns.seek(index * COLUMNS.itemsize)
    row = np.frombuffer(columns.read(COLUMNS.itemsize), COLUMNS)[0]
    manifest.seek(int(row["line"]))
    return parse_manifest_line(manifest.readline())


def _problem_line(problem: Problem) -> bytes:
    return json.dumps(vars(problem)).encode() + b"\n"


def write_problems(path: Path, splits: dict[str, SplitResult]) -> None:
    """Writes `problems.json`, an object with `dropped` and `warnings` for each split, in the form of `write_json`."""
    escaped = any(_has_surrogate(file) for split in splits.values() for file in _problem_files(split).values())
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    try:
        with open(temporary, "w", encoding="utf-8") as out:
            out.write("{")
            for number, (name, split) in enumerate(splits.items()):
                out.write(f'{"," * bool(number)}\n  "{name}": {{')
                for place, (key, file) in enumerate(_problem_files(split).items()):
                    out.write(f'{"," * bool(place)}\n    "{key}": ')
                    out.writelines(_list_in_json(file, escaped))
                out.write("\n  }")
            out.write("\n}\n" if splits else "}\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _problem_files(split: SplitResult) -> dict[str, Path]:
    return {"dropped": split.paths.dropped, "warnings": split.paths.warnings}


def _has_surrogate(file: Path) -> bool:
    """Whether a problem has a lone surrogate, such as a file name that is not UTF-8; all texts are then escaped."""
    with open(file, encoding="ascii") as lines:
        for line in lines:
            if "\\ud" in line:
                try:
                    json.dumps(json.loads(line), ensure_ascii=False).encode()
                except UnicodeEncodeError:
                    return True
    return False


def _list_in_json(file: Path, escaped: bool) -> Iterator[str]:
    """The lines of a file as a list inside two levels of indented JSON."""
    empty = True
    with open(file, encoding="ascii") as lines:
        for line in lines:
            text = json.dumps(json.loads(line), indent=2, ensure_ascii=escaped)
            yield ("[\n" if empty else ",\n") + "\n".join(f"      {part}" for part in text.split("\n"))
            empty = False
    yield "[]" if empty else "\n    ]"
