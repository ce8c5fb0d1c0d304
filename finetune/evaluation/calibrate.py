"""Calibrates relaxed decoding for one model: finds the fastest thresholds within a limit on the WER increase."""

import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from finetune.core.config import Recipe
from finetune.core.errors import DataError
from finetune.core.files import write_json
from finetune.core.layouts import BPE_HEAD
from finetune.core.model_limits import read_limits, write_limits
from finetune.core.options import DecodingOptions
from finetune.core.progress import advance, task
from finetune.core.wording import count
from finetune.data.manifest import Utterance, seconds_of
from finetune.data.normalizer_choice import normalizer_for
from finetune.data.row_prompt import has_ctc_text
from finetune.evaluation.no_speech import MAX_CLIPS, NoSpeechCalibration, calibrate_no_speech
from finetune.evaluation.utterances import read_utterances
from finetune.inference.clip_windows import clip_windows
from finetune.inference.encode import encode_batches
from finetune.inference.recognize import Hypothesis, decoding_summary, joined, transcribe_batch
from finetune.inference.saved_options import CALIBRATION
from finetune.metrics.wer import score
from finetune.model.granite import SpeechModel, default_device, load_model

ENTROPIES = (0.0, 0.3, 0.7, 1.5, 3.0)  # nats; with 0 the language model checks every clip
PROBABILITIES = (0.5, 0.2, 0.1, 0.02)  # with 0.5 a draft token is accepted only if it is the most probable one
ROUNDING = 1e-9  # points of WER

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Thresholds:
    """A pair of thresholds of relaxed decoding, see `DecodingOptions`."""

    max_entropy: float
    min_probability: float


@dataclass(frozen=True)
class Point:
    """Measurements of one decoder on all clips.

    Attributes:
        thresholds: None for lossless decoding.
        wer: a fraction.
        passes: passes of the language model, mean over clips.
        seconds: decoding time with the encoder, mean over clips.
        ctc_only: fraction of the clips that keep their CTC text without the language model.
    """

    thresholds: Thresholds | None
    wer: float
    passes: float
    seconds: float
    ctc_only: float


@dataclass(frozen=True)
class CalibrateResult:
    """All pairs, the fastest first; lossless decoding; the chosen pair; the limit on the WER increase in points.

    `no_speech` is the calibrated threshold of the guard against words without speech, and `saved_no_speech` that of the
    model from now on: few clips do not raise a threshold that it has already.
    """

    points: tuple[Point, ...]
    lossless: Point
    chosen: Point
    max_wer_loss: float
    no_speech: NoSpeechCalibration | None = None
    saved_no_speech: float = 0.0


def calibrate(
    model: str, manifest: str, max_wer_loss: float, instruction: str, decode: DecodingOptions, normalizer: str
) -> CalibrateResult:
    """Decodes the clips with every pair of thresholds and writes the fastest allowed pair into the model's folder.

    Also calibrates `no_speech` and writes it to the model's `limits.json`, unless few clips would raise it.

    The fastest pair has the fewest passes of the language model, a number that does not depend on the machine. If
    several pairs have the fewest, the pair with the lowest WER is used. The pair (0, 0.5) is lossless, so at least one
    pair is always allowed.

    Args:
        model: the model's folder.
        manifest: the clips; those without a transcript and translations are left out, and so is Japanese, unless the
            model has a second CTC head, of tokens, which drafts it.
        max_wer_loss: largest increase of the WER over lossless decoding, in percentage points.
        instruction: the instruction of the prompt.
        decode: the decoding options; decoder and thresholds are replaced. Clips longer than `max_window` are cut.
        normalizer: the normalizer of the WER; Japanese clips alone are scored in characters.

    Raises:
        DataError: the manifest has no clip with a transcript.
        ModelError: the model cannot be loaded.
    """
    clips = [item for item in read_utterances(Path(manifest)) if item.text]
    bpe_head = (Path(model) / BPE_HEAD).is_file()
    utterances = [item for item in clips if has_ctc_text(item, bpe_head)]
    others = "Translations" if bpe_head else "Translations and Japanese"
    if not utterances:
        raise DataError(
            f"{manifest}: no clip has a transcript; calibration needs transcripts to measure WER. "
            f"{others} are decoded without the CTC head, so they cannot be used"
        )
    if left_out := len(clips) - len(utterances):
        log.info("%s left out. %s are decoded without the CTC head", count(left_out, "clip"), others)
    normalizer = normalizer_for(utterances, normalizer)
    loaded = load_model(model, "auto", default_device())
    pairs = 1 + len(ENTROPIES) * len(PROBABILITIES)
    with task(f"calibrate, {pairs} decoders", pairs * seconds_of(utterances)):
        lossless, *points = _measure(loaded, utterances, instruction, decode, normalizer)
    guard = calibrate_no_speech(loaded, utterances, decode.batch_seconds, Recipe.model_fields["seed"].default)
    limits = read_limits(model)
    keep = not guard.clips or (guard.clips < MAX_CLIPS and 0 < limits.no_speech < guard.threshold)
    saved = limits.no_speech if keep else guard.threshold
    write_limits(Path(model), replace(limits, no_speech=saved))
    result = replace(choose(points, lossless, max_wer_loss), no_speech=guard, saved_no_speech=saved)
    _write_thresholds(Path(model) / CALIBRATION, result, manifest, len(utterances))
    return result


