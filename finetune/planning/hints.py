"""Hints of `finetune check`: what the data and the plan suggest to change. A hint is never an error.

Figures of earlier runs are those of recipes/RESULTS.md, on the embedded model. They show the direction of an effect on
another model, not its size.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from finetune.core.config import Recipe
from finetune.core.extras import DISTRIBUTION
from finetune.core.languages import row_language
from finetune.core.wording import count, length_text, verb
from finetune.inference.keyword_warning import unwritable_warning
from finetune.metrics.blocks import MIN_BLOCKS
from finetune.metrics.significance import bootstrap_wer
from finetune.planning.disk import DiskPlan, gigabytes
from finetune.planning.fits import cannot_fit
from finetune.planning.memory import MemoryPlan
from finetune.planning.split_facts import SplitFacts
from finetune.planning.steps import StepPlan
from finetune.training.optimizer import learning_rate_of

FEW_STEPS, ENOUGH_STEPS = 500, 1000
FEW_HOURS = 1.0
FEW_TEST_CLIPS, FEW_VALID_CLIPS = 100, 50
FEW_OCCURRENCES = 5
LARGE_MODEL = 1_000_000_000  # parameters
NOTEBOOK_RATE = 3e-5  # of IBM's fine-tuning notebook for granite-4.0-1b-speech
ASSUMED_WER = 0.10
SHOWN = 3
RESULTS = "recipes/RESULTS.md"


@dataclass(frozen=True)
class PlanFacts:
    """What hints depend on.

    Attributes:
        recipe: the recipe.
        splits: the rows of each split that was opened.
        parameters: of the base.
        steps, disk: the plan; None if it is not known.
        memory: on each device.
        terms: occurrences of each term in train and replay.
    """

    recipe: Recipe
    splits: Mapping[str, SplitFacts]
    parameters: int
    steps: StepPlan | None
    memory: list[MemoryPlan]
    disk: DiskPlan | None
    terms: Mapping[str, int]


def hints(facts: PlanFacts) -> Iterator[str]:
    """Hints about steps, learning rates, forgetting, scored sets, terms, memory, disk and extras."""
    if facts.steps is not None:
        yield from _steps(facts, facts.steps)
        yield from _rates(facts, facts.steps)
    yield from _forgetting(facts.recipe)
    yield from _scored_sets(facts.splits)
    yield from _terms(facts.terms)
    yield from _decode_terms(facts.recipe.decode.terms, facts.splits)
    yield from _memory(facts)
    yield from _disk(facts.disk)
    yield from _extras(facts.recipe)


def _speech(facts: PlanFacts) -> float:
    """Hours of data.train, without replay."""
    return math.fsum(seconds for seconds in facts.splits["train"].durations if seconds > 0) / 3600


def _steps(facts: PlanFacts, plan: StepPlan) -> Iterator[str]:
    settings, hours = facts.recipe.train, _speech(facts)
    if plan.steps < FEW_STEPS:
        yield (
            f"{count(plan.steps, 'optimizer step')} for {length_text(hours)} of speech "
            f"{verb(plan.steps, 'is', 'are')} few. "
            f"{_more_steps(facts.recipe, plan)}. Twice the steps, from smaller batches, lowered the WER of valid from "
            f"15.1 to 7.7 % ({RESULTS}, 2026-11-23)"
        )
    augment = facts.recipe.augment
    if hours < FEW_HOURS and not (augment.speed or augment.mel_mask or augment.time_mask):
        yield (
            f"{length_text(hours)} of speech without augmentation: set augment.speed: 0.1. With it, the WER of valid "
            f"was 11.4 % after half of the epochs, without it 20.9 % after a third ({RESULTS}, 2026-11-23)"
        )
    if settings.batch == "fixed" and plan.padding > 0.3:
        yield (
            f"{100 * plan.padding:.0f} % of the padded audio is padding; with a smaller train.batch_seconds, the clips "
            "of a batch are of more equal length"
        )


def _more_steps(recipe: Recipe, plan: StepPlan) -> str:
    """Settings that give about ENOUGH_STEPS steps: fewer batches in a step, smaller batches, more epochs."""
    settings, changes, steps = recipe.train, [], float(plan.steps)
    if settings.accumulation > 1:
        most = plan.batches / plan.processes  # an accumulation can be larger than an epoch
        accumulation = max(1, min(settings.accumulation, math.floor(most / ENOUGH_STEPS)))
        steps = max(steps, most / accumulation)
        changes.append(f"train.accumulation: {accumulation}")
    smallest = math.ceil(plan.longest_clip / (1 - recipe.augment.speed))
    batch_seconds = max(smallest, math.floor(settings.batch_seconds * steps / ENOUGH_STEPS))
    if steps < ENOUGH_STEPS and batch_seconds < settings.batch_seconds:
        steps *= settings.batch_seconds / batch_seconds
        changes.append(f"train.batch_seconds: {batch_seconds}")
    epochs = math.ceil(settings.epochs * ENOUGH_STEPS / steps)
    if epochs > settings.epochs:
        steps *= epochs / settings.epochs
        changes.append(f"train.epochs: {epochs}")
    return f"Set {' and '.join(changes)} for about {count(round(steps), 'step')}"


def _rates(facts: PlanFacts, plan: StepPlan) -> Iterator[str]:
    recipe, parts = facts.recipe, facts.recipe.parts
    rate = learning_rate_of(recipe, "lora")
    moved = rate * plan.steps / 2
    if parts.lora.rank and plan.steps < FEW_STEPS and moved < 0.05:
        yield (
            f"LoRA at a learning rate of {rate:g}: in {count(plan.steps, 'step')} with warm-up and decay, AdamW "
            f"moves a weight by at most about {moved:.2g}. Compare {5 * rate:g} on valid "
            f"(parts.lora.learning_rate); the recipes of "
            "the embedded model for 17 and 47 minutes of speech use 0.001 and 0.0016. No rate was measured on "
            "granite-4.0-1b-speech"
        )
    for part in ("projector", "encoder"):
        rate = learning_rate_of(recipe, part)
        if facts.parameters >= LARGE_MODEL and getattr(parts, part).mode == "full" and rate > 2 * NOTEBOOK_RATE:
            yield (
                f"parts.{part}.learning_rate is {rate:g} for a part that trains in full; IBM's fine-tuning notebook "
                f"trains the projector of granite-4.0-1b-speech at {NOTEBOOK_RATE:g}"
            )


def _forgetting(recipe: Recipe) -> Iterator[str]:
    if not recipe.data.canary:
        yield "data.canary is empty, so what the model forgets is not measured; set it to general speech"
    if not recipe.data.replay:
        yield (
            "data.replay is empty: without general speech in training the WER of the canary rose by 48 points, with it "
            f"at half weight by 8 ({RESULTS}, 2026-11-23, telephone speech)"
        )
    if recipe.train.max_canary_loss is not None and not recipe.train.interpolate:
        yield (
            "train.max_canary_loss without train.interpolate: no preset kept the canary within two points without it "
            f"({RESULTS}, 2026-11-24); set train.interpolate: [0.96, 0.92]"
        )


def _scored_sets(splits: Mapping[str, SplitFacts]) -> Iterator[str]:
    valid, test = splits.get("valid"), splits.get("test")
    if valid and len(valid.speakers) == 1 and not valid.unknown_speakers:
        yield f"data.valid has one speaker ({next(iter(valid.speakers))}): the best adapter is chosen for this speaker"
    if valid and valid.rows < FEW_VALID_CLIPS:
        yield f"data.valid has {count(valid.rows, 'clip')}: differences of a few points between epochs are noise"
    if test and test.clips and test.rows < FEW_TEST_CLIPS:
        low, high, unit = expected_interval(test)
        yield (
            f"data.test has {count(test.rows, 'clip')}: at a WER of {100 * ASSUMED_WER:.0f} %, its 95 % "
            f"interval over {unit} would be at least {100 * low:.1f} to {100 * high:.1f} %, so small "
            f"differences are not proven"
        )
    elif test and not test.speakers:
        yield "data.test has no column speaker: intervals are over clips and do not apply to other speakers"


def expected_interval(test: SplitFacts) -> tuple[float, float, str]:
    """The interval of a test set if each word is wrong with ASSUMED_WER, independently, and its unit.

    Errors of one clip or speaker are correlated, so the interval of real scores is wider.
    """
    words = [max(1, len(clip.text.split())) for clip in test.clips]
    errors = np.random.default_rng(0).binomial(words, ASSUMED_WER).tolist()
    by_speaker = len(test.speakers) >= MIN_BLOCKS and not test.unknown_speakers
    names = [clip.speaker if by_speaker else str(number) for number, clip in enumerate(test.clips)]
    interval = bootstrap_wer(errors, words, names, 1000, 0)
    return interval.low, interval.high, "speakers" if by_speaker else "clips"


def _terms(terms: Mapping[str, int]) -> Iterator[str]:
    rare = [term for term, count in terms.items() if 0 < count < FEW_OCCURRENCES]
    never = [term for term, count in terms.items() if not count]
    for names, text in ((rare, f"occur fewer than {FEW_OCCURRENCES} times"), (never, "do not occur")):
        if names:
            shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            yield (
                f"{len(names)} of {count(len(terms), 'term')} {text} in data.train or data.replay ({shown}). "
                f"Terms with six or seven sentences each reached a recall of 87 %, terms without any 11 %, "
                f"without decode.terms ({RESULTS}, 2026-11-24)"
            )


def _decode_terms(terms: Sequence[str], splits: Mapping[str, SplitFacts]) -> Iterator[str]:
    """Terms that the CTC head cannot find."""
    test = splits["test"].clips if "test" in splits else []
    if terms and test and all(row_language(clip.language) == "ja" for clip in test):
        yield "decode.terms has no effect on Japanese text: the CTC head, which finds the terms, does not write it"
        return
    if warning := unwritable_warning(terms):
        yield f"decode.terms: {warning}"


def _memory(facts: PlanFacts) -> Iterator[str]:
    for plan in facts.memory:
        available = None if plan.available is None else plan.available // plan.processes
        if available is None or plan.high <= available or facts.recipe.train.batch == "auto":
            continue
        if cannot_fit(plan, facts.recipe):  # an error
            continue
        need = f"{gigabytes(plan.low)} to {gigabytes(plan.high)}, and {plan.device} has {gigabytes(available)}"
        need += f" for each of {plan.processes} processes" if plan.processes > 1 else ""
        change = "train.batch: auto, or a smaller train.batch_seconds"
        if enough := next((number for number, item in enumerate(plan.less, 1) if item.high <= available), 0):
            change = " and ".join(item.setting for item in plan.less[:enough])
        yield f"a training step needs about {need}: set {change}"


def _disk(plan: DiskPlan | None) -> Iterator[str]:
    if plan is None:
        return
    most = plan.manifests + plan.cache + plan.checkpoints + plan.best + plan.export
    if most > plan.free + plan.present:
        yield (
            f"the run can need {gigabytes(most)} while files are replaced, and {plan.folder} has "
            f"{gigabytes(plan.free)} free: a full disk stops checkpoints, not the training"
        )


def _extras(recipe: Recipe) -> Iterator[str]:
    if find_spec("matplotlib") is None:
        yield f"matplotlib is not installed, so there will be no report: pip install '{DISTRIBUTION}[report]'"
    for name in recipe.machine.trackers:
        if find_spec(name) is None:
            yield f"machine.trackers: {name} is not installed, so it records nothing"
