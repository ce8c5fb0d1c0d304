"""Measures the guard against words without speech: invented words that it prevents, and spoken words that it loses.

    python scripts/bench_no_speech.py                                        # the embedded model
    python scripts/bench_no_speech.py --model runs/quickstart/export --manifests data/vocabulary/test.jsonl

Each clip is transcribed twice, as `finetune transcribe` does: with `no_speech` 0 and with the threshold of the model.
Noise, tones and music are the probes of `finetune/data/probes.py`, with other random numbers than in the calibration.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

import finetune
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import read_manifest
from finetune.data.probes import Wave, guard_probes, probe_waves
from finetune.metrics.normalizer import normalize
from finetune.metrics.wer import score

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION_SEED = 1  # the seed of recipes
FAMILIES = {"hum": "tones", "mains hum": "tones", "dial tone": "tones", "beeps": "tones", "silence": "tones"}
FAMILIES |= {"melody": "music", "chords": "music"}  # all others are noise


@dataclass(frozen=True, eq=False)
class Clip:
    """Samples (N,) at 16 kHz and their reference."""

    wave: Wave
    text: str = ""


@dataclass(frozen=True)
class Output:
    """The texts of all clips, and the number of their words."""

    texts: list[str]
    words: int


def noisy(snr: float) -> Callable[[Wave, np.random.Generator], Wave]:
    """Adds white noise, `snr` dB below the speech."""
    return lambda wave, rng: wave + 10 ** (-snr / 20) * wave.std() * rng.normal(size=len(wave))


def telephone(wave: Wave, rng: np.random.Generator) -> Wave:
    """The band of a telephone: 8 kHz."""
    return np.asarray(soxr.resample(soxr.resample(wave, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE))


CHANGES: dict[str, Callable[[Wave, np.random.Generator], Wave]] = {
    "as it is": lambda wave, rng: wave,
    "noise 10 dB below": noisy(10),
    "noise 5 dB below": noisy(5),
    "8 kHz": telephone,
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "data/granite-speech-nano"))
    parser.add_argument("--seeds", type=int, default=3, help="sets of probes")
    data = ROOT / "data/vocabulary"
    sets = [data / f"{name}.jsonl" for name in ("valid", "canary")]
    parser.add_argument("--manifests", type=Path, nargs="*", default=sets, help="clips with speech")
    return parser.parse_args()


def probes(seeds: int) -> dict[str, list[Clip]]:
    """Clips without speech, by family."""
    clips: dict[str, list[Clip]] = {family: [] for family in ("noise", "tones", "music")}
    for seed in range(CALIBRATION_SEED + 1, CALIBRATION_SEED + 1 + seeds):
        for name, wave in (guard_probes(seed) | probe_waves(seed)).items():
            kind = name.rsplit(" ", 2)[0] if name.endswith(" dB") else name
            clips[FAMILIES.get(kind, "noise")].append(Clip(wave.clip(-1, 1)))
    return clips


def speech(manifest: Path, change: Callable[[Wave, np.random.Generator], Wave]) -> list[Clip]:
    rng = np.random.default_rng(1)
    rows = [item for item in read_manifest(manifest) if item.text]
    waves = [load_audio(str(manifest.parent / item.audio_filepath)).astype(np.float64) for item in rows]
    return [Clip(change(wave, rng), item.text) for wave, item in zip(waves, rows, strict=True)]


def transcribe(model: finetune.GraniteSpeech, clips: list[Clip], threshold: float) -> Output:
    audio = [{"array": clip.wave.astype(np.float32), "sampling_rate": SAMPLE_RATE} for clip in clips]
    results = model.transcribe(audio, no_speech=threshold)
    texts = [result.text for result in results]
    words = sum(len(normalize(text, "basic@2").split()) for text in texts)
    return Output(texts, words)


def main() -> None:
    args = parse_args()
    model = finetune.load(args.model)
    threshold = model.options.no_speech
    print(f"{args.model}, no_speech {threshold:g}\n")
    print("| without speech | clips | invented words a minute: off | on | clips with words: off | on |")
    print("|---|---|---|---|---|---|")
    for family, clips in probes(args.seeds).items():
        minutes = sum(len(clip.wave) for clip in clips) / SAMPLE_RATE / 60
        off, on = (transcribe(model, clips, value) for value in (0.0, threshold))
        print(
            f"| {family} | {len(clips)} | {off.words / minutes:.1f} | {on.words / minutes:.1f} "
            f"| {sum(map(bool, off.texts))} | {sum(map(bool, on.texts))} |",
            flush=True,
        )
    print("\n| speech | clips | WER %: off | on | clips without text: off | on | words lost |")
    print("|---|---|---|---|---|---|---|")
    for manifest in args.manifests:
        for name, change in CHANGES.items():
            clips = speech(manifest, change)
            off, on = (transcribe(model, clips, value) for value in (0.0, threshold))
            rates = [100 * score([clip.text for clip in clips], output.texts, "basic@2").wer for output in (off, on)]
            empty = [sum(not text for text in output.texts) for output in (off, on)]
            print(
                f"| {manifest.stem}, {name} | {len(clips)} | {rates[0]:.1f} | {rates[1]:.1f} | {empty[0]} | {empty[1]} "
                f"| {off.words - on.words} of {off.words} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