def choose(points: list[Point], lossless: Point, max_wer_loss: float) -> CalibrateResult:
    """Sorts the points by passes, then WER, and chooses the first within `max_wer_loss` points of WER."""
    ordered = sorted(points, key=lambda point: (point.passes, point.wer))
    chosen = next(point for point in ordered if 100 * (point.wer - lossless.wer) <= max_wer_loss + ROUNDING)
    return CalibrateResult(tuple(ordered), lossless, chosen, max_wer_loss)


def _measure(
    model: SpeechModel, utterances: list[Utterance], instruction: str, decode: DecodingOptions, normalizer: str
) -> list[Point]:
    """Lossless decoding, then every pair of thresholds. The encoder runs once for each batch of windows."""
    pairs = [None, *(Thresholds(entropy, probability) for entropy in ENTROPIES for probability in PROBABILITIES)]
    options = {
        pair: replace(decode, decoder="relaxed", **asdict(pair)) if pair else replace(decode, decoder="speculative")
        for pair in pairs
    }
    hypotheses: dict[Thresholds | None, dict[int, Hypothesis]] = {pair: {} for pair in pairs}
    cut = [clip_windows(utterance, decode.max_window) for utterance in utterances]
    windows = [window for parts in cut for window in parts]
    for batch, audio, encoder_seconds in encode_batches(model, windows, decode.batch_seconds):
        items = [windows[index] for index in batch]
        for pair in pairs:
            started = time.perf_counter()
            rows = transcribe_batch(model, audio, items, instruction, options[pair])
            seconds = (time.perf_counter() - started + encoder_seconds) / len(batch)
            hypotheses[pair] |= {index: replace(row, seconds=seconds) for index, row in zip(batch, rows, strict=True)}
            advance(seconds_of(items))
    references = [item.text for item in utterances]
    points = []
    for pair, by_index in hypotheses.items():
        decoded = (by_index[index] for index in range(len(windows)))
        rows = [joined(item, list(islice(decoded, len(parts)))) for item, parts in zip(utterances, cut, strict=True)]
        wer = score(references, [row.text for row in rows], normalizer).wer
        summary = decoding_summary(rows)
        ctc_only = summary["accepted_by"].get("ctc", 0) / len(utterances)
        points.append(Point(pair, wer, summary["passes"], summary["seconds"], ctc_only))
    return points


def _write_thresholds(path: Path, result: CalibrateResult, manifest: str, clips: int) -> None:
    chosen, lossless = result.chosen, result.lossless
    assert chosen.thresholds is not None
    write_json(
        path,
        {
            **asdict(chosen.thresholds),
            "wer": chosen.wer,
            "lossless_wer": lossless.wer,
            "max_wer_loss": result.max_wer_loss,
            "passes": chosen.passes,
            "lossless_passes": lossless.passes,
            "manifest": manifest,
            "clips": clips,
        },
    )


def frontier_table(result: CalibrateResult) -> list[str]:
    """A table of the pairs for which no other pair has fewer passes and a lower WER, then of lossless decoding."""
    lines = [f"{'entropy':>8}{'probability':>13}{'WER':>9}{'passes':>9}{'ms/clip':>11}{'CTC only':>11}"]
    lowest_wer = math.inf
    for point in result.points:
        if point.wer >= lowest_wer or point.thresholds is None:
            continue
        lowest_wer = point.wer
        lines.append(
            f"{point.thresholds.max_entropy:8.2f}{point.thresholds.min_probability:13.2f}{_columns(point)}"
            + (f"  <- chosen (WER increase at most {result.max_wer_loss:g} points)" if point is result.chosen else "")
        )
    return [*lines, f"{'lossless':>21}{_columns(result.lossless)}"]


def _columns(point: Point) -> str:
    return f"{100 * point.wer:8.2f}%{point.passes:9.2f}{1000 * point.seconds:11.1f}{100 * point.ctc_only:10.0f}%"
