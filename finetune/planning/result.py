"""The result of `finetune check`. `scripts/write_schemas.py` writes its JSON schema to `docs/schemas/`."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from finetune.model.model_summary import ModelSummary
from finetune.planning.disk import DiskPlan
from finetune.planning.memory import MemoryPlan
from finetune.planning.overlap import LeakCount
from finetune.planning.speed import TimePlan
from finetune.planning.steps import StepPlan


@dataclass(frozen=True)
class SettingValue:
    """A setting of the recipe, its value as text, and its origin."""

    key: str
    value: str
    origin: str


@dataclass(frozen=True)
class SplitPlan:
    """A split as its rows state it.

    Attributes:
        rows: number of rows.
        hours: of audio, without rows whose duration is not known or not allowed.
        stated: rows whose duration is in a column; the others are from headers, or unknown.
        out_of_range: rows that are shorter than `data.min_duration` or longer than `data.max_duration`.
        speakers: different speakers, 0 if no row has one.
    """

    rows: int
    hours: float
    stated: int
    out_of_range: int
    speakers: int


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What `finetune check` prints.

    Attributes:
        settings: every setting of the recipe.
        model: parts of the base and trainable parts; None if the base cannot be read or nothing is trained.
        corpora: the lines about corpora and the style of transcripts.
        splits: by name; a split with a corpus that only `prepare` opens is missing.
        leaks: what scored splits have in common with others, as rows state it.
        terms: occurrences of each term in train and replay.
        processes: the number of training processes, and why it differs from the recipe's; "" if nothing is trained.
        steps, memory, disk, time: None, or empty, if `unknown` says why.
        unknown: why there is no plan; "" if there is one.
        hints: advice; a hint is never an error.
        problems: what a stage would refuse.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    schema_version: Literal[1] = 1
    settings: list[SettingValue] = field(default_factory=list)
    model: ModelSummary | None = None
    corpora: list[str] = field(default_factory=list)
    splits: dict[str, SplitPlan] = field(default_factory=dict)
    leaks: list[LeakCount] = field(default_factory=list)
    terms: dict[str, int] = field(default_factory=dict)
    processes: str = ""
    steps: StepPlan | None = None
    memory: list[MemoryPlan] = field(default_factory=list)
    disk: DiskPlan | None = None
    time: TimePlan | None = None
    unknown: str = ""
    hints: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
