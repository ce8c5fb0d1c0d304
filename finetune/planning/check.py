"""`finetune check` as a function: what is known about a run without decoding audio or reading weights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TypeVar

import numpy as np
import torch

from finetune.core.config import Recipe
from finetune.core.errors import DataError, FinetuneError
from finetune.core.recipe import Setting
from finetune.core.run_dir import RunDir
from finetune.data.corpora import preview_rows
from finetune.data.corpus import Corpus
from finetune.data.corpus_preview import preview_corpora
from finetune.data.features import FRAME_SECONDS
from finetune.data.manifest import Utterance
from finetune.data.normalizer_choice import normalizer_of_terms
from finetune.data.splits import SCORED_SPLITS, TRAINING_SPLITS
from finetune.metrics.terms import read_terms
from finetune.model.granite import SpeechModel, default_device
from finetune.model.model_summary import ModelSummary, open_without_weights
from finetune.planning.disk import DiskPlan, check_disk, plan_disk
from finetune.planning.fits import check_fits
from finetune.planning.hints import PlanFacts, hints
from finetune.planning.machine import memory_of, processes_text
from finetune.planning.memory import MemoryPlan, plan_memory
from finetune.planning.overlap import LeakCount, LeakFinder, refused_audio
from finetune.planning.refusals import check_translations, refusals
from finetune.planning.result import CheckResult, SettingValue, SplitPlan
from finetune.planning.speed import TimePlan, time_from_runs
from finetune.planning.split_facts import SplitFacts, Visit, open_split, read_facts
from finetune.planning.steps import Steps, plan_steps
from finetune.planning.term_support import TermSupport
from finetune.planning.unusable import UnusableRows
from finetune.training.launch import processes_for
from finetune.training.parts import trainable_parts

Result = TypeVar("Result")
Measure = Callable[[Recipe, Steps, list[Utterance], float], TimePlan]


@dataclass
class _Check:
    """The state of a check: its problems so far, and what was read."""

    recipe: Recipe
    memory: Callable[[str], int | None]
    problems: list[str] = field(default_factory=list)
    splits: dict[str, SplitFacts] = field(default_factory=dict)
    leaks: list[LeakCount] = field(default_factory=list)
    terms: dict[str, int] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    failures: int = 0  # of attempts; several can have the same problem

    def __post_init__(self) -> None:
        self.open_corpus = cache(preview_rows)  # a corpus is opened once

    def attempt(self, work: Callable[[], Result]) -> Result | None:
        """The result of `work`; None if it raises an error, which becomes a problem."""
        try:
            return work()
        except FinetuneError as error:
            self.failures += 1
            self.add(str(error))
            return None

    def add(self, problem: str) -> None:
        if not any(problem in known for known in self.problems):
            self.problems.append(problem)


def check_recipe(
    recipe: Recipe,
    settings: Iterable[Setting] = (),
    measure: Measure | None = None,
    memory: Callable[[str], int | None] = memory_of,
) -> CheckResult:
    """Checks a recipe and plans its run. Nothing is written, and no error of a stage is raised: they are `problems`.

    Args:
        recipe: the recipe.
        settings: its settings with their origins.
        measure: measures the time of steps; None estimates it from earlier runs.
        memory: bytes of a device; None for one that is not here.
    """
    check, run = _Check(recipe, memory), RunDir(f"{recipe.runs}/{recipe.name}")
    base = recipe.model
    opened: tuple[SpeechModel, ModelSummary] | None = None
    if recipe.data.train:
        opened = check.attempt(lambda: open_without_weights(base.base, base.revision, trainable_parts(recipe.parts)))
        for error in refusals(recipe, run):
            check.add(str(error))
    corpora = _corpora(check)
    _read_splits(check)
    steps = plans = disk = time = None
    unknown = _unknown(check)
    if opened and recipe.data.train and not unknown:
        steps, plans, disk, time = _plan(check, opened[0], run, measure)
    rows = [SettingValue(item.key, str(item.value), item.origin) for item in settings]
    parameters = sum(opened[1].parts.values()) if opened else 0
    plan = steps.plan if steps else None
    advice = PlanFacts(recipe, check.splits, parameters, plan, plans or [], disk, check.terms)
    return CheckResult(
        settings=rows,
        model=opened[1] if opened else None,
        corpora=corpora,
        splits={name: _split_plan(recipe, item) for name, item in check.splits.items()},
        leaks=check.leaks,
        terms=check.terms,
        processes=processes_text(recipe, torch.cuda.device_count()) if recipe.data.train else "",
        steps=plan,
        memory=plans or [],
        disk=disk,
        time=time,
        unknown=unknown if recipe.data.train else "",
        hints=list(hints(advice)) if recipe.data.train else [],
        problems=check.problems,
    )


def _corpora(check: _Check) -> list[str]:
    """The lines about the corpora."""
    lines = list[str]()

    def read() -> None:
        for line in preview_corpora(check.recipe, check.open_corpus):
            lines.append(line)

    check.attempt(read)
    return lines


def _read_splits(check: _Check) -> None:
    """Reads all splits: the scored ones first, because leaks from the others into them are then found in one pass."""
    data, scored = check.recipe.data, dict[str, list[Utterance]]()
    for split in ("test", "canary", "valid", *TRAINING_SPLITS):
        if not getattr(data, split):
            continue
        failures = check.failures
        corpora = check.attempt(partial(open_split, data, split, check.open_corpus))
        if corpora:
            check.splits[split] = _read_split(check, split, corpora, scored)
            if split in SCORED_SPLITS:
                scored[split] = check.splits[split].clips
        else:
            (check.closed if failures == check.failures else check.unreadable).append(split)
    check.attempt(lambda: check_translations(scored))
    if (leaked := refused_audio(check.leaks)) and not data.allow_leaks:
        check.add(f"{leaked}: the scores would be too good. Remove it or set data.allow_leaks: true")


def _read_split(check: _Check, split: str, corpora: list[Corpus], scored: dict[str, list[Utterance]]) -> SplitFacts:
    """Reads the rows of a split once, and looks for unusable rows, leaks and terms."""
    data, rows, terms = check.recipe.data, sum(map(len, corpora)), None
    unusable, finder = UnusableRows(split, data, rows), LeakFinder(split, dict(scored), data)
    visitors: list[Visit] = [unusable.add, *([finder.add] if split not in ("test", "canary") else [])]
    if split in TRAINING_SPLITS:
        terms = check.attempt(lambda: _term_support(check.recipe, scored.get("test", []), rows))
    facts = read_facts(data, split, corpora, [*visitors, terms.add] if terms else visitors)
    check.attempt(unusable.check)
    check.leaks += finder.counts()
    for term, count in terms.support().items() if terms else ():
        check.terms[term] = check.terms.get(term, 0) + count
    return facts


def _term_support(recipe: Recipe, test: list[Utterance], rows: int) -> TermSupport | None:
    if not recipe.data.terms:
        return None
    preset = normalizer_of_terms(test, recipe.evaluate.normalizer)
    return TermSupport(read_terms(recipe.data.terms), preset, rows)


def _unknown(check: _Check) -> str:
    """Why there is no plan; "" if there can be one."""
    if check.closed:
        return f"`finetune prepare` has not read data.{check.closed[0]} yet"
    if check.unreadable:
        return f"data.{check.unreadable[0]} cannot be read"
    for split in ("train", "valid"):
        if split not in check.splits or not check.splits[split].clips:
            return f"no clip of data.{split} has a usable duration"
    return ""


def _plan(
    check: _Check, model: SpeechModel, run: RunDir, measure: Measure | None
) -> tuple[Steps | None, list[MemoryPlan], DiskPlan | None, TimePlan | None]:
    """Steps, memory, disk and time; nothing of it if `train` would refuse a batch."""
    recipe, splits = check.recipe, check.splits
    training = {split: splits[split] for split in TRAINING_SPLITS if split in splits and splits[split].clips}
    steps = check.attempt(lambda: plan_steps(model, recipe, training, processes_for(recipe)))
    if steps is None:
        return None, [], None, None
    frames = sum(_seconds(item) for item in training.values()) / FRAME_SECONDS
    clips = sum(item.rows for item in splits.values())
    characters = sum(sum(item.characters) for item in splits.values())
    disk = plan_disk(model, recipe, run, clips, characters, int(frames))
    check.attempt(lambda: check_disk(disk))
    devices = [default_device()] if torch.cuda.device_count() else ["cpu", "cuda"]
    memory = [
        plan_memory(model, recipe, steps.largest, device, steps.plan.processes, check.memory(device))
        for device in devices
    ]
    for plan in memory:
        check.attempt(partial(check_fits, plan, recipe))
    time: TimePlan | None = time_from_runs(recipe, steps.plan.clips)
    if measure is not None and not check.problems:
        scored = sum(_seconds(splits[split]) for split in ("valid", "canary") if split in splits)
        time = check.attempt(lambda: measure(recipe, steps, splits["valid"].clips, scored))
    return steps, memory, disk, time


def _seconds(facts: SplitFacts) -> float:
    """Seconds of the rows whose duration is known."""
    return sum(seconds for seconds in facts.durations if seconds > 0)


def _split_plan(recipe: Recipe, facts: SplitFacts) -> SplitPlan:
    low, high = recipe.data.min_duration, recipe.data.max_duration
    seconds = np.asarray(facts.durations)
    kept = seconds[(seconds >= low) & (seconds <= high)]
    known = int((seconds > 0).sum())
    return SplitPlan(facts.rows, float(kept.sum()) / 3600, facts.stated, known - len(kept), len(facts.speakers))


def require_no_problems(result: CheckResult) -> None:
    """Raises DataError with all problems of a check, if it has any."""
    if result.problems:
        raise DataError("\n".join(result.problems))
