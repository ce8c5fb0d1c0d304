"""Speaks a few texts with each English voice, and transcribes them: a broken voice has a WER far above the others.

    python scripts/check_voices.py data/granite-speech-nano --cache build/nano [--engines kokoro] [--texts 8]

Prints for each voice: WER (%) of MODEL, characters a second, the share of its energy above 4 kHz, clips that the corpus
would leave out, and CPU seconds for each second of speech (one thread).
"""

import argparse
import resource
from pathlib import Path

import jiwer
import numpy as np
from numpy.typing import NDArray

import finetune
from finetune.curation.clip_audio import speech_bounds
from finetune.data.audio import SAMPLE_RATE
from nano.audio_plan import read_texts, texts_for
from nano.clip_shape import fault, shape, to_wave
from nano.voice_engines import line_for, open_voice, use_programs
from nano.voice_table import ENGINES, VOICES


def cpu_seconds() -> float:
    """Of this process and its children."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def high_share(wave: NDArray[np.float32]) -> float:
    """The share of the energy above 4 kHz of samples (N,) at 16 kHz."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power[len(power) // 2 :].sum() / max(power.sum(), 1e-12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/nano"), help="folder with texts/ and voices/")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--texts", type=int, default=8, help="texts for each voice")
    args = parser.parse_args()
    voices = args.cache.absolute() / "voices"
    model = finetune.load(args.model)
    rows = texts_for(read_texts(args.cache, "en"), held_out=False)
    rows = [row for row in rows if row["kind"] == "common" and len(row["text"].split()) >= 6]
    use_programs(voices / "debian")
    print("voice\theld out\tWER\tcharacters/s\t>4 kHz\tleft out\tCPU s/s")
    for voice in (v for v in VOICES if v.language == "en" and v.engine in args.engines):
        waves, texts, faults, seconds, cpu = [], [], 0, 0.0, 0.0
        opened = open_voice(voice, voices)
        for row in rows[: args.texts]:
            rng, started = np.random.default_rng(len(texts)), cpu_seconds()
            spoken = str(row.get("spoken") or row["text"])
            sound = opened.speak(line_for(voice, spoken, rng))
            cpu += cpu_seconds() - started
            wave = to_wave(sound)
            bounds = speech_bounds(wave)
            seconds += (bounds[1] - bounds[0]) / SAMPLE_RATE
            faults += bool(fault(sound.samples, bounds[1] - bounds[0], spoken, "en"))
            if bounds[1]:
                waves.append(shape(wave, bounds, rng))
                texts.append(row["text"])
        hypotheses = [found.text for found in model.transcribe(waves, sample_rate=SAMPLE_RATE)]
        wer = 100 * jiwer.wer(texts, hypotheses) if texts else 100.0
        share = np.mean([high_share(wave / np.float32(32768)) for wave in waves]) if waves else 0.0
        rate = sum(map(len, texts)) / max(seconds, 1e-9)
        print(
            f"{voice.full_name}\t{'yes' if voice.held_out else ''}\t{wer:.0f}\t{rate:.1f}\t{100 * share:.1f}",
            f"\t{faults}\t{cpu / max(seconds, 1e-9):.3f}",
            sep="",
            flush=True,
        )


if __name__ == "__main__":
    main()
