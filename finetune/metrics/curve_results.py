"""Types of `curve.json`, the result of `finetune curve`."""

from typing import Literal

from finetune.metrics.power_law import Extrapolation, PowerLaw
from finetune.metrics.results import Model

CURVE_SCHEMA: Literal[1] = 1
Unit = Literal["speakers", "clips"]


class CurvePoint(Model):
    """The result with one part of the training data; rates are fractions.

    Attributes:
        share: per cent of the training audio that was asked for.
        clips: training clips, the mean of the runs.
        speakers: known speakers of these clips, the mean of the runs.
        hours: their audio, the mean of the runs.
        epochs: passes over them.
        wer: mean WER of the runs, and `low` to `high`, its 95 % interval over the scored clips.
        runs: WER of each run.
        folders: the run directories.
    """

    share: float
    clips: float
    speakers: float
    hours: float
    epochs: int
    wer: float
    low: float
    high: float
    runs: list[float]
    folders: list[str]


class CurveResult(Model):
    """A learning curve.

    Attributes:
        name: of the recipe.
        split: the scored set, with its number of clips and of reference words.
        normalizer: of the texts before scoring.
        unit: what the parts consist of.
        same: what all trainings have in common.
        base: WER of the base model, and its interval.
        points: by amount of data.
        law: the power law; its amounts are hours.
        extrapolations: expected WER with more data; their amounts are hours.
        notes: what limits the result.
    """

    schema_version: Literal[1] = CURVE_SCHEMA
    name: str
    split: Literal["test", "valid"]
    clips: int
    words: int
    normalizer: str
    unit: Unit
    same: Literal["steps", "epochs"]
    base: tuple[float, float, float]
    points: list[CurvePoint]
    law: PowerLaw
    extrapolations: list[Extrapolation]
    notes: list[str]
