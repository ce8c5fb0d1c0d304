"""Writes some clips as training gets them, with the effects on each: `finetune preview`."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import read_json, write_json
from finetune.core.run_dir import RunDir
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.splits import TRAINING_SPLITS
from finetune.data.utterance_table import joined_tables, open_manifest
from finetune.training.augment import Applied, WaveAugment, sample_rng
from finetune.training.clip_table import ClipTable
from finetune.training.effects import Effects
from finetune.training.epoch_clips import epoch_clips, kinds_of
from finetune.training.sampler import Clips, Unreadable

TABLE = "preview.json"
MAX_NAME = 60  # characters of an id in a file name


@dataclass(frozen=True)
class PreviewClip:
    """A written clip.

    Attributes:
        file: its name.
        id: as in the manifest; concatenated clips are joined by "+".
        text: the transcript that is taught.
        seconds: its length after speed perturbation.
        effects: what was done to it, in order.
    """

    file: str
    id: str
    text: str
    seconds: float
    effects: list[Applied]


def write_preview(recipe: Recipe, run: RunDir, folder: Path, count: int, epoch: int) -> list[PreviewClip]:
    """Writes random clips of an epoch as WAV (32-bit float) and PreviewClip rows to `preview.json`.

    The samples are those that training gets, bit for bit. If the epoch has clips without speech, a fifth of the written
    clips are of these.

    Args:
        recipe: the recipe.
        run: its run directory, with manifests.
        folder: where to write; the files of an earlier preview are replaced.
        count: number of clips.
        epoch: from 0.

    Raises:
        DataError: no clip can be read, the folder cannot be written, or augmentation lacks a recording.
    """
    tables = [open_manifest(run.manifest(split)) for split in TRAINING_SPLITS if getattr(recipe.data, split)]
    base, counts = joined_tables(tables), (len(tables[0]), sum(map(len, tables[1:])))
    chosen = epoch_clips(recipe, base, counts, kinds_of(base) if recipe.augment.concat else [], epoch)
    table = ClipTable(base, chosen.added, chosen.occurrences, chosen.no_speech)
    augment = recipe.augment
    ranges = WaveAugment(augment.speed, augment.gain_db, augment.noise_db)
    clips = Clips(table, ranges, recipe.seed, epoch, Effects.of(augment, recipe.seed))
    speech = np.concatenate([chosen.singles, np.arange(len(base), len(base) + len(chosen.added), dtype=np.int32)])
    silent = np.arange(len(table) - len(chosen.no_speech), len(table), dtype=np.int32)
    rng = sample_rng(recipe.seed, epoch, "/preview")
    quiet = min(len(silent), -(-count // 5))
    picked = [*rng.permutation(speech)[: count - quiet].tolist(), *rng.permutation(silent)[:quiet].tolist()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _earlier(folder):
            (folder / name).unlink(missing_ok=True)
        rows = _write(clips, picked, folder)
        write_json(folder / TABLE, [asdict(row) for row in rows])
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return rows


def _earlier(folder: Path) -> list[str]:
    """The files of an earlier preview. Raises DataError if the folder has another `preview.json`."""
    table = folder / TABLE
    try:
        names = [str(row["file"]) for row in read_json(table)] if table.exists() else []
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{table}: exists and is not a table of a preview; choose another folder") from error
    return [name for name in names if Path(name).name == name]


def _write(clips: Clips, picked: Sequence[int], folder: Path) -> list[PreviewClip]:
    rows, reasons = list[PreviewClip](), list[str]()
    for index in picked:
        applied = list[Applied]()
        wave = clips.load_and_explain(index, load_utterance, applied)
        if isinstance(wave, Unreadable):
            reasons += wave.reasons.values()
            continue
        clip = clips.clips[index]
        name = f"{len(rows) + 1:02}-{re.sub(r'[^A-Za-z0-9._+-]', '_', clip.id)[:MAX_NAME]}.wav"
        soundfile.write(folder / name, wave, SAMPLE_RATE, subtype="FLOAT")
        rows.append(PreviewClip(name, clip.id, clip.text, round(len(wave) / SAMPLE_RATE, 3), applied))
    if not rows:
        raise DataError(f"no clip of the preview can be read: {reasons[0] if reasons else 'there is none'}")
    return rows


def format_preview(rows: Sequence[PreviewClip]) -> list[str]:
    """A line for each clip: its file, what was done, its text."""
    return [f"{row.file}  {row.seconds:.1f} s  {_effects(row.effects)}  {row.text or '(no speech)'}" for row in rows]


def _effects(applied: Sequence[Applied]) -> str:
    def text(item: Applied) -> str:
        values = ", ".join(f"{key} {value}" for key, value in item.details.items())
        return f"{item.effect} ({values})" if values else item.effect

    return "; ".join(map(text, applied)) or "unchanged"
