"""Prepares the data of a recipe: reads and checks every split, reports all problems, writes the manifests."""

import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from finetune.core.array_job import Shard
from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.data.audio import inspect_audio
from finetune.data.audio_facts import CachedInspect, cache_file, prune_cache
from finetune.data.audio_files import record_audio_files
from finetune.data.leaks import find_leaks, is_refused
from finetune.data.prepare_split import SPECIAL_TOKENS, Engine, SplitJob, Workplace
from finetune.data.problems import format_problems
from finetune.data.row_audio import Inspect
from finetune.data.shared_ids import rename_shared_ids
from finetune.data.split_files import SplitItems, SplitResult, write_problems
from finetune.data.splits import SCORED_SPLITS, SPLITS, TRAINING_SPLITS
from finetune.data.style import write_style
from finetune.data.unused_settings import unused_settings
from finetune.data.utterance_table import open_manifest
from finetune.metrics.keyword_terms import prompted_terms
from finetune.metrics.terms import notes_on_signs, read_terms, term_recall

log = logging.getLogger(__name__)

SHARDS = "shards"  # folder with an empty file NUMBER-COUNT for each job of an array that has started


@dataclass(frozen=True)
class PrepareResult:
    """By split: utterances kept, hours of audio, rows dropped, SHA-256 of the manifest."""

    kept: dict[str, int]
    hours: dict[str, float]
    dropped: dict[str, int]
    hashes: dict[str, str]
    seconds: float


def prepare(
    recipe: Recipe, run: RunDir, merge: bool = False, inspect: Inspect = inspect_audio, engine: Engine = "local"
) -> PrepareResult:
    """Writes `manifests/<split>.jsonl`, `manifests/problems.json` and `manifests/style.json`.

    Rows are checked in blocks. The results of finished blocks are in `prepare.work` until all splits are done, so a
    call after a kill or an error checks only the other blocks, and those whose audio changed.

    Args:
        recipe: the recipe.
        run: its directory.
        merge: all blocks must be there already, from `prepare_shard`.
        inspect: decodes audio.
        engine: what runs the workers.

    Raises:
        DataError: a source cannot be read; a split has no usable row or too many bad rows; audio of train or
            replay is also in valid, test or canary, and the recipe does not allow it; the normalizer
            removes a complete term; with `merge`, a block is missing.
    """
    started, started_at = time.monotonic(), time.time_ns()
    if recipe.data.terms:  # checked here, because evaluate reads the terms only after hours of training
        term_recall([], [], prompted_terms(recipe, SPECIAL_TOKENS), recipe.evaluate.normalizer)
    jobs: Iterable[SplitJob] = _jobs(recipe, run, inspect, engine)
    if merge:
        jobs = list(jobs)
        _require_blocks(jobs, run.prepare_work)
    splits = dict[str, SplitResult]()
    for job in jobs:
        job.discard_outdated()
        splits[job.split] = job.audit()
    if "replay" in splits:
        rename_shared_ids(splits["replay"], splits["train"])
    _check_leaks(splits, recipe.data.allow_leaks)
    if recipe.data.terms and "test" in splits:
        references = [item.text for item in splits["test"].items()]
        for note in notes_on_signs(read_terms(recipe.data.terms), recipe.evaluate.normalizer, references):
            log.info("terms  %s", note)
    with_keywords = [split for split, result in splits.items() if result.has_keywords]
    test = SplitItems(splits["test"]) if "test" in splits else []
    for line in unused_settings(recipe, test, with_keywords):
        log.warning(line)
    hashes = _write(splits, run, started_at)
    shutil.rmtree(run.prepare_work, ignore_errors=True)
    if path := cache_file():
        prune_cache(path)
    return PrepareResult(
        kept={split: result.num_kept for split, result in splits.items()},
        hours={split: round(result.seconds / 3600, 4) for split, result in splits.items()},
        dropped={split: result.dropped.total for split, result in splits.items()},
        hashes=hashes,
        seconds=round(time.monotonic() - started, 1),
    )


