"""Synthesizes planned clips, checks them, and writes the manifest. Finished clips are used again after a stop."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock

import soundfile

from finetune.core.errors import DataError, FinetuneError
from finetune.core.files import read_jsonl, write_bytes, write_json, write_text
from finetune.core.options import SynthesisOptions, field_names
from finetune.core.progress import advance, task
from finetune.core.wording import count
from finetune.core.worker_pool import available_cores
from finetune.curation.clip_audio import flac_bytes, to_clip
from finetune.curation.clip_check import reason_against, transcribe_clips
from finetune.curation.synthesis_plan import PlannedClip
from finetune.curation.voices.registry import full_name
from finetune.data.audio import SAMPLE_RATE
from finetune.data.manifest import Utterance, write_manifest
from finetune.data.normalizer_choice import normalizer_for
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)

NO_SOUND = "the voice wrote no sound"
NORMALIZER = "basic@1"  # the normalizer of the check, except for Japanese


@dataclass(frozen=True)
class SynthesisFiles:
    """The results in a folder, and what is kept to continue after a stop."""

    folder: Path

    @property
    def clips(self) -> Path:
        return self.folder / "clips.jsonl"

    @property
    def set_aside(self) -> Path:
        return self.folder / "set_aside.jsonl"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def transcripts(self) -> Path:
        return self.folder / "transcripts.jsonl"

    @property
    def sentences(self) -> Path:
        return self.folder / "sentences.json"

    def audio(self, clip_id: str) -> Path:
        return self.folder / self.relative(clip_id)

    def relative(self, clip_id: str) -> str:
        """The path of a clip in the folder, as in the manifest; so the folder can be moved."""
        return f"audio/{clip_id}.flac"


@dataclass(frozen=True)
class SynthesisSummary:
    """Totals. `set_aside` has the number of clips by reason, `clips_by_voice` those that were kept."""

    clips: int
    seconds: float
    terms: int
    clips_by_voice: dict[str, int]
    fewest_clips_of_a_term: int
    set_aside: dict[str, int]


def prepare_folder(files: SynthesisFiles) -> None:
    """Creates the folder. Raises DataError if it cannot be written."""
    trial = files.folder / ".writable"
    try:
        files.audio("").parent.mkdir(parents=True, exist_ok=True)
        write_bytes(trial, b"")
        trial.unlink()
    except OSError as error:
        raise DataError(
            f"{files.folder}: cannot be written ({error.strerror}); choose another folder for -o"
        ) from error


def replace_results(files: SynthesisFiles, plan: Sequence[PlannedClip], overwrite: bool) -> None:
    """Removes the results of other arguments, with `overwrite` only. Those of the same arguments stay.

    Raises:
        DataError: the folder has the results of other arguments.
    """
    planned = {clip.id for clip in plan}
    old = {str(row.get("id")) for path in (files.clips, files.set_aside) if path.is_file() for row in read_jsonl(path)}
    if old and old != planned:
        if not overwrite:
            raise DataError(
                f"{files.clips}: exists already, made with other arguments; choose another folder, or add --overwrite "
                "to replace it"
            )
        unused = [files.audio(name) for name in old - planned if "/" not in name]
        for path in (files.clips, files.set_aside, files.summary, *unused):
            path.unlink(missing_ok=True)


def synthesize_clips(plan: Sequence[PlannedClip], files: SynthesisFiles, workers: int) -> None:
    """Writes the audio of each clip that has no file yet, one file at a time and atomically.

    Raises:
        VoiceError, ModelError: a voice failed; the message has the clip, and how many are finished.
    """
    missing = [clip for clip in plan if not files.audio(clip.id).is_file()]
    if len(missing) < len(plan):
        log.info("%d of %d clips exist already", len(plan) - len(missing), len(plan))
    locks = {full_name(clip.voice): Lock() for clip in missing if not clip.voice.parallel}
    pool = ThreadPoolExecutor(workers or available_cores())
    with task("synthesize", len(missing)):
        jobs = {
            pool.submit(_write, clip, files, locks.get(full_name(clip.voice), nullcontext())): clip for clip in missing
        }
        try:
            _collect(jobs)
        except FinetuneError as error:
            pool.shutdown(cancel_futures=True)
            finished = sum(files.audio(clip.id).is_file() for clip in plan)
            raise type(error)(
                f"{error}\n{finished} of {count(len(plan), 'clip')} are finished and are kept in "
                f"{files.folder / 'audio'}; rerun the same command to resume, or leave this voice out"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _collect(jobs: dict[Future[None], PlannedClip]) -> None:
    """Waits for all jobs. Raises the first error, with the clip's voice and text."""
    remaining = set(jobs)
    while remaining:
        done, remaining = wait(remaining, timeout=1.0, return_when=FIRST_EXCEPTION)
        for job in done:
            advance(1)
            if isinstance(error := job.exception(), FinetuneError):
                clip = jobs[job]
                raise type(error)(f"voice {full_name(clip.voice)}, {clip.sentence.text!r}: {error}") from error
            if error:
                raise error


