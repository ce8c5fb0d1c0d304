"""The runs of `compare_notebook` in their order, and the tables of their results."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from finetune.core.config import Recipe
from finetune.core.data_config import CorpusEntry
from finetune.core.files import read_json, write_json

NOTEBOOK, OURS, BASE = "notebook", "ours", "base"
TITLES = {BASE: "base model", NOTEBOOK: "IBM's notebook", OURS: "this toolkit"}
SCORES = {"test": "WER (%)", "canary": "canary WER (%)", "recall": "recall of terms (%)"}
SPLITS = ("train", "valid", "test", "canary", "replay")


@dataclass(frozen=True)
class Job:
    """One training and its scores; for the base, the scores alone.

    Attributes:
        rate: the learning rate of the notebook; for this toolkit, a factor of all learning rates of the recipe.
        budget: seconds of a training of the notebook.
    """

    side: str
    rate: float = 0.0
    seed: int = 0
    budget: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.side}-{self.rate:g}-{self.seed}" if self.side != BASE else BASE


@dataclass(frozen=True)
class Outcome:
    """The result of a job: fractions by split, and `recall`; seconds of the training; its optimizer steps."""

    scores: dict[str, float]
    seconds: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class Side:
    """The chosen learning rate of a side and its outcomes, one for each seed.

    Attributes:
        valid: the WER on valid by learning rate, with the first seed; the lowest was chosen.
        edge: whether the chosen rate is the lowest or highest one, so that another one could be better.
    """

    rate: float
    valid: dict[str, float]
    edge: bool
    outcomes: list[Outcome]


@dataclass
class Comparison:
    """The content of comparison.json for one recipe."""

    recipe: str
    clock: str
    budget: float = 0.0
    base: Outcome | None = None
    sides: dict[str, Side] = field(default_factory=dict)


def with_rates(recipe: Recipe, factor: float, seed: int) -> Recipe:
    """The recipe with all learning rates multiplied by a factor, and another seed and name."""
    content = recipe.model_dump()
    content |= {"seed": seed, "name": f"{recipe.name}-{factor:g}-{seed}"}
    content["train"]["learning_rate"] *= factor
    for part in content["parts"].values():
        if part["learning_rate"] is not None:
            part["learning_rate"] *= factor
    return Recipe.model_validate(content)


def limited(recipe: Recipe, clips: int) -> Recipe:
    """The recipe with at most so many clips of each corpus."""
    content = recipe.model_dump()
    for split in SPLITS:
        entries: Sequence[CorpusEntry] = getattr(recipe.data, split)
        content["data"][split] = [entry.model_copy(update={"max_clips": clips}) for entry in entries]
    return Recipe.model_validate(content)


def require_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of the outcomes in `folder`, or compares them with those of an earlier call.

    Raises:
        ValueError: they differ, so outcomes of both would be in one table.
    """
    path, settings = folder / "settings.json", json.loads(json.dumps(settings))
    if path.is_file():
        if read_json(path) != settings:
            raise ValueError(f"{folder} has results of another recipe or other options; choose another --results")
        return
    if any(folder.glob("outcomes/*.json")):
        raise ValueError(f"{folder} has results whose settings are not known; choose another --results")
    write_json(path, settings)


def kept(folder: Path, run: Callable[[Job], Outcome]) -> Callable[[Job], Outcome]:
    """Keeps each outcome in `folder`, so that a second call does not run the job again."""

    def outcome(job: Job) -> Outcome:
        path = folder / f"{job.name}.json"
        if not path.is_file():
            write_json(path, asdict(run(job)))
        return Outcome(**read_json(path))

    return outcome


def compare(
    comparison: Comparison,
    rates: dict[str, Sequence[float]],
    seeds: Sequence[int],
    run: Callable[[Job], Outcome],
    budget: float | None = None,
) -> Comparison:
    """Trains this toolkit's side with each rate, then the notebook's with the time that the chosen rate took.

    The rate with the lowest WER on valid is chosen with the first seed, and trained with the other seeds.

    Args:
        comparison: is filled and returned.
        rates: by side.
        seeds: of each side.
        run: runs a job.
        budget: seconds of a training of the notebook, instead of the time of this toolkit.
    """
    comparison.base = run(Job(BASE))
    for side in (OURS, NOTEBOOK):
        seconds = comparison.budget if side == NOTEBOOK else 0.0
        first = {rate: run(Job(side, rate, seeds[0], seconds)) for rate in rates[side]}
        chosen = min(first, key=lambda rate: first[rate].scores["valid"])
        others = [run(Job(side, chosen, seed, seconds)) for seed in seeds[1:]]
        edge = len(first) > 1 and chosen in (min(first), max(first))
        valid = {f"{rate:g}": outcome.scores["valid"] for rate, outcome in first.items()}
        comparison.sides[side] = Side(chosen, valid, edge, [first[chosen], *others])
        if side == OURS:
            comparison.budget = budget or first[chosen].seconds
    return comparison


def cell(values: Sequence[float]) -> str:
    """The mean of fractions in per cent, and their range if there are several."""
    text = f"{100 * mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def markdown(comparison: Comparison) -> str:
    """The table of one recipe."""
    base = comparison.base or Outcome({})
    keys = [key for key in SCORES if key in base.scores]
    lines = [
        f"### {comparison.recipe}",
        f"{comparison.clock} of each training: {comparison.budget:.0f} s. Mean (and range) of the seeds.",
        "",
        f"| | learning rate | {' | '.join(SCORES[key] for key in keys)} | time (s) | optimizer steps |",
        "|---|---|" + "---|" * (len(keys) + 2),
        f"| {TITLES[BASE]} | | {' | '.join(cell([base.scores[key]]) for key in keys)} | | |",
    ]
    notes = []
    for name in (NOTEBOOK, OURS):
        side = comparison.sides[name]
        rate = f"{side.rate:g}" if name == NOTEBOOK else f"{side.rate:g} x the recipe's"
        cells = " | ".join(cell([outcome.scores[key] for outcome in side.outcomes]) for key in keys)
        seconds = mean(outcome.seconds for outcome in side.outcomes)
        steps = mean(outcome.steps for outcome in side.outcomes)
        lines.append(f"| {TITLES[name]} | {rate} | {cells} | {seconds:.0f} | {steps:.0f} |")
        tried = ", ".join(f"{rate}: {100 * wer:.1f}" for rate, wer in side.valid.items())
        edge = " The chosen rate is at the edge of those tried, so another one could be better." if side.edge else ""
        notes.append(f"- {TITLES[name]}, WER on valid by learning rate (first seed): {tried}.{edge}")
    return "\n".join([*lines, "", *notes]) + "\n"


def as_json(comparisons: Sequence[Comparison], header: dict[str, str]) -> dict[str, Any]:
    return {"header": header, "comparisons": [asdict(one) for one in comparisons]}
