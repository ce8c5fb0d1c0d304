"""Tests of the calibration of the guard against words without speech, on the embedded model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from conftest import VOCABULARY

from finetune.data.audio import load_utterance
from finetune.data.features import log_mel, pad_features
from finetune.data.manifest import Utterance, read_manifest
from finetune.data.probes import guard_probes
from finetune.evaluation.no_speech import CHANGES, MARGIN, calibrate_no_speech
from finetune.inference.guards import speech_score
from finetune.inference.transcribe import load
from finetune.model.granite import SpeechModel


@torch.inference_mode()
def score_of(model: SpeechModel, wave: np.ndarray) -> float:
    audio = model.encode(*pad_features([log_mel(torch.from_numpy(wave.astype(np.float32)))]))
    return speech_score(model.ctc_logits(audio.states).float().log_softmax(-1)[0].numpy())


def test_the_threshold_is_below_the_lowest_score_of_the_changed_speech(nano: Path) -> None:
    model, seed = load(nano), 3
    clips = [
        replace(item, audio_filepath=str(VOCABULARY / item.audio_filepath))
        for item in read_manifest(VOCABULARY / "valid.jsonl")[:3]
    ]
    result = calibrate_no_speech(model, [*clips, Utterance("empty", clips[0].audio_filepath, 1.0, "")], 30, seed)
    waves = [load_utterance(item) for item in clips]
    scores = [
        [score_of(model, change(wave, np.random.default_rng((seed, len(wave))))) for wave in waves]
        for change in CHANGES
    ]
    lowest = min(map(min, scores))
    assert result.clips == 3 and abs(result.threshold - MARGIN * lowest) < 1e-3
    assert lowest < min(scores[0]), "the changed speech decides"
    probes = [score_of(model, wave) for wave in guard_probes(seed).values()]
    assert abs(result.rejected - np.mean([score < result.threshold for score in probes])) < 1e-9


def test_the_changes_are_quieter_speech_noise_and_a_telephone_band() -> None:
    rng = np.random.default_rng(0)
    wave = rng.normal(size=32_000).astype(np.float32)
    same, quiet, noisy, narrow = (change(wave, np.random.default_rng(1)) for change in CHANGES)
    np.testing.assert_array_equal(same, wave)
    np.testing.assert_allclose(quiet, 10**-1.5 * wave, rtol=1e-6)
    assert abs(10 * np.log10(np.var(noisy - wave) / np.var(wave)) + 10) < 0.1
    spectrum = np.abs(np.fft.rfft(narrow)) ** 2
    assert spectrum[len(spectrum) // 2 + 100 :].sum() < 1e-3 * spectrum.sum()
