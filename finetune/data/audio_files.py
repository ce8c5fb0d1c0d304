"""Notices audio files that changed after `finetune prepare`, by size and time first, then by the digest of the samples.

Sizes and times are in a file beside the manifests, not in them: a copied run directory has the same manifests.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from finetune.core.errors import DataError
from finetune.core.files import read_json, write_json
from finetune.core.run_dir import RunDir
from finetune.data.audio import inspect_audio
from finetune.data.manifest import Utterance, read_manifest

log = logging.getLogger(__name__)

Unreadable = dict[str, dict[str, str]]  # by split and utterance id, why the audio cannot be read
SHOWN = 3  # clips that an error message lists
CHANGED = "other samples"
WORKERS = 2  # threads that decode


def record_audio_files(run: RunDir, splits: Mapping[str, Iterable[Utterance]], started: int) -> None:
    """Writes size and time of each audio file of the manifests.

    Args:
        run: its directory.
        splits: the utterances of each split.
        started: nanoseconds since 1970 when `prepare` began. A file that was written after that, except by `prepare`,
            is not recorded, so the next stage compares its samples.
    """
    states = {item.audio_filepath: _state(item.audio_filepath) for items in splits.values() for item in items}
    media = f"{run.media}{os.sep}"
    write_json(
        run.audio_files,
        {path: state for path, state in states.items() if state and (state[1] < started or path.startswith(media))},
    )


def check_audio_files(run: RunDir) -> Unreadable:
    """Compares the audio of all splits with what `finetune prepare` has read.

    A file of the same size and time is not opened. Any other file is decoded, and the digest of each clip compared. A
    run that an earlier version prepared has no record and is not checked.

    Returns:
        The clips whose audio cannot be read.

    Raises:
        DataError: the audio of a clip has other samples.
    """
    if not run.audio_files.is_file():
        return {}
    manifests = {path.stem: path for path in sorted(run.manifests.glob("*.jsonl"))}
    return _compare(run, {split: read_manifest(path) for split, path in manifests.items()})


def require_audio_files(run: RunDir, splits: Mapping[str, Sequence[Utterance]]) -> None:
    """The check of `check_audio_files` for some splits, in which every clip must be readable.

    Raises:
        DataError: the audio of a clip has other samples, or cannot be read.
    """
    if run.audio_files.is_file():
        for split, reasons in _compare(run, splits).items():
            raise DataError(
                f"data.{split}: the audio of {len(reasons)} of {len(splits[split])} clips can no longer be read: "
                f"{_listed([f'{name} ({reason})' for name, reason in reasons.items()])}. Scores without them are of "
                "another set: restore the files, or start again under another name (--set name=...), without these "
                "clips"
            )


def _compare(run: RunDir, splits: Mapping[str, Sequence[Utterance]]) -> Unreadable:
    try:
        recorded: dict[str, object] = dict(read_json(run.audio_files))
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s: damaged, so the samples of all clips are compared (%s)", run.audio_files, error)
        recorded = {}
    states = {item.audio_filepath: _state(item.audio_filepath) for items in splits.values() for item in items}
    suspects = {path for path, state in states.items() if state is None or recorded.get(path) != state}
    rows = [(split, item) for split, items in splits.items() for item in items if item.audio_filepath in suspects]
    if not rows:
        return {}
    log.info("comparing the audio of %d clips in %d files with `finetune prepare`", len(rows), len(suspects))
    with ThreadPoolExecutor(WORKERS) as pool:
        problems = list(pool.map(_problem, (item for _, item in rows)))
    found = list(zip(rows, problems, strict=True))
    changed = [f"{item.id} ({item.audio_filepath})" for (_, item), problem in found if problem == CHANGED]
    if changed:
        raise DataError(
            f"{run.manifests}: {len(changed)} clips have other audio than `finetune prepare` has read: "
            f"{_listed(changed)}. Restore these files, or start again under another name (--set name=...); if "
            f"nothing was trained, delete {run.marker('prepare')} to prepare again"
        )
    unreadable: Unreadable = {}
    for (split, item), problem in found:
        if problem is not None:
            unreadable.setdefault(split, {})[item.id] = problem
            suspects.discard(item.audio_filepath)
    write_json(run.audio_files, recorded | {path: states[path] for path in suspects})
    return unreadable


def _problem(item: Utterance) -> str | None:
    """Why the audio cannot be read, or CHANGED; None if it has the samples of the manifest."""
    try:
        digest = inspect_audio(item.audio_filepath, item.offset, item.duration, item.channel).digest
    except DataError as error:
        return str(error)
    return None if digest == item.audio_digest or not item.audio_digest else CHANGED


def _state(path: str) -> list[int] | None:
    """Size and time of a file; None if it cannot be read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _listed(items: Sequence[str]) -> str:
    return "; ".join(items[:SHOWN]) + (f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
