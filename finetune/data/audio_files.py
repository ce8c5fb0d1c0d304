"""Notices audio files that changed after `finetune prepare`, by size and time first, then by the digest of the samples.

Sizes and times are in a file beside the manifests, not in them: a copied run directory has the same manifests. The
state of a remote file or archive is recorded by the first check, and compared by the next ones.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.core.files import replaced_file
from finetune.core.run_dir import RunDir
from finetune.core.wording import count, first_of, verb
from finetune.core.worker_pool import available_cores
from finetune.data.audio import inspect_audio
from finetune.data.audio_state import remote_states
from finetune.data.byte_range import file_of, is_url
from finetune.data.kept_rows import UNKNOWN, Columns, cached_status
from finetune.data.manifest import Utterance
from finetune.data.utterance_table import UtteranceTable, open_manifest

log = logging.getLogger(__name__)

Unreadable = dict[str, dict[str, str]]  # by split and utterance id, why the audio cannot be read
States = dict[str, NDArray[np.int64]]  # by split, size and time of the audio file of each row (n, 2)
SHOWN = 3  # clips that an error message lists
CHANGED = "other samples"
MAX_REMOTE = 10_000  # remote files and archives that are asked for at each start


def record_audio_files(run: RunDir, splits: Mapping[str, Iterable[Columns]]) -> None:
    """Writes size and time of the audio file of each row of the manifests.

    Args:
        run: its directory.
        splits: the columns of `kept_rows` of each split.
    """
    _write(
        run,
        {
            split: np.concatenate([np.stack([block["size"], block["time"]], axis=1) for block in blocks])
            for split, blocks in splits.items()
        },
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
    return _compare(run, {split: open_manifest(path) for split, path in manifests.items()})


def require_audio_files(run: RunDir, splits: Mapping[str, Sequence[Utterance]]) -> None:
    """The check of `check_audio_files` for some splits, in which every clip must be readable.

    Raises:
        DataError: the audio of a clip has other samples, or cannot be read.
    """
    if run.audio_files.is_file():
        for split, reasons in _compare(run, splits).items():
            clips = [f"{name} ({reason})" for name, reason in reasons.items()]
            raise DataError(
                f"data.{split}: the audio of {len(reasons)} of {count(len(splits[split]), 'clip')} can no "
                "longer be read: "
                f"{first_of(clips, SHOWN, '; ')}. Scores without them are of "
                "another set: restore the files, or start again under another name (--set name=...), without these "
                "clips"
            )


def _compare(run: RunDir, splits: Mapping[str, Sequence[Utterance]]) -> Unreadable:
    recorded, states, rows, unreadable = _read(run), States(), list[tuple[str, int, Utterance]](), Unreadable()
    is_updated = False
    for split, items in splits.items():
        states[split], is_remote = _states(items)
        if len(recorded.get(split, ())) != len(items):  # damaged, or the manifest was edited
            recorded[split] = np.full_like(states[split], UNKNOWN)
        is_new = is_remote & (recorded[split][:, 0] == UNKNOWN)
        recorded[split][is_new] = states[split][is_new]
        is_unknown = states[split][:, 0] == UNKNOWN
        for number in np.flatnonzero(is_remote & is_unknown).tolist():
            reason = f"{file_of(items[number].audio_filepath)}: cannot be reached"
            unreadable.setdefault(split, {})[items[number].id] = reason
        differs = (states[split] != recorded[split]).any(axis=1)
        suspects = np.flatnonzero(np.where(is_remote, differs & ~is_unknown, differs | is_unknown))
        rows += [(split, number, items[number]) for number in suspects.tolist()]
        is_updated = is_updated or bool(is_new.any())
    if rows:
        _compare_samples(run, rows, recorded, states, unreadable)
    if rows or is_updated:
        _write(run, recorded)
    return unreadable


def _compare_samples(
    run: RunDir, rows: list[tuple[str, int, Utterance]], recorded: States, states: States, unreadable: Unreadable
) -> None:
    """Decodes the audio of some rows, each with its split and number; updates `recorded` and `unreadable`."""
    files = len({item.audio_filepath for _, _, item in rows})
    log.info("comparing the audio of %s in %s with `finetune prepare`", count(len(rows), "clip"), count(files, "file"))
    with ThreadPoolExecutor(available_cores()) as pool:
        problems = list(pool.map(_problem, (item for _, _, item in rows)))
    checked = list(zip(rows, problems, strict=True))
    changed = [f"{item.id} ({item.audio_filepath})" for (_, _, item), problem in checked if problem == CHANGED]
    if changed:
        raise DataError(
            f"{run.manifests}: {count(len(changed), 'clip')} {verb(len(changed), 'has', 'have')} other audio than "
            f"`finetune prepare` has read: {first_of(changed, SHOWN, '; ')}. Restore these files, or start again "
            f"under another name (--set name=...); if nothing was trained, delete {run.marker('prepare')} to prepare "
            "again"
        )
    for (split, number, item), problem in checked:
        if problem is None:
            recorded[split][number] = states[split][number]
        else:
            unreadable.setdefault(split, {})[item.id] = problem


def _problem(item: Utterance) -> str | None:
    """Why the audio cannot be read, or CHANGED; None if it has the samples of the manifest."""
    try:
        digest = inspect_audio(item.audio_filepath, item.offset, item.duration, item.channel).digest
    except DataError as error:
        return str(error)
    return None if digest == item.audio_digest or not item.audio_digest else CHANGED


def _states(items: Sequence[Utterance]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Size and time of the file of each utterance (n, 2), UNKNOWN if it cannot be read; which are remote (n,)."""
    status_of = cached_status()
    statuses = map(status_of, _paths(items))
    numbers = ((UNKNOWN, UNKNOWN) if status is None else (status.st_size, status.st_mtime_ns) for status in statuses)
    states: NDArray[np.int64] = np.fromiter(numbers, np.dtype((np.int64, 2)), len(items))
    urls = dict[str, int]()
    files = np.fromiter(
        (urls.setdefault(file_of(path), len(urls)) if is_url(path) else -1 for path in _paths(items)),
        np.int32,
        len(items),
    )
    is_remote = files >= 0
    if len(urls) > MAX_REMOTE:
        log.info("%d remote files are too many to ask for, so their audio is not compared", len(urls))
        states[is_remote] = 0
    elif urls:
        url_states = remote_states(urls).values()
        states[is_remote] = np.array([state or (UNKNOWN, UNKNOWN) for state in url_states], np.int64)[files[is_remote]]
    return states, is_remote


def _paths(items: Sequence[Utterance]) -> Iterator[str]:
    if isinstance(items, UtteranceTable):
        return items.texts("audio_filepath")
    return (item.audio_filepath for item in items)


def _read(run: RunDir) -> States:
    """The recorded states; none if the file is damaged."""
    try:
        with np.load(run.audio_files, allow_pickle=False) as file:
            states = {split: file[split] for split in file.files}
        if all(array.ndim == 2 and array.dtype == np.int64 for array in states.values()):
            return states
        reason: object = "other columns"
    except Exception as error:  # NumPy raises many types
        reason = error
    log.warning("%s: damaged, so the samples of all clips are compared (%s)", run.audio_files, reason)
    return {}


def _write(run: RunDir, states: States) -> None:
    with replaced_file(run.audio_files) as temporary, open(temporary, "wb") as file:
        np.savez(file, **states)  # type: ignore[arg-type]
