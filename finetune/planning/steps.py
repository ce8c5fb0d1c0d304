"""Steps, batches, audio and padding of a training: exact for a small corpus, else an estimate from columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.core.config import Recipe
from finetune.data.audio import SAMPLE_RATE
from finetune.data.features import FRAME_SECONDS, num_frames
from finetune.data.manifest import Utterance
from finetune.data.splits import TRAINING_SPLITS
from finetune.data.utterance_table import open_manifest
from finetune.model.granite import SpeechModel
from finetune.model.prompt import encode_text, render
from finetune.planning.activations import LargestBatch
from finetune.planning.split_facts import LIMITS, Limits, SplitFacts
from finetune.training.clip_table import ClipTable
from finetune.training.corpus import TrainingCorpus
from finetune.training.dataset import SpeechDataset
from finetune.training.plan import Groups, no_speech_durations, plan_epoch, sample_replay, sample_weighted

Clips = list[tuple[Utterance, ...]]  # the utterances of each clip; several if clips are concatenated


@dataclass(frozen=True)
class StepPlan:
    """The steps of a training.

    Attributes:
        exact: False if clips are estimated from a sample, or later epochs from the first.
        processes: training processes.
        epochs, steps, batches, clips: of all epochs.
        hours: of audio in all epochs, without padding.
        longest_clip: seconds.
        longest_row: language model positions of the longest clip.
        padding: fraction of the first epoch's padded audio that is padding.
        tokens: target tokens of all epochs.
    """

    exact: bool
    processes: int
    epochs: int
    steps: int
    batches: int
    clips: int
    hours: float
    longest_clip: float
    longest_row: int
    padding: float
    tokens: int


@dataclass(frozen=True)
class Steps:
    """A plan with what other parts of the check need.

    Attributes:
        plan: the steps.
        largest: sizes of the largest batches.
        measured: two batches for `--measure`: the one with the most padded audio, and a typical one.
        padded_seconds: padded seconds of all batches of all epochs.
    """

    plan: StepPlan
    largest: LargestBatch
    measured: tuple[Clips, Clips]
    padded_seconds: float


@dataclass(frozen=True)
class _Clips:
    """Clips in columns; `durations` at the slowest speed."""

    durations: NDArray[np.float64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    table: ClipTable | None = None


@dataclass(frozen=True)
class _Epoch:
    """An epoch: its number of steps, its micro-batches, and its clips."""

    steps: int
    batches: Groups
    clips: _Clips


@dataclass(frozen=True)
class _Sizes:
    """The sizes of an epoch: totals, maxima, and of each batch its padded seconds and positions."""

    clips: int
    seconds: float
    tokens: int
    longest: float
    widest: int
    padded: NDArray[np.float64]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, clips: _Clips, batches: Groups) -> "_Sizes":
        starts, seconds = batches.bounds[:-1], clips.durations[batches.members]
        longest = np.maximum.reduceat(seconds, starts)
        widest = np.maximum.reduceat(clips.positions[batches.members], starts)
        return cls(
            clips=len(batches.members),
            seconds=float(seconds.sum()),
            tokens=int(clips.targets[batches.members].sum()),
            longest=float(longest.max()),
            widest=int(widest.max()),
            padded=longest * batches.sizes,
            positions=widest * batches.sizes,
        )


def plan_steps(
    model: SpeechModel, recipe: Recipe, facts: Mapping[str, SplitFacts], processes: int, limits: Limits = LIMITS
) -> Steps:
    """Plans the training with the checks that `train` makes.

    Args:
        model: its tokenizer and the sizes of its parts; weights are not read.
        recipe: the recipe.
        facts: of train, and of replay if there is one.
        processes: training processes.
        limits: up to which size the plan is exact.

    Raises:
        RecipeError: a batch cannot hold the longest clip.
        ModelError: the instruction or a keyword cannot be a prompt of this model.
    """
    rows = sum(item.rows for item in facts.values())
    if all(item.complete for item in facts.values()) and rows * recipe.train.epochs <= limits.exact:
        return _exact(model, recipe, facts, processes)
    return _estimated(model, recipe, facts, processes, limits)


def _exact(model: SpeechModel, recipe: Recipe, facts: Mapping[str, SplitFacts], processes: int) -> Steps:
    corpus = TrainingCorpus(model, recipe, {split: item.clips for split, item in facts.items()})
    data, epochs = corpus.dataset, list[_Epoch]()
    for epoch in range(recipe.train.epochs):  # the clips of one epoch are open at a time
        plan = corpus.plan(epoch, recipe.train.batch_seconds, processes * recipe.train.accumulation)
        clips = _clips_of(data, None if epochs else data.clips)
        epochs.append(_Epoch(len(plan), plan.batches, clips))
    return _steps(recipe, epochs, processes, exact=True)


def largest_batch(model: SpeechModel, recipe: Recipe, manifests: Mapping[str, Path], processes: int) -> LargestBatch:
    """The sizes of the largest batches of the first epoch of a prepared training.

    Args:
        model, recipe, processes: see `plan_steps`.
        manifests: from `manifests_of`.

    Raises:
        RecipeError, DataError, ModelError: those of `TrainingCorpus`.
    """
    quiet = recipe.model_copy(update={"train": recipe.train.model_copy(update={"ctc_weight": 0.0})})  # training warns
    tables = {split: open_manifest(path) for split, path in manifests.items()}
    corpus = TrainingCorpus(model, quiet, tables, manifests)
    batches = corpus.plan(0, recipe.train.batch_seconds, processes * recipe.train.accumulation).batches
    clips = _clips_of(corpus.dataset)
    return _largest(recipe, clips, batches, _Sizes.of(clips, batches))


def _clips_of(data: SpeechDataset, table: ClipTable | None = None) -> _Clips:
    """The clips that are open, as columns."""
    return _Clips(np.array(data.durations), np.array(data.positions), np.array(data.target_counts), table)


def _largest(recipe: Recipe, clips: _Clips, batches: Groups, sizes: _Sizes) -> LargestBatch:
    longest, widest = (batches[int(np.argmax(column))] for column in (sizes.padded, sizes.positions))
    return LargestBatch(
        clips=len(longest),
        frames=num_frames(round(float(clips.durations[[*longest]].max()) * SAMPLE_RATE)),
        rows=len(widest),
        positions=int(clips.positions[[*widest]].max()),
        targets=int(clips.targets[[*widest]].sum()),
        kind=_kind(recipe),
    )


def _estimated(
    model: SpeechModel, recipe: Recipe, facts: Mapping[str, SplitFacts], processes: int, limits: Limits
) -> Steps:
    """The first epoch from columns, times the number of epochs; tokens a character are those of the sample.

    Of a large corpus, only rows at equal distances are planned, with the longest ones.
    """
    settings, speed = recipe.train, 1.0 - recipe.augment.speed
    known = list({clip.id: clip for item in facts.values() for clip in [*item.clips, *item.longest]}.values())
    augment = recipe.augment.model_copy(update={"concat": 0.0})
    plain = recipe.model_copy(update={"augment": augment, "train": settings.model_copy(update={"epochs": 1})})
    corpus = TrainingCorpus(model, plain, {"train": known})  # a batch must hold the longest clips
    tokens = [len(encode_text(model.tokenizer, clip.text)) for clip in known]
    per_character = sum(tokens) / max(1, sum(len(clip.text) for clip in known))
    prompt = len(
        render(model.tokenizer, recipe.model.instruction, profile=model.profile).around(model.audio_token_id, 0)
    )
    spacing = max(1, sum(item.rows for item in facts.values()) // limits.planned)
    counts, columns = zip(*(_planned(facts.get(split), recipe, spacing) for split in TRAINING_SPLITS), strict=True)
    rows, weights = np.split(np.concatenate(columns), [2], axis=1)
    chosen = sample_replay(len(columns[0]), len(columns[1]), recipe.data.replay_weight, recipe.seed, 0)
    chosen = sample_weighted(chosen, weights[:, 0], recipe.seed, 0)
    silent = no_speech_durations(rows[:, 0], chosen, len(chosen), augment.no_speech, recipe.seed, 0)
    chosen = np.concatenate([chosen, np.arange(len(rows), len(rows) + len(silent), dtype=np.int32)])
    durations, characters = np.concatenate([rows, np.stack([silent, np.zeros(len(silent))], axis=1)]).T
    durations = durations / speed
    targets = np.ceil(characters * per_character).astype(np.int64) + 1
    windows = np.ceil(durations / (FRAME_SECONDS * model.window)).astype(np.int64)
    positions = prompt + windows * model.queries + targets
    if corpus.dataset.keywords:
        positions += _sampled_keywords(corpus, len(positions))
    clips = _Clips(durations, positions, targets)
    sizes = (settings.batch_seconds, settings.batch_tokens, processes * settings.accumulation, recipe.seed, 0)
    plan = plan_epoch(clips.durations, clips.positions, *sizes, chosen)
    epoch = _Epoch(len(plan), plan.batches, clips)
    scale = sum(counts) / max(1, len(rows))
    steps = _steps(recipe, [epoch], processes, exact=False, scale=scale)
    return replace(steps, measured=_batches_of(known, settings.batch_seconds * speed))


def _planned(facts: SplitFacts | None, recipe: Recipe, spacing: int) -> tuple[int, NDArray[np.float64]]:
    """The number of rows of a length that is kept, and (n, 3) seconds, characters and weights of some.

    These are every `spacing`-th row, and the rows with the most seconds and the most characters.
    """
    if facts is None:
        return 0, np.zeros((0, 3))
    seconds, characters = np.frombuffer(facts.durations, np.float64), np.frombuffer(facts.characters, "l")
    kept = np.flatnonzero((seconds >= recipe.data.min_duration) & (seconds <= recipe.data.max_duration))  # not NaN
    chosen = kept[::spacing]
    if len(kept):
        chosen = np.union1d(chosen, [kept[column[kept].argmax()] for column in (seconds, characters)])
    weights = np.frombuffer(facts.weights, np.float64)
    return len(kept), np.stack([column[chosen].astype(np.float64) for column in (seconds, characters, weights)], axis=1)


def _sampled_keywords(corpus: TrainingCorpus, rows: int) -> NDArray[np.int64]:
    """Positions of the keywords of `rows` clips, if their lists are as those of the corpus."""
    data = corpus.dataset
    before = data.positions
    data.open_epoch(0)
    added = np.asarray(data.positions[: len(before)] - before, np.int64)
    return np.random.default_rng(corpus.recipe.seed).choice(added, rows)


def _batches_of(clips: list[Utterance], batch_seconds: float) -> tuple[Clips, Clips]:
    """A batch of the longest clips, and one of clips of the median duration."""
    ordered = sorted(clips, key=lambda clip: -clip.duration)
    middle = ordered[len(ordered) // 2 :]
    longest, typical = (part[: max(1, int(batch_seconds / part[0].duration))] for part in (ordered, middle))
    return [(clip,) for clip in longest], [(clip,) for clip in typical]


def _steps(recipe: Recipe, epochs: Sequence[_Epoch], processes: int, *, exact: bool, scale: float = 1.0) -> Steps:
    """Adds up the epochs; a single one stands for all, and each of its rows for `scale` rows."""
    settings, speed, first, clips = recipe.train, 1.0 - recipe.augment.speed, epochs[0].batches, epochs[0].clips
    times = scale * settings.epochs / len(epochs)
    sizes = [_Sizes.of(epoch.clips, epoch.batches) for epoch in epochs]
    padded = sizes[0].padded
    longest = first[int(np.argmax(padded))]
    typical = first[int(np.argsort(padded)[len(padded) // 2])]
    plan = StepPlan(
        exact=exact,
        processes=processes,
        epochs=settings.epochs,
        steps=round(times * sum(epoch.steps for epoch in epochs)),
        batches=round(times * sum(len(epoch.batches) for epoch in epochs)),
        clips=round(times * sum(item.clips for item in sizes)),
        hours=times * sum(item.seconds for item in sizes) * speed / 3600,
        longest_clip=max(item.longest for item in sizes) * speed,
        longest_row=max(item.widest for item in sizes),
        padding=1 - sizes[0].seconds / float(padded.sum()),
        tokens=round(times * sum(item.tokens for item in sizes)),
    )
    measured = [_with_files(clips.table, batch) if clips.table else [] for batch in (longest, typical)]
    largest = _largest(recipe, clips, first, sizes[0])
    return Steps(plan, largest, (measured[0], measured[1]), times * sum(float(item.padded.sum()) for item in sizes))


def _with_files(table: ClipTable, batch: Sequence[int]) -> Clips:
    """The clips of a batch that have a file; if it has only clips without speech, which training makes, another one."""
    return [utterances for index in batch if (utterances := table.sources(index))] or [table.sources(0)]


def _kind(recipe: Recipe) -> str:
    """What a batch has of the audio, see `Batch.kind`."""
    if not recipe.machine.cache_encoder:
        return "features"
    return "embeds" if recipe.parts.projector.mode == "frozen" else "states"
