"""Measures `finetune segment` on a recording that is joined from clips with known transcripts.

    OMP_NUM_THREADS=1 python scripts/bench_segment.py                                 # an hour, embedded model and data
    python scripts/bench_segment.py --model EXPORT --manifests data/ivr-en/test.jsonl --minutes 10

The clips follow each other in random order until the recording is long enough; a clip can occur again. Between two of
them are 0.2 to 1 s of faint noise (70 %), 1 to 6 s of noise (15 %) or of music (15 %), at -45, -30 or -18 dB. Of the
words, `--left-out` are removed from the transcript one by one, and `--made-up` are put in: random words of the clips'
vocabulary. Noise, music and changes are synthetic.

Figures:
- words kept: words that are spoken and in the transcript, and are in an output clip.
- clips kept: joined clips of which at least half, or all, of the transcript's words are in output clips. `complete`:
  only those without a word left out.
- text right: 1 - WER of the output clips' texts against the words that are spoken in them. A word is in an output clip
  if its middle is. `exact`: output clips without any error.
- edges: output clips' starts and ends within 100 ms of where they should be: 0.1 s (the padding) outside the first and
  the last word, or in the middle of a shorter pause. The true time of a joined clip's first and last word is that of
  its sound (within 35 dB of its maximum); words inside a clip have the times of `align` for the clip alone with
  its complete text.
- made-up words: how many are in an output clip.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from finetune.core.options import SegmentOptions
from finetune.curation.recordings import read_recordings
from finetune.curation.segment_corpus import SegmentFiles, segment_recordings
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.audit import stated_utterances
from finetune.data.corpora import read_corpus
from finetune.data.features import FRAME_SECONDS, log_mel
from finetune.data.manifest import Utterance, read_manifest
from finetune.data.probes import guard_probes
from finetune.inference.transcribe import load
from finetune.inference.word_times import WORD_END, align
from finetune.metrics.alignment import align_words, count_errors
from finetune.model.granite import SpeechModel

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "valid", "test", "canary", "replay")
EDGE = 0.1  # seconds
FAINT = 0.001  # standard deviation of the noise in the whole recording
SOUND_DB = 35.0
Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Spoken:
    """A word in the recording, with its times in seconds."""

    text: str
    start: float
    end: float
    clip: int


@dataclass(frozen=True)
class Written:
    """A word of the transcript; `spoken` is its number among the spoken words, None for a made-up one."""

    text: str
    spoken: int | None


@dataclass(frozen=True)
class Recording:
    """A joined recording with what is spoken and what the transcript says."""

    wave: Wave
    spoken: list[Spoken]
    written: list[Written]


def gap(rng: np.random.Generator, sounds: dict[str, list[Wave]]) -> Wave:
    """The audio between two clips."""
    kind = rng.choice(["pause", "noise", "music"], p=[0.7, 0.15, 0.15])
    if kind == "pause":
        return np.zeros(int(rng.uniform(0.2, 1.0) * SAMPLE_RATE), np.float32)
    chosen = [sounds[kind][rng.integers(len(sounds[kind]))] for _ in range(2)]
    return np.concatenate(chosen)[: int(rng.uniform(1, 6) * SAMPLE_RATE)]


def probe_sounds(seed: int) -> dict[str, list[Wave]]:
    """Noise and music of 3 s."""
    sounds: dict[str, list[Wave]] = {"noise": [], "music": []}
    for name, wave in guard_probes(seed).items():
        if not name.endswith("-60 dB"):
            sounds["music" if name.split()[0] in ("melody", "chords") else "noise"].append(wave.astype(np.float32))
    return sounds


def word_times(model: SpeechModel, wave: Wave, text: str) -> list[tuple[float, float]]:
    """Start and end of each word of a clip, in seconds."""
    features = log_mel(torch.from_numpy(wave).to(model.device))
    with torch.inference_mode():
        encoded = model.encode(features[None], torch.tensor([len(features)], device=model.device))
        log_probs = model.ctc_logits(encoded.states)[0].float().log_softmax(-1).cpu().numpy()
    frames = align(log_probs, text).frames
    times = [(start * FRAME_SECONDS, end * FRAME_SECONDS + WORD_END) for start, end in frames]
    for number in range(len(times) - 1):
        if times[number][1] > times[number + 1][0]:
            middle = (frames[number][1] + frames[number + 1][0]) * FRAME_SECONDS / 2
            times[number], times[number + 1] = (times[number][0], middle), (middle, times[number + 1][1])
    count = len(wave) // 160
    level = 20 * np.log10(wave[: count * 160].reshape(count, 160).std(axis=1) + 1e-6)
    loud = np.flatnonzero(level > level.max() - SOUND_DB) * 0.01
    times[0], times[-1] = (float(loud[0]), times[0][1]), (times[-1][0], float(loud[-1]) + 0.01)
    return times


def join(model: SpeechModel, clips: list[Utterance], args: argparse.Namespace) -> Recording:
    """Joins clips in random order, and changes the transcript."""
    rng, sounds = np.random.default_rng(args.seed), probe_sounds(args.seed)
    vocabulary = sorted({word for clip in clips for word in clip.text.split()})
    waves, spoken, written, order, at = list[Wave](), list[Spoken](), list[Written](), list[int](), 0
    times: dict[int, tuple[Wave, list[tuple[float, float]]]] = {}
    number = 0
    while at < args.minutes * 60 * SAMPLE_RATE:
        order = order or rng.permutation(len(clips)).tolist()
        index = order.pop()
        if index not in times:
            wave = load_utterance(clips[index])
            times[index] = wave, word_times(model, wave, clips[index].text)
        between, (wave, ends) = gap(rng, sounds), times[index]
        waves += [between, wave]
        at += len(between)
        for word, (start, end) in zip(clips[index].text.split(), ends, strict=True):
            if rng.random() < args.made_up:
                written.append(Written(vocabulary[rng.integers(len(vocabulary))], None))
            if rng.random() >= args.left_out:
                written.append(Written(word, len(spoken)))
            spoken.append(Spoken(word, at / SAMPLE_RATE + start, at / SAMPLE_RATE + end, number))
        at, number = at + len(wave), number + 1
    wave = np.concatenate(waves) + FAINT * rng.standard_normal(at).astype(np.float32)
    return Recording(wave, spoken, written)


def edge_errors(clip: Utterance, spoken: list[Spoken], inside: list[int], padding: float) -> list[float]:
    """Seconds from the edges of an output clip to where they should be; infinite for a clip without speech."""
    if not inside:
        return [np.inf, np.inf]
    first, last = inside[0], inside[-1]
    before = spoken[first - 1].end if first else 0.0
    after = spoken[last + 1].start if last + 1 < len(spoken) else np.inf
    start = max(spoken[first].start - padding, (spoken[first].start + before) / 2)
    end = min(spoken[last].end + padding, (spoken[last].end + after) / 2)
    return [clip.offset - start, clip.offset + clip.duration - end]


def words_of_clips(clips: list[Utterance], aside: list[dict[str, object]]) -> list[int]:
    """The numbers of the transcript's words that are in output clips; the others are set aside one row at a time."""
    kept = list[int]()
    holes = {
        position + n
        for row in aside
        if isinstance(position := row["position"], int)
        for n in range(len(str(row["text"]).split()))
    }
    for clip in clips:
        number, count = int(str(clip.extra["position"])), len(clip.text.split())
        while count:
            if number not in holes:
                kept.append(number)
                count -= 1
            number += 1
    return kept


