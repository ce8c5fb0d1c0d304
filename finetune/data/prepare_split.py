"""Prepares one split: checks its rows in blocks, keeps finished blocks on disk, and writes the files of the split."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from finetune.core import progress
from finetune.core.array_job import Shard
from finetune.core.data_config import CorpusEntry, DataSection
from finetune.core.errors import DataError
from finetune.core.ray_pool import RayPool
from finetune.core.wording import count, length_text
from finetune.core.worker_pool import WorkerPool, available_cores
from finetune.data.audit import RowComparison
from finetune.data.corpus_entries import read_entries
from finetune.data.corpus_state import corpus_state
from finetune.data.problems import ProblemSummary
from finetune.data.row_audio import Inspect
from finetune.data.row_blocks import BlockChecker, RowBlocks, block_file, read_block, uses_processes
from finetune.data.row_result import RowSettings
from finetune.data.split_files import SplitResult, SplitWriter
from finetune.data.splits import SCORED_SPLITS
from finetune.data.style import BASE_STYLE, format_style
from finetune.data.text_rules import TextRules
from finetune.version import __version__

log = logging.getLogger(__name__)

Engine = Literal["local", "ray"]
RESULTS_VERSION = 3  # of the results of blocks; increased when the checks of a row change
_TOKEN_NAMES = (  # of Granite's tokenizer
    "audio end_of_text pad unk start_of_role end_of_role tool_call start_of_cite end_of_cite start_of_plugin "
    "end_of_plugin fim_prefix fim_middle fim_suffix fim_pad filename reponame unused_1"
)
SPECIAL_TOKENS = tuple(f"<|{name}|>" for name in _TOKEN_NAMES.split())


@dataclass(frozen=True)
class Workplace:
    """Where and how the splits of a run are prepared.

    Attributes:
        work: folder for what is kept until `prepare` has finished.
        media: folder for audio that is embedded in a data set.
        runs: the folder of the run directories.
        workers: number of workers; 0 means one for each core.
        inspect: decodes audio.
        engine: what runs the workers.
    """

    work: Path
    media: Path
    runs: Path
    workers: int
    inspect: Inspect
    engine: Engine


def row_settings(data: DataSection, split: str) -> RowSettings:
    """The limits and rules of a recipe for the rows of a split."""
    return RowSettings(
        min_duration=data.min_duration,
        max_duration=data.max_duration,
        max_chars_per_second=data.max_chars_per_second,
        special_tokens=SPECIAL_TOKENS,
        wordless="keep empty" if split in SCORED_SPLITS else "drop",
        text=data.text,
    )


class SplitJob:
    """The rows of one split and their blocks on disk."""

    def __init__(self, split: str, data: DataSection, place: Workplace) -> None:
        self.split, self._data, self._place = split, data, place
        entries: list[CorpusEntry] = getattr(data, split)
        self.rows = RowBlocks(read_entries(entries, place.media))
        self._settings = row_settings(data, split)
        sources = [entry.model_dump(mode="json") for entry in entries]
        states = [corpus_state(entry.path, place.runs) for entry in entries]
        settings = {**asdict(self._settings), "text": data.text.model_dump()}
        key = json.dumps([__version__, RESULTS_VERSION, settings, sources, states, len(self.rows)], sort_keys=True)
        self.folder = place.work / split / hashlib.sha256(key.encode()).hexdigest()[:16]

    def audit(self) -> SplitResult:
        """Checks all rows that are not checked yet, and writes the files of the split.

        Raises:
            DataError: no row is usable, or too many are dropped.
        """
        rules, total = TextRules(self._data.text), len(self.rows)
        max_dropped = self._data.max_bad_fraction * total
        writer = SplitWriter(self._place.work / self.split)
        comparison = RowComparison(self.rows, rules, writer, max_dropped)
        try:
            with self._checker() as checker, progress.task(f"prepare {self.split}", total):
                for results in checker.results():
                    comparison.add_block(results)
                    progress.advance(len(results))
        finally:
            writer.close()
        style = comparison.style.style(rules)
        result = SplitResult(
            writer.paths.manifest.parent,
            writer.num_kept,
            writer.seconds,
            comparison.dropped,
            style,
            writer.has_keywords,
        )
        self._report(result, comparison.warnings, max_dropped)
        return result

    def check_shard(self, shard: Shard) -> None:
        """Checks the blocks of one job of an array, except those that are done already."""
        numbers = [number for number in range(self.rows.num_blocks) if shard.has(number)]
        label = f"prepare {self.split}, shard {shard}"
        with self._checker() as checker, progress.task(label, len(numbers)):
            for _ in checker.encoded(numbers):
                progress.advance(1)
        log.info("%-6s shard %s: %d of %d blocks are checked", self.split, shard, len(numbers), self.rows.num_blocks)

    def missing_blocks(self) -> list[int]:
        """The numbers of the blocks that are not checked yet."""
        return [n for n in range(self.rows.num_blocks) if read_block(block_file(self.folder, n)) is None]

    def discard_outdated(self) -> None:
        """Deletes the blocks that were checked with other settings, or before the corpora changed."""
        for folder in self.folder.parent.glob("*"):
            if folder.is_dir() and folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _checker(self) -> Iterator[BlockChecker]:
        with self._pool() as pool:
            yield BlockChecker(self.rows, self._settings, pool, self.folder, self._place.inspect)

    def _pool(self) -> WorkerPool | RayPool:
        if self._place.engine == "ray":
            return RayPool()
        return WorkerPool(self._place.workers or available_cores(), uses_processes(len(self.rows)))

    def _report(self, result: SplitResult, warnings: ProblemSummary, max_dropped: float) -> None:
        split, total, num_dropped = self.split, len(self.rows), result.dropped.total
        dropped = f"; {num_dropped} of {count(total, 'row')} dropped" if num_dropped else ""
        log.info("%-6s %5d clips, %s%s", split, result.num_kept, length_text(result.seconds / 3600), dropped)
        if problems := (result.dropped + warnings).text():
            log.info(problems)
        if not result.num_kept:
            raise DataError(f"data.{split}: 0 of {count(total, 'row')} are usable; fix the problems above")
        if num_dropped > max_dropped:
            raise DataError(
                f"data.{split}: {num_dropped} of {count(total, 'row')} are unusable, more than data.max_bad_fraction "
                f"{self._data.max_bad_fraction:g} allows; fix the rows or raise data.max_bad_fraction"
            )
        if lines := format_style(split, result.style, self._data.text.language):
            log.info("style (%s):\n%s", BASE_STYLE, "\n".join(lines))
