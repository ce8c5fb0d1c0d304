"""Measures models on speech with recorded noise, lines and rooms, and the words that they make up without speech.

    mkdir noise && cd noise && apt-get download simutrans-pak64 asterisk-moh-opsound-wav && cd ..
    for deb in noise/*.deb; do dpkg-deb -x "$deb" noise; done
    python scripts/bench_noise.py data/granite-speech-nano runs/noise/export \\
        --noise noise/usr/share/games/simutrans/pak/sound --music noise/usr/share/asterisk/moh

The noises are sound effects of a game (vehicles, machines, water, birds, wind), the music is music on hold;
`recipes/noise.yaml` trains on generated sounds only. Each clip has the same part of the same recording for all models
and SNRs. `--lines` changes clean speech: telephone band, codecs (each clip at one of their bit rates), simulated rooms
(extra `rooms`). WER, its interval and the paired test against the first model are those of `finetune compare`.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

import finetune
from finetune.core.options import INSTRUCTION
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.effects.codecs import CODECS, apply_codec
from finetune.data.effects.distortion import add_noise, telephone_band
from finetune.data.effects.generated import Wave, rms
from finetune.data.effects.recordings import Recording, excerpt, find_recordings, seconds_of_recording
from finetune.data.effects.rooms import ROOMS, reverberate, simulated_response
from finetune.data.manifest import read_manifest, write_manifest
from finetune.data.probes import guard_probes, probe_waves
from finetune.evaluation.compare import CompareResult, compare, scoring_options
from finetune.metrics.normalizer import normalize

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data/vocabulary"
SNRS = (math.inf, 20.0, 10.0, 5.0, 0.0)  # inf: clean
SHORTEST = 1.0  # seconds of a recording; shorter ones are single events
SECONDS, LEVELS = 3.0, (-45, -30, -18)  # of clips without speech; dB of full scale
PROBE_SEED = 2  # the calibration of a run uses 1
ROOM_SEED = 4242  # no recipe has this seed, so no training has these rooms
LINES = ("telephone", *CODECS, "room")

Change = Callable[[Wave, np.random.Generator], Wave]


@dataclass(frozen=True)
class Row:
    """The WER of a model on a set with a change: an SNR in dB, `clean` or a line; fractions."""

    set: str
    change: str
    model: str
    wer: float
    low: float
    high: float
    difference: str


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="the base model, then others")
    parser.add_argument("--noise", required=True, metavar="DIR", help="recordings of noise")
    parser.add_argument("--music", metavar="DIR", help="recordings of music")
    sets = [DATA / "test.jsonl", DATA / "canary.jsonl"]
    parser.add_argument("--manifests", type=Path, nargs="*", default=sets, help="clips with speech")
    parser.add_argument("--snr", type=float, nargs="*", default=SNRS, metavar="DB", help="inf is clean (default: all)")
    parser.add_argument(
        "--lines", nargs="*", default=[], choices=LINES, help="also without noise, but with this change"
    )
    parser.add_argument("--words", action=argparse.BooleanOptionalAction, default=True, help="also count made-up words")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    return parser.parse_args()


def long_enough(folder: str, key: str) -> list[Recording]:
    return [item for item in find_recordings(folder, key) if seconds_of_recording(item) >= SHORTEST]


def changes(recordings: Sequence[Recording], snrs: Sequence[float], lines: Sequence[str]) -> dict[str, Change]:
    """What is done to the clips of a set, by the name of the column in the table."""

    def noise(snr: float) -> Change:
        def add(wave: Wave, rng: np.random.Generator) -> Wave:
            return add_noise(wave, excerpt(recordings[rng.integers(len(recordings))], len(wave), rng), snr)

        return add

    def line(name: str) -> Change:
        if name == "telephone":
            return lambda wave, rng: telephone_band(wave)
        if name == "room":
            return lambda wave, rng: reverberate(wave, simulated_response(ROOM_SEED, int(rng.integers(ROOMS))))
        return lambda wave, rng: apply_codec(wave, name, rng)[0]

    noises = {"clean" if math.isinf(snr) else f"{snr:g}": noise(snr) for snr in snrs}
    return {**noises, **{name: line(name) for name in lines}}


def changed_set(manifest: Path, change: Change, folder: Path) -> Path:
    """Writes the changed clips of a manifest."""
    rng, rows = np.random.default_rng(1), []
    folder.mkdir(parents=True)
    for item in read_manifest(manifest):
        wave = load_audio(str(manifest.parent / item.audio_filepath), item.offset, item.duration, item.channel)
        path = folder / f"{item.id}.wav"
        soundfile.write(path, change(wave, rng), SAMPLE_RATE, subtype="FLOAT")
        rows.append(replace(item, audio_filepath=str(path), offset=0.0, channel=None, keywords=(), audio_digest=""))
    write_manifest(folder / "clips.jsonl", rows)
    return folder / "clips.jsonl"


def rows_of(name: str, change: str, result: CompareResult) -> Iterator[Row]:
    for model, scores in result.systems.items():
        test = result.comparisons.get(model)
        text = f"{100 * test.difference:+.1f} ({100 * test.low:+.1f} to {100 * test.high:+.1f})" if test else ""
        yield Row(name, change, model, scores.wer, scores.interval.low, scores.interval.high, text)


def without_speech(noise: Sequence[Recording], music: Sequence[Recording]) -> dict[str, list[Wave]]:
    """Clips without speech by family: recordings, and the probes of `finetune/data/probes.py`."""
    rng, count, families = np.random.default_rng(PROBE_SEED), round(SECONDS * SAMPLE_RATE), dict[str, list[Wave]]()

    def at_levels(recordings: Sequence[Recording], times: int) -> list[Wave]:
        waves = [excerpt(item, count, rng) for item in recordings for _ in range(times)]
        return [wave * np.float32(10 ** (level / 20) / max(rms(wave), 1e-9)) for wave in waves for level in LEVELS]

    families["recorded noise"] = at_levels(noise, 1)
    families["recorded music"] = at_levels(music, 4)
    probes = {**guard_probes(PROBE_SEED), **probe_waves(PROBE_SEED)}
    families["silence"] = [np.zeros(round(seconds * SAMPLE_RATE), np.float32) for seconds in (1, 3, 8)]
    families["probes of the report"] = [probes[kind].clip(-1, 1).astype(np.float32) for kind in probe_waves(PROBE_SEED)]
    families["probes of the guard"] = [wave.astype(np.float32) for wave in guard_probes(PROBE_SEED).values()]
    return {family: waves for family, waves in families.items() if waves}


def made_up(model: finetune.GraniteSpeech, waves: Sequence[Wave]) -> list[int]:
    """The number of words of each clip, without the guard against words without speech."""
    audio = [{"array": wave, "sampling_rate": SAMPLE_RATE} for wave in waves]
    return [len(normalize(item.text, "basic@2").split()) for item in model.transcribe(audio, no_speech=0.0)]


def rate(words: Sequence[int], waves: Sequence[Wave]) -> str:
    """Words a minute, with a bootstrap interval over clips."""
    seconds, counts = np.array([len(wave) / SAMPLE_RATE for wave in waves]), np.array(words)
    picks = np.random.default_rng(1).integers(len(words), size=(2000, len(words)))
    low, high = np.quantile(60 * counts[picks].sum(1) / seconds[picks].sum(1), (0.025, 0.975))
    return f"{60 * counts.sum() / seconds.sum():.1f} ({low:.1f} to {high:.1f})"


def main() -> None:
    args = parse_args()
    noise = long_enough(args.noise, "--noise")
    music = long_enough(args.music, "--music") if args.music else []
    print(f"{len(noise)} recordings of noise, {len(music)} of music\n")
    print("| set | SNR dB or line | model | WER % | against the first |\n|---|---|---|---|---|")
    rows = list[Row]()
    with tempfile.TemporaryDirectory() as folder:
        for manifest in args.manifests:
            for name, change in changes(noise, args.snr, args.lines).items():
                path = changed_set(manifest, change, Path(folder) / f"{manifest.stem}-{name}")
                result = compare(args.models, str(path), scoring_options(None, None), None, INSTRUCTION, [])
                for row in rows_of(manifest.stem, name, result):
                    rows.append(row)
                    print(
                        f"| {row.set} | {row.change} | {row.model} | {100 * row.wer:.1f} ({100 * row.low:.1f} to "
                        f"{100 * row.high:.1f}) | {row.difference} |",
                        flush=True,
                    )
    families = without_speech(noise, music) if args.words else {}
    words = dict[str, dict[str, str]]()
    if families:
        print("\nmade-up words a minute, without the guard of `finetune transcribe`\n")
        print(f"| model | {' | '.join(f'{name} ({len(waves)} clips)' for name, waves in families.items())} |")
        print("|---" * (len(families) + 1) + "|")
    for name in args.models if families else ():
        model = finetune.load(name)
        words[name] = {family: rate(made_up(model, waves), waves) for family, waves in families.items()}
        print(f"| {name} | {' | '.join(words[name].values())} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"wer": [vars(row) for row in rows], "made_up": words}, indent=2) + "\n")


if __name__ == "__main__":
    main()
