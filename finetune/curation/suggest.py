"""`finetune suggest`: which untranscribed clips to transcribe next."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from finetune.core.curation_options import SuggestOptions
from finetune.core.errors import RecipeError
from finetune.curation.adapted_model import AdaptedModel
from finetune.curation.machine_transcripts import MachineTranscript, preset_of, transcribe_clips
from finetune.curation.outputs import CurationFiles
from finetune.curation.ranking import Candidate, Ranked, rank
from finetune.curation.untranscribed import SetAside, count_reasons, read_untranscribed
from finetune.data.cells import clean_text
from finetune.data.corpora import read_corpus
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.utterance_table import open_manifest
from finetune.metrics.normalizer import normalize
from finetune.metrics.wer import errors_per_utterance, spaced


@dataclass(frozen=True)
class _Clip:
    """A clip with its hypothesis, and the text to compare with."""

    item: Utterance
    result: MachineTranscript
    other: str


@dataclass(frozen=True)
class Budget:
    """What can be transcribed; None is no limit. Raises RecipeError for a limit that is not more than 0."""

    clips: int | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("clips", self.clips), ("hours", self.hours)):
            if value is not None and not 0 < value < math.inf:
                raise RecipeError(f"--{name} {value:g}: must be more than 0")


@dataclass(frozen=True)
class SuggestSummary:
    """Totals.

    Attributes:
        clips: usable clips, with their `seconds`.
        suggested: clips in the manifest, with their `suggested_seconds`.
        near_copies: usable clips that are nearly the same as a better one.
        set_aside: number of unusable clips by reason.
        transcribed: rows of the source that have a transcript already; they are left out.
        compared: which two hypotheses give the disagreement.
        training_texts: number of known training texts.
    """

    clips: int
    seconds: float
    suggested: int
    suggested_seconds: float
    near_copies: int
    set_aside: dict[str, int]
    transcribed: int
    compared: str
    training_texts: int


def suggest(
    adapted: AdaptedModel,
    source: str,
    texts: Sequence[str],
    budget: Budget,
    options: SuggestOptions,
    files: CurationFiles,
) -> SuggestSummary:
    """Ranks untranscribed clips, and writes the best ones as a manifest without texts.

    Args:
        adapted: the model.
        source: see `read_untranscribed`.
        texts: corpora with the training texts, in addition to those of a run.
        budget: how many clips are suggested.
        options: how they are ranked.
        files: where the results go.

    Raises:
        DataError: the source or the texts cannot be used.
        ModelError: a model cannot be loaded.
    """
    trained = list(_training_texts(adapted, texts, files.media))
    model = adapted.load()
    audio = read_untranscribed(source, files.media, min(options.max_duration, adapted.max_duration))
    results = transcribe_clips(adapted, model, audio.clips, files.work, "hypotheses")
    aside, clips = list(audio.aside), list[_Clip]()
    others = _other_texts(adapted, audio.clips, results, files.work)
    for item, result, other in zip(audio.clips, results, others, strict=True):
        if result.speech:
            clips.append(_Clip(item, result, other))
        else:
            reason = f"audio cannot be read: {result.failure}" if result.failure else "no speech"
            aside.append(SetAside(item.id, item.audio_filepath, item.offset, item.duration, reason))
    preset = preset_of(audio.clips, results)
    ranked = rank(
        _candidates(clips, preset),
        Counter(word for text in trained for word in _words(text, preset)),
        options.max_similarity,
    )
    chosen = _within(ranked, clips, budget)
    rows = [_row(clips, row, place) for place, row in enumerate(chosen, 1)]
    summary = SuggestSummary(
        clips=len(clips),
        seconds=round(seconds_of(clip.item for clip in clips), 2),
        suggested=len(rows),
        suggested_seconds=round(seconds_of(rows), 2),
        near_copies=sum(row.copy_of is not None for row in ranked),
        set_aside=count_reasons(aside),
        transcribed=audio.transcribed,
        compared="adapted and base model" if adapted.base else "language model and CTC head",
        training_texts=len(trained),
    )
    files.write(rows, aside, asdict(summary) | {"model": adapted.name, "source": source, "options": asdict(options)})
    return summary


def _training_texts(adapted: AdaptedModel, corpora: Sequence[str], media: Path) -> Iterator[str]:
    """The texts of the training manifest of a run, and of the corpora."""
    if adapted.run and adapted.run.manifest("train").is_file():
        yield from open_manifest(adapted.run.manifest("train")).texts("text")
    for source in corpora:
        for row in read_corpus(source, media, audio_required=False):
            yield clean_text(row.values.get("text"))


def _other_texts(
    adapted: AdaptedModel, clips: Sequence[Utterance], results: Sequence[MachineTranscript], work: Path
) -> list[str]:
    """The texts to compare with: of the base; of the CTC head if the model is itself a base."""
    if not adapted.base:
        return [result.ctc_text for result in results]
    base = adapted.as_base()
    return [result.text for result in transcribe_clips(base, base.load(), clips, work, "hypotheses of the base")]


def _words(text: str, preset: str) -> list[str]:
    return spaced(normalize(text, preset), preset).split()


def _candidates(clips: Sequence[_Clip], preset: str) -> list[Candidate]:
    errors = errors_per_utterance([clip.result.text for clip in clips], [clip.other for clip in clips], preset)
    return [
        Candidate(
            words=tuple(_words(clip.result.text, preset)),
            characters=len("".join(clip.result.ctc_text.split())),
            entropy=clip.result.entropy,
            errors=count,
            digest=clip.item.audio_digest,
        )
        for clip, (count, _) in zip(clips, errors, strict=True)
    ]


def _within(ranked: Sequence[Ranked], clips: Sequence[_Clip], budget: Budget) -> list[Ranked]:
    """The first clips within the budget. With a budget of hours, a clip that does not fit is skipped."""
    if budget.clips is None and budget.hours is None:
        return list(ranked)
    chosen, left = list[Ranked](), math.inf if budget.hours is None else 3600 * budget.hours
    for row in (row for row in ranked if row.copy_of is None):
        seconds = clips[row.index].item.duration
        if seconds <= left and (budget.clips is None or len(chosen) < budget.clips):
            chosen.append(row)
            left -= seconds
    return chosen


def _row(clips: Sequence[_Clip], row: Ranked, place: int) -> Utterance:
    """The row of the manifest; the hypotheses are in columns that no command reads as a transcript."""
    clip = clips[row.index]
    copy = {} if row.copy_of is None else {"near_copy_of": clips[row.copy_of].item.id}
    scores = {name: getattr(row, name) for name in ("score", "entropy", "disagreement", "rarity")}
    texts = {"pred_text": clip.result.text, "pred_text_other": clip.other, "pred_text_ctc": clip.result.ctc_text}
    return replace(clip.item, text="", extra=clip.item.extra | {"rank": place, **scores, **copy, **texts})