def _write(clip: PlannedClip, files: SynthesisFiles, lock: AbstractContextManager[object]) -> None:
    with lock:
        sound = clip.voice.speak(clip.line)
    write_bytes(files.audio(clip.id), flac_bytes(to_clip(sound)))


def write_results(
    plan: Sequence[PlannedClip], files: SynthesisFiles, model: SpeechModel | None, options: SynthesisOptions
) -> SynthesisSummary:
    """Checks the clips with the model, if there is one, and writes manifest, clips set aside and summary."""
    rows = [_utterance(clip, files, options) for clip in plan]
    audible = [row for row in rows if row.duration]
    hypotheses = transcribe_clips(model, audible, files.transcripts) if model else {}
    kept, aside, reasons = list[Utterance](), list[dict[str, object]](), Counter[str]()
    for row, clip in zip(rows, plan, strict=True):
        reason = "" if row.duration else NO_SOUND
        if row.id in hypotheses:
            preset = normalizer_for([row], NORMALIZER)
            terms = clip.sentence.terms
            reason = reason_against(row.text, terms, hypotheses[row.id], preset, options.max_general_errors)
        if reason:
            details = {"id": row.id, "audio_filepath": files.relative(row.id), "text": row.text, "voice": row.speaker}
            aside.append(details | {"reason": reason, "pred_text": hypotheses.get(row.id)})
            reasons[NO_SOUND if reason == NO_SOUND else "the model misses too many general words"] += 1
        else:
            kept.append(row)
    kept_ids = {row.id for row in kept}
    counts = Counter({term: 0 for clip in plan for term in clip.sentence.terms})
    counts.update(term for clip in plan if clip.id in kept_ids for term in clip.sentence.terms)
    summary = SynthesisSummary(
        clips=len(kept),
        seconds=round(sum(row.duration for row in kept), 2),
        terms=len(counts),
        clips_by_voice=dict(Counter(row.speaker for row in kept)),
        fewest_clips_of_a_term=min(counts.values(), default=0),
        set_aside=dict(reasons),
    )
    write_text(files.set_aside, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in aside))
    write_manifest(files.clips, [replace(row, audio_filepath=files.relative(row.id)) for row in kept])
    settings = {name: getattr(options, name) for name in field_names(SynthesisOptions)}
    write_json(files.summary, asdict(summary) | {"options": settings | {"checked": model is not None}})
    return summary


def _utterance(clip: PlannedClip, files: SynthesisFiles, options: SynthesisOptions) -> Utterance:
    """The row of a clip, with a duration of 0 if its voice wrote no sound."""
    path = files.audio(clip.id).absolute()
    extra: dict[str, object] = {"synthetic": True, "engine": clip.voice.engine, "voice": clip.voice.name}
    if clip.sentence.terms:
        extra["term"] = ", ".join(clip.sentence.terms)
    if (spoken := clip.line.text) != clip.sentence.text:
        extra["spoken_as"] = spoken
    return Utterance(
        id=clip.id,
        audio_filepath=str(path),
        duration=_duration(path),
        text=clip.sentence.text,
        language=options.language,
        speaker=full_name(clip.voice),
        extra=extra,
    )


def _duration(path: Path) -> float:
    """Seconds of a clip; 0 for the empty file of a clip without sound."""
    try:
        return soundfile.info(path).frames / SAMPLE_RATE if path.stat().st_size else 0.0
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{path}: cannot be read; delete this file and run the same command again") from error
