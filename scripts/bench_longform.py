"""Joins clips with silences to one long file and compares its transcript with that of the clips heard alone.

    python scripts/bench_longform.py                     # 10 minutes of the canary, the embedded model
    python scripts/bench_longform.py --noise -50 --vad silero

`by time` gives each clip the words whose times lie in its place: it shows whether the word times are right.
"""

import argparse
import random
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import srt
import webvtt

import finetune
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import read_manifest
from finetune.inference.recognize import recognize
from finetune.inference.subtitles import render
from finetune.metrics.wer import score

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "data/granite-speech-nano"))
    parser.add_argument("--manifest", type=Path, default=ROOT / "data/vocabulary/canary.jsonl")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--silence", type=float, nargs=2, default=(0.6, 3.0), metavar="S", help="between two clips")
    parser.add_argument("--noise", type=float, metavar="DB", help="white noise over all of it, below full scale")
    parser.add_argument("--vad", default="level")
    given = parser.parse_args()
    rng, noise = random.Random(1), np.random.default_rng(1)
    clips = read_manifest(given.manifest)
    chosen, starts, parts, length = [], list[float](), list[np.ndarray](), 0
    while length < 60 * given.minutes * SAMPLE_RATE:
        clip = rng.choice(clips)
        wave = load_audio(given.manifest.parent / clip.audio_filepath)
        silence = np.zeros(round(rng.uniform(*given.silence) * SAMPLE_RATE), np.float32)
        chosen.append(clip)
        starts.append(length / SAMPLE_RATE)
        parts += [wave, silence]
        length += len(wave) + len(silence)
    joined = np.concatenate(parts)
    if given.noise is not None:
        joined += 10 ** (given.noise / 20) * noise.standard_normal(len(joined)).astype(np.float32)

    model = finetune.load(given.model)
    unique = list(
        {
            clip.id: replace(clip, audio_filepath=str(given.manifest.parent / clip.audio_filepath)) for clip in chosen
        }.values()
    )
    alone = {
        item.id: item.text
        for item in recognize(model.network, unique, model.options.instruction, model.options.decoding)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joined.wav"
        soundfile.write(path, joined, SAMPLE_RATE)
        started = time.perf_counter()
        heard = model.transcribe(path, vad=given.vad)
        seconds = time.perf_counter() - started

    words = [word for segment in heard.segments for word in segment.words]
    placed = [
        " ".join(word.text for word in words if start < (word.start + word.end) / 2 < start + clip.duration)
        for clip, start in zip(chosen, starts, strict=True)
    ]
    references = [clip.text for clip in chosen]
    longest = max(segment.end - segment.start for segment in heard.segments)
    print(
        f"{len(chosen)} clips in {heard.duration:.0f} s, heard in {seconds:.0f} s; {len(heard.segments)} windows, "
        f"the longest {longest:.2f} s"
    )
    for name, said in (("alone", [alone[clip.id] for clip in chosen]), ("by time", placed)):
        print(f"{name:8} WER {100 * score(references, said, 'basic@1').wer:.2f} %")
    whole = score([" ".join(references)], [heard.text], "basic@1")
    print(f"{'joined':8} WER {100 * whole.wer:.2f} %")
    cues = [
        (cue.start.total_seconds(), cue.end.total_seconds(), cue.content)
        for cue in srt.parse(render(heard, "srt"), ignore_errors=False)
    ]
    again = webvtt.from_string(render(heard, "vtt"))
    assert [(cue.start_in_seconds, cue.text) for cue in again] == [(int(start), text) for start, _, text in cues]
    assert all(one[0] < one[1] <= two[0] for one, two in pairwise(cues))
    assert " ".join(" ".join(text for _, _, text in cues).split()) == heard.text
    print(
        f"{len(cues)} cues, read back by srt and webvtt-py: {min(end - start for start, end, _ in cues):.2f} to "
        f"{max(end - start for start, end, _ in cues):.2f} s"
    )


if __name__ == "__main__":
    main()
