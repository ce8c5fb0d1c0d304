"""The result of a comparison of systems: the types of the file that `finetune compare --json` writes."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from finetune.metrics.scores import Comparison, Details, SetScores, TermScores

Verdict = Literal["better", "worse", "not proven"]


@dataclass(frozen=True)
class CompareSettings:
    """Settings of the scores; `terms` is the number of terms."""

    normalizer: str
    replicas: int
    seed: int
    terms: int


@dataclass(frozen=True)
class ClipHypothesis:
    """The hypothesis of one clip; `pred_text` is None if the system failed on it, `seconds` 0 if unknown."""

    id: str
    pred_text: str | None
    seconds: float


@dataclass(frozen=True)
class SystemOrigin:
    """A system, and how its hypotheses were made.

    Attributes:
        kind: see `systems.System`.
        about: how the hypotheses were made.
        failures: by clip id, the error for each clip without a hypothesis.
        hypotheses: one for each clip of the manifest, in its order.
        file: the file of the hypotheses; None if they are not kept.
        reused: number of hypotheses that an earlier comparison kept.
    """

    kind: str
    about: str
    failures: dict[str, str]
    hypotheses: list[ClipHypothesis]
    file: str | None
    reused: int


@dataclass(frozen=True, kw_only=True)
class SystemScores(SetScores, SystemOrigin):
    """The scores of one system.

    Attributes:
        terms: scores of all terms in one group, because the training texts are not known; None without terms.
        details: the lists from which the scores are computed.
    """

    terms: TermScores | None
    details: Details


@dataclass(frozen=True, kw_only=True)
class SystemComparison(Comparison):
    """One system against the first; `p_holm` is adjusted for the number of comparisons."""

    p_holm: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class CompareResult:
    """The result of a comparison: the content of the file that `--json` writes.

    Attributes:
        manifest: its path.
        manifest_sha256: the hash of its content.
        settings: how the systems are scored.
        clips: number of clips that are scored.
        words: number of words in their references.
        systems: by name of a system, its scores.
        comparisons: by name of each system except the first, its comparison with the first.
        notes: limits of the comparison, as sentences.
        fired: the conditions that hold, each with its system and figures.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    schema: Literal[3] = 3
    manifest: str
    manifest_sha256: str
    settings: CompareSettings
    clips: int
    words: int
    systems: dict[str, SystemScores]
    comparisons: dict[str, SystemComparison]
    notes: list[str]
    fired: list[str]
