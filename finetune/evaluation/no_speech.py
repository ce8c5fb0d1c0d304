"""Calibrates the threshold below which a window counts as without speech (`TranscribeOptions.no_speech`)."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
import torch

from finetune.core.errors import DataError
from finetune.data.audio import SAMPLE_RATE
from finetune.data.manifest import Utterance
from finetune.data.probes import Wave, guard_probes
from finetune.inference.encode import Waveform, encode_batches, load_waveforms
from finetune.inference.guards import speech_score
from finetune.model.granite import SpeechModel

log = logging.getLogger(__name__)

MAX_CLIPS = 50
MARGIN = 0.8  # the threshold is this fraction of the lowest score of speech
QUIET_DB, NOISE_DB = -30.0, -10.0
NARROW_BAND = 8000  # Hz


@dataclass(frozen=True)
class NoSpeechCalibration:
    """The calibrated threshold.

    Attributes:
        threshold: 0 (off) if the CTC head scores the speech too low to be distinguished.
        clips: number of speech clips, each also quieter, with noise, and with the band of a telephone.
        rejected: fraction of the probes without speech that are below the threshold.
    """

    threshold: float
    clips: int
    rejected: float


def calibrate_no_speech(
    model: SpeechModel, utterances: Sequence[Utterance], batch_seconds: float, seed: int
) -> NoSpeechCalibration:
    """Scores speech, as it is and degraded, and probes without speech; only the encoder runs.

    Args:
        model: the model.
        utterances: clips with speech; at most `MAX_CLIPS` of those with a text are used. Do not use the test set.
        batch_seconds: padded audio in a batch.
        seed: seed of the noise and of the probes.
    """
    clips = [item for item in utterances if item.text][:MAX_CLIPS]
    try:
        speech = [score for change in CHANGES for score in _scores(model, clips, batch_seconds, seed, change)]
    except DataError as error:
        log.warning("the guard against words without speech is not calibrated: %s", error)
        return NoSpeechCalibration(0.0, 0, 0.0)
    threshold = round(MARGIN * min(speech), 3) if speech else 0.0
    waves = [wave.astype(np.float32) for wave in guard_probes(seed).values()]
    probes = [Utterance(str(index), "", len(wave) / SAMPLE_RATE, "") for index, wave in enumerate(waves)]
    scores = list(_scored(model, probes, batch_seconds, lambda items: [waves[int(item.id)] for item in items]))
    return NoSpeechCalibration(threshold, len(clips), sum(score < threshold for score in scores) / len(scores))


def _scores(
    model: SpeechModel,
    clips: Sequence[Utterance],
    batch_seconds: float,
    seed: int,
    change: Callable[[Waveform, np.random.Generator], Wave],
) -> Iterator[float]:
    """The scores of the clips after a change of their samples."""

    def load(items: Sequence[Utterance]) -> list[Waveform]:
        waves = load_waveforms(items)
        return [change(wave, np.random.default_rng((seed, len(wave)))).astype(np.float32) for wave in waves]

    return _scored(model, clips, batch_seconds, load)


@torch.inference_mode()
def _scored(
    model: SpeechModel,
    clips: Sequence[Utterance],
    batch_seconds: float,
    load: Callable[[Sequence[Utterance]], list[Waveform]],
) -> Iterator[float]:
    for _, audio, _ in encode_batches(model, clips, batch_seconds, load):
        log_probs = model.ctc_logits(audio.states).float().log_softmax(-1).cpu().numpy()
        for row, count in zip(log_probs, audio.num_frames.tolist(), strict=True):
            yield speech_score(row[:count])


def _noisy(wave: Waveform, rng: np.random.Generator) -> Wave:
    return wave + 10 ** (NOISE_DB / 20) * wave.std() * rng.normal(size=len(wave))


def _narrow(wave: Waveform, rng: np.random.Generator) -> Wave:
    low = soxr.resample(soxr.resample(wave, SAMPLE_RATE, NARROW_BAND), NARROW_BAND, SAMPLE_RATE)
    return np.asarray(low, np.float64)


CHANGES: tuple[Callable[[Waveform, np.random.Generator], Wave], ...] = (
    lambda wave, rng: wave.astype(np.float64),
    lambda wave, rng: 10 ** (QUIET_DB / 20) * wave.astype(np.float64),
    _noisy,
    _narrow,
)
