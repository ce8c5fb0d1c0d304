"""Keeps the hypotheses of systems that transcribe, and uses them again for the same clips, system and options.

Each system has a file `NAME-HASH.jsonl` in the folder, in the format that `finetune compare` reads. A row has a `key`,
the hash of everything its text depends on; a row with another key, or a clip without a row, is transcribed again.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.core.files import read_jsonl
from finetune.core.wording import count
from finetune.data.audio_state import FileState, file_state, remote_states
from finetune.data.byte_range import file_of, is_url
from finetune.data.manifest import Utterance
from finetune.evaluation.systems import System, SystemHypotheses, Transcriber, run_system
from finetune.metrics.sclite import write_rows
from finetune.metrics.scorecard import SystemOutput
from finetune.version import __version__

log = logging.getLogger(__name__)

UNUSED_FIELDS = ("text", "speaker")  # fields of an utterance that no system gets


def run_and_keep(
    system: System, clips: Sequence[Utterance], folder: Path, transcribers: Mapping[str, Transcriber]
) -> SystemHypotheses:
    """Transcribes the clips of which the folder has no hypothesis of this system, and writes all of them to it.

    A failed clip has no row, so it is transcribed again next time. If the file cannot be written, a warning says so.

    Raises:
        See `systems.run_system`.
    """
    path = kept_file(folder, system)
    identity = [system.kind, system.source, __version__, _state(system)]
    states = remote_states({file for clip in clips if is_url(file := file_of(clip.audio_filepath))})
    keys = [_hash([*identity, _decisive_fields(clip, states)]) for clip in clips]
    kept = _read(path)
    rows = [kept.get(key) for key in keys]
    missing = [clip for clip, row in zip(clips, rows, strict=True) if row is None]
    if not missing:
        about = str(next(row["about"] for row in rows if row))
        log.info("%s: %s reused from %s", system.name, count(len(clips), "hypothesis", "hypotheses"), path)
        return SystemHypotheses([_output(row) for row in rows], about, reused=len(clips), file=str(path))
    if reused := len(clips) - len(missing):
        log.info("%s: %d of %d hypotheses reused from %s", system.name, reused, len(clips), path)
    new = (
        transcribers[system.kind](system.source, missing) if reused else run_system(system, missing, transcribers)
    )  # a clip that always fails is no reason to stop if others are kept
    outputs = iter(new.outputs)
    merged = [_output(row) if row else next(outputs) for row in rows]
    written = [
        _row(clip, output, key, row["about"] if row else new.about)
        for clip, output, key, row in zip(clips, merged, keys, rows, strict=True)
        if output is not None
    ]
    try:
        write_rows(path, written)
    except OSError as error:
        log.warning("%s: the hypotheses cannot be kept (%s)", path, error.strerror)
        return replace(new, outputs=merged, reused=reused)
    return replace(new, outputs=merged, reused=reused, file=str(path))


def kept_file(folder: Path, system: System) -> Path:
    """The file of a system; its hash keeps names apart that differ in other characters only."""
    name = re.sub(r"[^\w.-]+", "_", system.name)[-60:].strip("_.")
    return folder / f"{name}-{_hash(system.name)[:8]}.jsonl"


def _state(system: System) -> list[Any]:
    """What else decides the text of a system: the files of a model folder, or the address of an endpoint."""
    if system.kind == "openai":
        return [os.environ.get("OPENAI_BASE_URL", "")]
    files = [path for path in sorted(Path(system.source).rglob("*")) if path.is_file()]
    return [[str(path), (status := path.stat()).st_size, status.st_mtime_ns] for path in files]


def _decisive_fields(clip: Utterance, states: Mapping[str, FileState | None]) -> dict[str, Any]:
    """The fields of a clip that decide its hypothesis, with the state of its audio file."""
    fields = {name: value for name, value in asdict(clip).items() if name not in UNUSED_FIELDS}
    state = states.get(file_of(clip.audio_filepath)) or file_state(clip.audio_filepath)
    return fields if state is None else {**fields, "audio": state}


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The rows by key; none if the file is missing or damaged."""
    try:
        rows = {str(row["key"]): row for row in read_jsonl(path)}
        for row in rows.values():
            _output(row)
            str(row["about"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        log.warning("%s: cannot be used again (%s); transcribing all clips", path, error)
        return {}
    return rows


def _output(row: Mapping[str, Any] | None) -> SystemOutput | None:
    return None if row is None else SystemOutput(str(row["pred_text"]), float(row["time"]), bool(row["truncated"]))


def _row(clip: Utterance, output: SystemOutput, key: str, about: str) -> dict[str, Any]:
    return {
        "id": clip.id,
        "audio_filepath": clip.audio_filepath,
        "duration": clip.duration,
        "text": clip.text,
        "pred_text": output.text,
        "time": output.seconds,
        "truncated": output.truncated,
        "about": about,
        "key": key,
    }
