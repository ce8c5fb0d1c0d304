"""Measures long-form transcription: concatenates clips with silences and compares WER with that of the single clips.

    python scripts/bench_longform.py                     # 10 minutes of the canary set, the embedded model
    python scripts/bench_longform.py --noise -50 --vad silero
    python scripts/bench_longform.py --silence 0.05 0.25 --trim --max-window 30    # short pauses, long windows

`by time` assigns words to clips by their word times, so it also tests the word times.
"""

import argparse
import random
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import srt
import webvtt

import finetune
from finetune.core.options import MAX_WINDOW
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import Utterance, read_manifest
from finetune.inference.recognize import recognize
from finetune.inference.transcript import Transcript
from finetune.metrics.wer import score

TRIM_FRAME = 320  # samples
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, eq=False)
class Recording:
    """Clips in one waveform (N,) at 16 kHz; `starts` and `ends` are their times in seconds."""

    clips: list[Utterance]
    starts: list[float]
    ends: list[float]
    wave: np.ndarray


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "data/granite-speech-nano"))
    parser.add_argument("--manifest", type=Path, default=ROOT / "data/vocabulary/canary.jsonl")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--silence", type=float, nargs=2, default=(0.6, 3.0), metavar="S", help="range between two clips"
    )
    parser.add_argument("--noise", type=float, metavar="DB", help="level of added white noise relative to full scale")
    parser.add_argument("--vad", default="level")
    parser.add_argument("--max-window", type=float, metavar="S", help="the default is the limit of the model")
    parser.add_argument("--trim", action="store_true", help="remove the silence at both ends of each clip first")
    return parser.parse_args()


def concatenate(args: argparse.Namespace) -> Recording:
    """Random clips of the manifest with random silences between them, and noise if requested."""
    rng, noise = random.Random(1), np.random.default_rng(1)
    clips = [
        replace(clip, audio_filepath=str(args.manifest.parent / clip.audio_filepath))
        for clip in read_manifest(args.manifest)
    ]
    chosen, starts, ends, parts, length = [], list[float](), list[float](), list[np.ndarray](), 0
    while length < 60 * args.minutes * SAMPLE_RATE:
        clip = rng.choice(clips)
        wave = load_audio(clip.audio_filepath)
        wave = trim(wave) if args.trim else wave
        silence = np.zeros(round(rng.uniform(*args.silence) * SAMPLE_RATE), np.float32)
        chosen.append(clip)
        starts.append(length / SAMPLE_RATE)
        ends.append((length + len(wave)) / SAMPLE_RATE)
        parts += [wave, silence]
        length += len(wave) + len(silence)
    joined = np.concatenate(parts)
    if args.noise is not None:
        joined += 10 ** (args.noise / 20) * noise.standard_normal(len(joined)).astype(np.float32)
    return Recording(chosen, starts, ends, joined)


def trim(wave: np.ndarray) -> np.ndarray:
    """The samples from 5 ms before the first to 5 ms after the last 20 ms frame within 30 dB of the loudest one."""
    starts = np.arange(0, len(wave) - TRIM_FRAME, TRIM_FRAME // 2)
    levels = np.array([wave[start : start + TRIM_FRAME].std() for start in starts])
    loud = starts[levels > 10 ** (-30 / 20) * levels.max()]
    return wave[max(0, loud[0] - 80) : loud[-1] + TRIM_FRAME + 80]


def transcribe_clips(model: finetune.GraniteSpeech, clips: list[Utterance]) -> dict[str, str]:
    """The text of each clip alone, by id, with the options of the model."""
    unique = list({clip.id: clip for clip in clips}.values())
    options = replace(model.options.decoding, max_window=MAX_WINDOW)
    hypotheses = recognize(model.network, unique, model.options.instruction, options)
    return {item.id: item.text for item in hypotheses}


def transcribe_recording(
    model: finetune.GraniteSpeech, recording: Recording, args: argparse.Namespace
) -> tuple[Transcript, float]:
    """The transcript of the recording, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "joined.wav"
        soundfile.write(path, recording.wave, SAMPLE_RATE)
        started = time.perf_counter()
        options = {} if args.max_window is None else {"max_window": args.max_window}
        transcript = model.transcribe(path, vad=args.vad, **options)
        return transcript, time.perf_counter() - started


def texts_by_time(recording: Recording, transcript: Transcript) -> list[str]:
    """For each clip, the words whose middle is within the clip."""
    words = [word for segment in transcript.segments for word in segment.words]
    return [
        " ".join(word.text for word in words if start < (word.start + word.end) / 2 < end)
        for start, end in zip(recording.starts, recording.ends, strict=True)
    ]


def check_subtitles(transcript: Transcript) -> str:
    """Reads the subtitles with independent parsers, checks times and text, and returns a summary."""
    cues = [
        (cue.start.total_seconds(), cue.end.total_seconds(), cue.content)
        for cue in srt.parse(transcript.to_srt(), ignore_errors=False)
    ]
    vtt = webvtt.from_string(transcript.to_vtt())
    assert [(cue.start_in_seconds, cue.text) for cue in vtt] == [(int(start), text) for start, _, text in cues]
    assert all(one[0] < one[1] <= two[0] for one, two in pairwise(cues))
    assert " ".join(" ".join(text for _, _, text in cues).split()) == transcript.text
    durations = [end - start for start, end, _ in cues]
    return f"{len(cues)} cues, parsed by srt and webvtt-py: {min(durations):.2f} to {max(durations):.2f} s"


def main() -> None:
    args = parse_args()
    recording = concatenate(args)
    model = finetune.load(args.model)
    alone = transcribe_clips(model, recording.clips)
    transcript, seconds = transcribe_recording(model, recording, args)
    longest = max(segment.end - segment.start for segment in transcript.segments)
    print(
        f"{len(recording.clips)} clips in {transcript.duration:.0f} s, transcribed in {seconds:.0f} s; "
        f"{len(transcript.segments)} windows, the longest {longest:.2f} s"
    )
    references = [clip.text for clip in recording.clips]
    single = [alone[clip.id] for clip in recording.clips]
    for name, hypotheses in (("alone", single), ("by time", texts_by_time(recording, transcript))):
        print(f"{name:8} WER {100 * score(references, hypotheses, 'basic@2').wer:.2f} %")
    print(f"{'joined':8} WER {100 * score([' '.join(references)], [transcript.text], 'basic@2').wer:.2f} %")
    print(check_subtitles(transcript))


if __name__ == "__main__":
    main()
