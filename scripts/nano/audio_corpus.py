"""Speaks the texts: shards of int16 samples at 16 kHz with a JSON index. Can be stopped anywhere and continued.

An unfinished shard is NNNN.part.i16 with NNNN.part.jsonl, one line for each clip. NNNN.rejected.jsonl has the clips
that were left out, with the reason.
"""

import fcntl
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache as remember
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.errors import FinetuneError, VoiceError
from finetune.curation.clip_audio import speech_bounds
from finetune.curation.voices.voice import Sound
from finetune.data.audio import SAMPLE_RATE
from nano.audio_plan import Hours, PlannedClip, Shard, held_out_shards, plan_shard, read_texts, texts_for
from nano.clip_shape import fault, shape, to_wave
from nano.voice_engines import line_for, open_voice, use_programs

GUESSED_HOURS = 0.2  # of a shard that is being made
MAX_REJECTED = 0.3  # of a shard; more means that the voice is broken
Speak = Callable[[PlannedClip, np.random.Generator], Sound]
Row = dict[str, Any]


class ShardFiles:
    """The files of a shard. Rows that are complete are kept after a stop; what follows them is cut off."""

    def __init__(self, path: Path) -> None:
        self.samples, self.index = path.with_suffix(".i16"), path.with_suffix(".json")
        self.part, self.rows_part = path.with_suffix(".part.i16"), path.with_suffix(".part.jsonl")
        self.rejected = path.with_suffix(".rejected.jsonl")

    def read_rows(self, clips: Sequence[PlannedClip]) -> list[Row]:
        """The rows of the unfinished shard as planned, rejected ones too; cuts both files to them."""
        available, rows, end, kept = self.part.stat().st_size // 2, list[Row](), 0, 0
        for line, clip in zip(self.rows_part.read_bytes().splitlines(keepends=True), clips, strict=False):
            row = json.loads(line) if line.endswith(b"\n") else {}
            if not row or row["start"] + row["num_samples"] > available:
                break
            if (row["id"], row["voice"]) != (clip.text["id"], clip.voice.full_name):  # the texts were made anew
                break
            rows.append(row)
            end, kept = row["start"] + row["num_samples"], kept + len(line)
        os.truncate(self.part, 2 * end)
        os.truncate(self.rows_part, kept)
        return rows

    def finish(self, rows: list[Row]) -> None:
        """Writes the index last, so that a shard with an index is complete."""
        rejected = [row for row in rows if "rejected" in row]
        if rejected:
            self.rejected.write_text("".join(_line(row) for row in rejected), encoding="utf-8")
        self.part.replace(self.samples)
        temporary = self.index.with_suffix(".tmp")
        temporary.write_text(json.dumps([row for row in rows if "rejected" not in row], ensure_ascii=False))
        temporary.replace(self.index)
        self.rows_part.unlink()


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def write_shard(
    path: Path, clips: Iterable[PlannedClip], speak: Speak, stop: Callable[[], bool] = lambda: False
) -> bool:
    """Speaks the clips of a shard that are missing. Returns whether it is complete, False if `stop` says so.

    Raises:
        VoiceError: too many clips cannot be used, or another process makes this shard.
    """
    files = ShardFiles(path)
    if files.index.exists():
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.rows_part.open("a", encoding="utf-8") as index, files.part.open("ab") as samples:
        try:
            fcntl.flock(index, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise VoiceError(f"{path}: another process makes this shard; wait for it, or stop it") from error
        clips = list(clips)
        rows = files.read_rows(clips)
        for clip in clips[len(rows) :]:
            if stop():
                return False
            wave, row = make_clip(clip, speak)
            row |= {"start": rows[-1]["start"] + rows[-1]["num_samples"] if rows else 0, "num_samples": len(wave)}
            samples.write(wave.tobytes())
            samples.flush()
            index.write(_line(row))
            index.flush()
            rows.append(row)
    reasons = Counter(row["rejected"] for row in rows if "rejected" in row)
    if reasons.total() > MAX_REJECTED * len(rows):
        raise VoiceError(f"{path}: {reasons.total()} of {len(rows)} clips cannot be used: {dict(reasons)}")
    files.finish(rows)
    return True


def make_clip(clip: PlannedClip, speak: Speak) -> tuple[np.ndarray, Row]:
    """The samples (N,) of a clip and its row; no samples and a reason if it cannot be used."""
    rng, text = np.random.default_rng(clip.seed()), clip.text
    row: Row = {"id": text["id"], "text": text["text"], "language": clip.voice.language, "voice": clip.voice.full_name}
    row |= {"engine": clip.voice.engine, "kind": text["kind"], "split": text["split"]}
    if phrase := text.get("phrase"):
        row["phrase"] = phrase
    try:
        sound = speak(clip, rng)
        wave, failure = to_wave(sound), ""
    except FinetuneError as error:
        wave, failure = np.zeros(0, np.float32), f"failed: {error}"
    bounds = speech_bounds(wave)
    if reason := failure or fault(sound.samples, bounds[1] - bounds[0], clip.spoken, clip.voice.language):
        return np.zeros(0, np.int16), row | {"rejected": reason}
    return shape(wave, bounds, rng), row


@remember
def _texts(cache: Path, language: str, held_out: bool) -> list[Row]:
    return texts_for(read_texts(cache, language), held_out)


def _make(shard: Shard, cache: Path, end_time: float) -> bool:
    def speak(clip: PlannedClip, rng: np.random.Generator) -> Sound:
        return open_voice(clip.voice, cache / "voices").speak(line_for(clip.voice, clip.spoken, rng))

    parent = os.getppid()
    clips = plan_shard(shard, _texts(cache, shard.language, shard.held_out))
    return write_shard(shard.path(cache), clips, speak, lambda: time.time() > end_time or os.getppid() != parent)


def shard_hours(path: Path) -> float:
    """The audio of a complete shard; 0 if it is not complete."""
    return (
        path.with_suffix(".i16").stat().st_size / 2 / SAMPLE_RATE / 3600 if path.with_suffix(".json").exists() else 0.0
    )


class Planner:
    """The next shard to make: that of the engine and language with the smallest part of its hours.

    So a corpus that is not finished has all voices in proportion. Held-out shards come in a fixed order.
    """

    def __init__(self, cache: Path, hours: Hours, engines: Iterable[str], held_out: bool) -> None:
        self.cache, self.goals, engines = cache, hours, list(engines)
        self.hours = {
            (engine, language): 0.0 for language in hours for engine in engines if hours[language].get(engine)
        }
        self.numbers = dict.fromkeys(self.hours, 0)
        self.fixed = [s for language in hours for engine in engines for s in held_out_shards(engine, language)]
        self.held_out = held_out

    def next_shard(self) -> Shard | None:
        """A shard that is not complete, each once; None after the last."""
        while self.fixed if self.held_out else self._open_pairs():
            if self.held_out:
                shard = self.fixed.pop(0)
            else:
                engine, language = pair = min(self._open_pairs(), key=self._progress)
                shard = Shard(engine, language, self.numbers[pair])
                self.numbers[pair] += 1
                self.hours[pair] += shard_hours(shard.path(self.cache)) or GUESSED_HOURS
            if not shard_hours(shard.path(self.cache)):
                return shard
        return None

    def count(self, shard: Shard) -> None:
        """Replaces the guess for a shard by its hours."""
        if not self.held_out:
            self.hours[shard.engine, shard.language] += shard_hours(shard.path(self.cache)) - GUESSED_HOURS

    def _open_pairs(self) -> list[tuple[str, str]]:
        return [pair for pair in self.hours if self._progress(pair) < 1]

    def _progress(self, pair: tuple[str, str]) -> float:
        return self.hours[pair] / self.goals[pair[1]][pair[0]]


def build_audio(
    cache: Path, hours: Hours, engines: Iterable[str], held_out: bool, workers: int, end_time: float
) -> bool:
    """Makes the missing shards in `workers` processes. Returns whether all are complete.

    `hours` are those of each engine by language.

    Raises:
        FinetuneError: a voice is not installed or is broken.
    """
    planner, running, complete = Planner(cache, hours, engines, held_out), dict[Future[bool], Shard](), True
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, use_programs, (cache / "voices" / "debian",)) as pool:
        while True:
            while len(running) < workers and time.time() < end_time and (shard := planner.next_shard()):
                running[pool.submit(_make, shard, cache, end_time)] = shard
            if not running:
                return complete and time.time() < end_time
            for job in wait(running, return_when=FIRST_COMPLETED).done:
                shard = running.pop(job)
                complete &= job.result()
                planner.count(shard)
                print(f"{shard.path(cache)}: {shard_hours(shard.path(cache)) * 60:.1f} minutes", flush=True)