def prepare_shard(recipe: Recipe, run: RunDir, shard: Shard, inspect: Inspect = inspect_audio) -> None:
    """Checks the rows of one job of an array. Writes only the results of its blocks, which `prepare` then reads.

    Raises:
        DataError: a source cannot be read.
    """
    (run.prepare_work / SHARDS).mkdir(parents=True, exist_ok=True)
    (run.prepare_work / SHARDS / f"{shard.number}-{shard.count}").touch()
    for job in _jobs(recipe, run, inspect):
        job.check_shard(shard)


def _jobs(recipe: Recipe, run: RunDir, inspect: Inspect, engine: Engine = "local") -> Iterator[SplitJob]:
    """The splits of the recipe in their order. A corpus is read when its split is asked for."""
    path = cache_file()
    inspect = CachedInspect(path, inspect) if path else inspect
    place = Workplace(run.prepare_work, run.media, Path(recipe.runs), recipe.machine.prepare_workers, inspect, engine)
    return (SplitJob(split, recipe.data, place) for split in SPLITS if getattr(recipe.data, split))


def _require_blocks(jobs: list[SplitJob], work: Path) -> None:
    """Raises DataError if a block is not checked yet; names the jobs of the array that have not finished."""
    missing = {job.split: numbers for job in jobs if (numbers := job.missing_blocks())}
    if not missing:
        return
    blocks = ", ".join(f"{len(numbers)} of data.{split}" for split, numbers in missing.items())
    started = sorted((work / SHARDS).glob("*-*"), key=lambda path: path.stat().st_mtime)
    advice = "run `finetune prepare RECIPE`, which checks them, or an array of jobs with --shard NUMBER/COUNT"
    if started:
        count = int(started[-1].name.partition("-")[2])
        shards = sorted({number % count + 1 for numbers in missing.values() for number in numbers})
        names = ", ".join(f"{number}/{count}" for number in shards[:10]) + (" ..." if len(shards) > 10 else "")
        advice = f"run `finetune prepare RECIPE --shard` again for {names}"
    raise DataError(
        f"{work}: blocks of rows are missing ({blocks}), because jobs have not finished, or the recipe, the corpora or "
        f"their audio changed since; {advice}"
    )


def _check_leaks(splits: dict[str, SplitResult], allow_leaks: bool) -> None:
    """Adds a warning for each leak into a scored split from a training split, and of audio from valid.

    Raises:
        DataError: audio of a training split leaks, and `allow_leaks` is false.
    """
    errors = []
    pairs = [*product(TRAINING_SPLITS, SCORED_SPLITS), ("valid", "test"), ("valid", "canary")]
    for source, scored in (pair for pair in pairs if splits.keys() >= {*pair}):
        leaks = find_leaks(splits[source], splits[scored], source)
        copies = [leak for leak in leaks if is_refused(leak)]
        if source == "valid":  # valid chooses the adapter: only its audio must not be scored again
            leaks = copies
        elif copies:
            errors.append(f"data.{scored}: the audio of {len(copies)} of its utterances is also in data.{source}")
        splits[scored].add_warnings(leaks)
        if shown := [leak for leak in leaks if not leak.kind.startswith("speaker")]:  # the report names speakers
            log.info("%s: %s", scored, format_problems(shown))
    if errors and not allow_leaks:
        raise DataError(f"{'; '.join(errors)}: the scores would be too good. Remove it or set data.allow_leaks: true")


def _write(splits: dict[str, SplitResult], run: RunDir, started: int) -> dict[str, str]:
    """Writes the files in `manifests/`; returns the hash of each manifest."""
    run.manifests.mkdir(parents=True, exist_ok=True)
    for rest in run.manifests.glob(".*.tmp"):  # of a killed process
        rest.unlink(missing_ok=True)
    write_problems(run.problems, splits)
    write_style(run.style, {split: result.style for split, result in splits.items()})
    record_audio_files(run, {split: result.recorded(started, run.media) for split, result in splits.items()})
    hashes = dict[str, str]()
    for split, result in splits.items():
        hashes[split] = result.publish(run.manifest(split))
        open_manifest(run.manifest(split))  # makes the table beside it
    return hashes
