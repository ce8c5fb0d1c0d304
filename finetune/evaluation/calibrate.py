"""Thresholds of relaxed decoding for one model: the fastest pair that loses no more WER than it may."""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from finetune.core.errors import DataError
from finetune.core.files import write_json
from finetune.core.options import DecodingOptions
from finetune.evaluation.utterances import read_utterances
from finetune.inference.recognize import Hypothesis, decoding_summary, encode_batches, transcribe_batch
from finetune.inference.saved_options import CALIBRATION
from finetune.metrics.wer import score
from finetune.model.granite import load_model

ENTROPIES = (0.0, 0.3, 0.7, 1.5, 3.0)  # nats; at 0 no clip keeps its CTC text unseen
PROBABILITIES = (0.5, 0.2, 0.1, 0.02)  # at 0.5 the language model keeps its own choices alone


@dataclass(frozen=True)
class Thresholds:
    """A pair of thresholds of relaxed decoding, see `DecodingOptions`."""

    max_entropy: float
    min_probability: float


@dataclass(frozen=True)
class Point:
    """One decoder on all clips: WER (a fraction), LLM passes and seconds a clip, the encoder's among them, and the
    share of clips that kept their CTC text unseen. `thresholds` are None for lossless decoding."""

    thresholds: Thresholds | None
    wer: float
    passes: float
    seconds: float
    unseen: float


@dataclass(frozen=True)
class CalibrateResult:
    """Every pair, the fastest first; `lossless` beside them; and the pair that was chosen."""

    points: tuple[Point, ...]
    lossless: Point
    chosen: Point
    max_wer_loss: float


def calibrate(
    model: str, manifest: str, max_wer_loss: float, instruction: str, decode: DecodingOptions, normalizer: str
) -> CalibrateResult:
    """Decodes the clips with every pair, writes the chosen one beside the model, and returns what was measured.

    The fastest is the one with the fewest LLM passes, which every machine counts alike; among equals that with the
    lower WER. With a probability of 0.5 and no entropy that passes, the output is lossless, so one pair always fits.

    Args:
        max_wer_loss: points of WER that the pair may lose against lossless decoding of the same clips (0.2 is 0.002).

    Raises:
        DataError: the manifest has no clip with a transcript.
        ModelError: the model cannot be loaded.
    """
    clips = [item for item in read_utterances(Path(manifest)) if item.text]
    if not clips:
        raise DataError(f"{manifest}: no clip with a transcript to calibrate on")
    loaded = load_model(model, "auto", "cuda" if torch.cuda.is_available() else "cpu")
    pairs = [None, *(Thresholds(entropy, chance) for entropy in ENTROPIES for chance in PROBABILITIES)]
    options = {
        pair: replace(decode, decoder="relaxed", **asdict(pair)) if pair else replace(decode, decoder="speculative")
        for pair in pairs
    }
    heard: dict[Thresholds | None, dict[int, Hypothesis]] = {pair: {} for pair in pairs}
    for batch, audio, hearing in encode_batches(loaded, clips, decode.batch_seconds):
        for pair in pairs:
            started = time.perf_counter()
            rows = transcribe_batch(loaded, audio, [clips[index] for index in batch], instruction, options[pair])
            seconds = (time.perf_counter() - started + hearing) / len(batch)
            heard[pair] |= {index: replace(row, seconds=seconds) for index, row in zip(batch, rows, strict=True)}
    points = {}
    for pair, by_index in heard.items():
        rows = [by_index[index] for index in range(len(clips))]
        wer = score([item.text for item in clips], [row.text for row in rows], normalizer).wer
        how = decoding_summary(rows)
        points[pair] = Point(pair, wer, how["passes"], how["seconds"], how["accepted_by"].get("ctc", 0) / len(clips))
    lossless = points.pop(None)
    order = sorted(points.values(), key=lambda point: (point.passes, point.wer))
    chosen = next(point for point in order if 100 * (point.wer - lossless.wer) <= max_wer_loss + 1e-9)
    assert chosen.thresholds is not None
    write_json(
        Path(model) / CALIBRATION,
        {
            **asdict(chosen.thresholds),
            "wer": chosen.wer,
            "lossless_wer": lossless.wer,
            "max_wer_loss": max_wer_loss,
            "passes": chosen.passes,
            "lossless_passes": lossless.passes,
            "manifest": manifest,
            "clips": len(clips),
        },
    )
    return CalibrateResult(tuple(order), lossless, chosen, max_wer_loss)


def frontier_table(result: CalibrateResult) -> list[str]:
    """The pairs that no other beats in both passes and WER, the fastest first, and lossless decoding below."""
    lines = [f"{'entropy':>8}{'probability':>13}{'WER':>9}{'passes':>9}{'ms a clip':>11}{'CTC alone':>11}"]
    best = math.inf
    for point in result.points:
        if point.wer >= best or point.thresholds is None:
            continue
        best = point.wer
        lines.append(
            f"{point.thresholds.max_entropy:8.2f}{point.thresholds.min_probability:13.2f}{_figures(point)}"
            + (f"  <- kept (at most {result.max_wer_loss:g} points lost)" if point is result.chosen else "")
        )
    return [*lines, f"{'lossless':>21}{_figures(result.lossless)}"]


def _figures(point: Point) -> str:
    return f"{100 * point.wer:8.2f}%{point.passes:9.2f}{1000 * point.seconds:11.1f}{100 * point.unseen:10.0f}%"