def report(recording: Recording, clips: list[Utterance], aside: list[dict[str, object]], padding: float) -> list[str]:
    spoken, written = recording.spoken, recording.written
    numbers = words_of_clips(clips, aside)
    everything = " ".join(word.text for word in written).split()
    assert [everything[number] for number in numbers] == [word for clip in clips for word in clip.text.split()]
    assert len(numbers) + sum(len(str(row["text"]).split()) for row in aside) == len(written), "a word vanished"
    kept = set(numbers)
    middles = np.array([(word.start + word.end) / 2 for word in spoken])
    inside = [
        np.flatnonzero((middles >= clip.offset) & (middles < clip.offset + clip.duration)).tolist() for clip in clips
    ]
    rows = align_words([[spoken[n].text for n in words] for words in inside], [clip.text.split() for clip in clips])
    errors = [count_errors(row) for row in rows]
    edges = np.abs(
        [e for clip, words in zip(clips, inside, strict=True) for e in edge_errors(clip, spoken, words, padding)]
    )
    by_clip: dict[int, list[bool]] = {}
    for number, word in enumerate(written):
        if word.spoken is not None:
            by_clip.setdefault(spoken[word.spoken].clip, []).append(number in kept)
    shares = {clip: float(np.mean(flags)) for clip, flags in by_clip.items()}
    present = {word.spoken for word in written}
    cut = {word.clip for number, word in enumerate(spoken) if number not in present}
    real = [number for number, word in enumerate(written) if word.spoken is not None]
    fake = [number for number, word in enumerate(written) if word.spoken is None]
    seconds = np.array([clip.duration for clip in clips])

    def percent(values: object) -> str:
        return f"{100 * float(np.mean(np.asarray(values, float))):.2f} %"

    return [
        f"recording: {len(recording.wave) / SAMPLE_RATE / 60:.1f} minutes, {spoken[-1].clip + 1} clips, "
        f"{len(spoken)} words spoken, {len(real)} of them and {len(fake)} made-up ones in the transcript",
        f"output: {len(clips)} clips, {seconds.min():.1f} to {seconds.max():.1f} s, median {np.median(seconds):.1f}, "
        f"{percent(seconds < 5)} under 5 s",
        f"words kept           {percent([number in kept for number in real])}",
        f"clips kept           {percent([share >= 0.5 for share in shares.values()])} (half of the words), "
        f"{percent([share == 1 for share in shares.values()])} (all), "
        f"{percent([share == 1 for clip, share in shares.items() if clip not in cut])} (all; complete clips)",
        f"text right           {100 * (1 - sum(errors) / len(numbers)):.2f} % of the words, "
        f"{percent([not count for count in errors])} of the clips exact",
        f"edges within 100 ms  {percent(edges <= EDGE)} (median error {1000 * np.median(edges):.0f} ms)",
        f"made-up words        {sum(number in kept for number in fake)} of {len(fake)} are in a clip",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "data/granite-speech-nano"))
    parser.add_argument(
        "--manifests", nargs="+", default=[str(ROOT / f"data/vocabulary/{split}.jsonl") for split in SPLITS]
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--left-out", type=float, default=0.05)
    parser.add_argument("--made-up", type=float, default=0.02)
    parser.add_argument("--min-score", type=float, nargs="+", default=[SegmentOptions().min_score])
    parser.add_argument("--shortest", type=float, nargs="+", default=[SegmentOptions().shortest])
    parser.add_argument(
        "--keep", type=Path, help="folder for the recording and the results; by default they are deleted"
    )
    args = parser.parse_args()
    model = load(args.model)
    rows = [row for manifest in args.manifests for row in stated_utterances(read_corpus(manifest, Path()), manifest)]
    clips = [replace(clip, duration=clip.duration or 0.0) for clip in rows if clip.text]
    recording = join(model, clips, args)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        audio, text = folder / "recording.flac", folder / "recording.txt"
        soundfile.write(audio, recording.wave.clip(-1, 1), SAMPLE_RATE)
        text.write_text(" ".join(word.text for word in recording.written), encoding="utf-8")
        for min_score in args.min_score:
            for shortest in args.shortest:
                options = SegmentOptions(min_score=min_score, shortest=shortest)
                started, cpu = time.perf_counter(), time.process_time()
                files = SegmentFiles.of(folder)
                segment_recordings(model, read_recordings(str(audio), str(text), folder), options, files)
                seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
                aside = [json.loads(line) for line in files.set_aside.read_text(encoding="utf-8").splitlines()]
                print(f"\nmin_score {min_score:g}, shortest {shortest:g} s: {seconds:.0f} s, {cpu:.0f} s CPU")
                print("\n".join(report(recording, read_manifest(files.clips), aside, options.padding)), flush=True)


if __name__ == "__main__":
    main()
