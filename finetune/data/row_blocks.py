"""Checks rows in blocks by several workers. Finished blocks can be kept on disk, so that nothing is done twice."""

import json
import zlib
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from finetune.core.files import replaced_file
from finetune.core.ray_pool import RayPool
from finetune.core.worker_pool import AHEAD, WorkerDied, WorkerPool
from finetune.data.audio import inspect_audio
from finetune.data.audio_facts import CachedInspect
from finetune.data.audio_state import FileState, file_state
from finetune.data.cells import cell_text
from finetune.data.raw_rows import BLOCK_ROWS
from finetune.data.row import Row
from finetune.data.row_audio import Inspect
from finetune.data.row_result import RowResult, RowSettings, check_row, decode_results, encode_results
from finetune.data.text_rules import TextRules

MIN_BLOCKS = 64  # a small corpus is cut into this many blocks, so that every core has work
ROWS_FOR_PROCESSES = 1000  # fewer rows are checked by threads, which start at once
KEPT_BLOCKS = 4  # blocks of corpora in memory, for `where`


def uses_processes(rows: int) -> bool:
    """Whether so many rows are worth the start of processes."""
    return rows >= ROWS_FOR_PROCESSES


class RowBlocks:
    """The rows of the corpora of a split in blocks with numbers.

    The size of a block depends only on the number of rows. It divides BLOCK_ROWS, so a block is a part of one block of
    a corpus.

    Args:
        corpora: the name of each corpus and its rows. With several corpora, each row records its corpus, for evaluate.
    """

    def __init__(self, corpora: Sequence[tuple[str, Sequence[Row]]]) -> None:
        self._corpora = corpora
        self._lengths = [len(rows) for _, rows in corpora]
        self.block_rows = 1
        while 2 * self.block_rows * MIN_BLOCKS <= len(self) and self.block_rows < BLOCK_ROWS:
            self.block_rows *= 2
        self._block_ends = list(accumulate(-(-length // self.block_rows) for length in self._lengths))
        self._row_ends = list(accumulate(self._lengths))
        self._recent = OrderedDict[tuple[int, int], list[Row]]()

    def __len__(self) -> int:
        return sum(self._lengths)

    @property
    def num_blocks(self) -> int:
        return self._block_ends[-1]

    def block(self, number: int) -> list[Row]:
        """The rows of a block."""
        which = bisect_right(self._block_ends, number)
        start = (number - (self._block_ends[which - 1] if which else 0)) * self.block_rows
        rows = self._corpus_rows(which, start // BLOCK_ROWS)[start % BLOCK_ROWS :][: self.block_rows]
        if len(self._corpora) == 1:
            return rows
        source = self._corpora[which][0]
        return [replace(row, values={"corpus": source, **row.values}) for row in rows]

    def where(self, number: int) -> str:
        """The position of a row, by its number over all corpora."""
        which = bisect_right(self._row_ends, number)
        number -= self._row_ends[which - 1] if which else 0
        return self._corpus_rows(which, number // BLOCK_ROWS)[number % BLOCK_ROWS].where

    def _corpus_rows(self, which: int, number: int) -> list[Row]:
        """Block `number` of BLOCK_ROWS rows of a corpus."""
        key = (which, number)
        if key not in self._recent:
            corpus = self._corpora[which][1]
            block_rows = getattr(corpus, "block", None)
            start = number * BLOCK_ROWS
            self._recent[key] = block_rows(number) if block_rows else list(corpus[start : start + BLOCK_ROWS])
            while len(self._recent) > KEPT_BLOCKS:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key]


@dataclass(frozen=True)
class BlockTask:
    """What a worker needs to check a block: its rows, the settings, a file for the results, how to decode."""

    rows: list[Row]
    settings: RowSettings
    target: Path | None
    inspect: Inspect


def check_block(task: BlockTask) -> bytes:
    """Checks the rows of a block; returns their results, encoded, and writes them to the target."""
    paths = dict.fromkeys(cell_text(row.values.get("audio_filepath")) for row in task.rows)
    states = {path: file_state(path) for path in paths if path}
    rules = TextRules(task.settings.text)
    content = encode_results([check_row(row, task.settings, rules, task.inspect) for row in task.rows])
    if isinstance(task.inspect, CachedInspect):
        task.inspect.flush()
    if task.target:
        _write_block(task.target, states, content)
    return content


def _write_block(target: Path, states: dict[str, FileState | None], content: bytes) -> None:
    """Writes the results atomically, with the state of the audio files before they were read."""
    header = zlib.compress(json.dumps({"crc32": zlib.crc32(content), "files": states}).encode(), 1)
    with replaced_file(target) as temporary:
        temporary.write_bytes(len(header).to_bytes(8, "little") + header + content)


def read_block(path: Path) -> bytes | None:
    """The results in a file of `check_block`; None if it is missing or damaged, or if an audio file changed since."""
    try:
        stored = path.read_bytes()
        size = 8 + int.from_bytes(stored[:8], "little")
        header, content = json.loads(zlib.decompress(stored[8:size])), stored[size:]
        same = all(file_state(name) == state for name, state in header["files"].items())
        return content if same and zlib.crc32(content) == header["crc32"] else None
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def block_file(folder: Path, number: int) -> Path:
    """The file of a block in the folder of a split."""
    return folder / f"{number:07d}.block"


@dataclass(frozen=True)
class BlockChecker:
    """Checks the blocks of a split.

    Attributes:
        rows: the rows.
        settings: limits and rules.
        pool: the workers.
        folder: where finished blocks are kept; blocks that are there already are not checked again.
        inspect: decodes audio.
    """

    rows: RowBlocks
    settings: RowSettings
    pool: WorkerPool | RayPool
    folder: Path | None = None
    inspect: Inspect = inspect_audio

    def results(self) -> Iterator[list[RowResult]]:
        """The results of all blocks in order."""
        return map(decode_results, self.encoded(range(self.rows.num_blocks)))

    def encoded(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The results of some blocks in order, as `check_block` returns them."""
        pending = deque[tuple[int, Future[bytes]]]()
        try:
            for number in numbers:
                pending.append((number, self._start(number)))
                if len(pending) > AHEAD * self.pool.workers:
                    yield self._result(*pending.popleft())
            while pending:
                yield self._result(*pending.popleft())
        finally:
            for _, block in pending:
                block.cancel()

    def _result(self, number: int, block: Future[bytes]) -> bytes:
        try:
            return block.result()
        except WorkerDied as error:
            rows = self.rows.block(number)
            raise WorkerDied(
                f"{rows[0].where} to {rows[-1].where}: {error}. If memory is full, set machine.prepare_workers to a "
                "smaller number; else one of these rows has a file that makes its decoder crash: remove it"
            ) from error

    def _start(self, number: int) -> Future[bytes]:
        target = block_file(self.folder, number) if self.folder else None
        if target and (done := read_block(target)) is not None:
            future = Future[bytes]()
            future.set_result(done)
            return future
        return self.pool.submit(check_block, BlockTask(self.rows.block(number), self.settings, target, self.inspect))
