#!/usr/bin/env python3
"""Trains one epoch on five common layouts of data, and checks that run, score and compare report the same WER.

    python scripts/check_layouts.py

The layouts are made from the embedded vocabulary: stereo calls with a speaker on each channel, a Common Voice split, a
NeMo manifest of segments, MP3 files with a variable bit rate and no length in the header, and Japanese text without a
language. For each of them the script also checks that every clip has the samples of its original. The Japanese
transcripts do not match their English audio, so only their counts are checked.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from finetune.core.files import read_json, read_jsonl  # noqa: E402
from finetune.core.run_dir import RunDir  # noqa: E402
from finetune.data.audio import SAMPLE_RATE, load_audio, load_utterance  # noqa: E402
from finetune.data.manifest import read_manifest  # noqa: E402

CLIPS = {"train": 12, "valid": 4, "test": 8}
VOCABULARY, BASE = ROOT / "data" / "vocabulary", ROOT / "data" / "granite-speech-nano"
KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねの"
MIN_SIMILARITY, MAX_DIFFERENCE = 0.95, 0.12  # MP3 at a low bit rate changes samples, and pads up to 0.1 s
Samples = np.ndarray


@dataclass(frozen=True)
class Clip:
    """A clip of the embedded vocabulary: its samples (N,) at 16 kHz."""

    id: str
    text: str
    speaker: str
    samples: Samples


def original_clips(split: str) -> list[Clip]:
    """The shortest clips of a split."""
    rows = sorted(read_jsonl(VOCABULARY / f"{split}.jsonl"), key=lambda row: (row["duration"], row["id"]))
    return [
        Clip(row["id"], row["text"], row["speaker"], load_audio(VOCABULARY / row["audio_filepath"]))
        for row in rows[: CLIPS[split]]
    ]


def stereo_calls(folder: Path, split: str, clips: Sequence[Clip]) -> Path:
    """Files with two channels; each channel is the clip of another speaker."""
    rows = []
    for number, (left, right) in enumerate(zip(clips[::2], clips[1::2], strict=True)):
        stereo = np.zeros((max(len(left.samples), len(right.samples)), 2), np.float32)
        for channel, clip in enumerate((left, right)):
            stereo[: len(clip.samples), channel] = clip.samples
            rows.append({**_row(f"call-{split}-{number}.wav", clip), "channel": channel, "offset": 0})
            rows[-1]["duration"] = len(clip.samples) / SAMPLE_RATE
        soundfile.write(folder / f"call-{split}-{number}.wav", stereo, SAMPLE_RATE, subtype="FLOAT")
    return _jsonl(folder / f"{split}.jsonl", rows)


def common_voice(folder: Path, split: str, clips: Sequence[Clip]) -> Path:
    """A .tsv file with the columns of Common Voice 17 and a folder `clips` of MP3 files."""
    (folder / "clips").mkdir(exist_ok=True)
    path = folder / {"valid": "dev.tsv"}.get(split, f"{split}.tsv")
    columns = (
        "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale"
    )
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, escapechar=None)
        table.writerow([*columns.split(), "segment"])
        for clip in clips:
            name = f"common_voice_en_{clip.id}.mp3"
            soundfile.write(folder / "clips" / name, clip.samples, SAMPLE_RATE, format="MP3")
            table.writerow(
                [clip.speaker, name, "5", clip.text, "", 2, 0, "", "", "United States English", "", "en", ""]
            )
    return path


def nemo_segments(folder: Path, split: str, clips: Sequence[Clip]) -> Path:
    """One long file, and a manifest with the offset and duration of each clip; the first row has no offset."""
    rows, pieces, position = [], list[Samples](), 0
    for clip in clips:
        rows.append({**_row(f"long-{split}.flac", clip), "duration": len(clip.samples) / SAMPLE_RATE})
        if position:
            rows[-1]["offset"] = position / SAMPLE_RATE
        pieces += [clip.samples, np.zeros(SAMPLE_RATE // 2, np.float32)]
        position += len(pieces[-2]) + len(pieces[-1])
    soundfile.write(folder / f"long-{split}.flac", np.concatenate(pieces), SAMPLE_RATE)
    return _jsonl(folder / f"{split}.jsonl", rows)


def untagged_mp3(folder: Path, split: str, clips: Sequence[Clip]) -> Path:
    """MP3 files with a variable bit rate and without the header that has their length."""
    for clip in clips:
        encode_mp3(folder / f"{clip.id}.mp3", clip.samples)
    return _jsonl(folder / f"{split}.jsonl", [_row(f"{clip.id}.mp3", clip) for clip in clips])


def japanese(folder: Path, split: str, clips: Sequence[Clip]) -> Path:
    """Transcripts in kana, without spaces and without a language."""
    rows = []
    for clip in clips:
        soundfile.write(folder / f"{clip.id}.wav", clip.samples, SAMPLE_RATE, subtype="FLOAT")
        kana = "".join(KANA[ord(char) % len(KANA)] for char in clip.text if char.isalpha())
        rows.append({**_row(f"{clip.id}.wav", clip), "text": kana})
    return _jsonl(folder / f"{split}.jsonl", rows)


LAYOUTS: dict[str, Callable[[Path, str, Sequence[Clip]], Path]] = {
    "stereo_calls": stereo_calls,
    "common_voice": common_voice,
    "nemo_segments": nemo_segments,
    "untagged_mp3": untagged_mp3,
    "japanese": japanese,
}


def encode_mp3(path: Path, samples: Samples) -> None:
    """Writes an MP3 with a variable bit rate and no Xing header."""
    with av.open(str(path), "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono", options={"q": "4"})
        frame = av.AudioFrame.from_ndarray(samples[None, :].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def _row(name: str, clip: Clip) -> dict[str, Any]:
    return {"audio_filepath": name, "text": clip.text, "speaker": clip.speaker, "id": clip.id}


def _jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def check_samples(run: RunDir, originals: dict[str, Sequence[Clip]]) -> str:
    """Compares the samples of each prepared clip with its original; returns the difference, or raises an error."""
    smallest, longest = 1.0, 0.0
    for split, clips in originals.items():
        prepared = read_manifest(run.manifest(split))
        if len(prepared) != len(clips):
            raise SystemExit(f"{run.root}: {split} has {len(prepared)} clips, expected {len(clips)}")
        for item, clip in zip(prepared, clips, strict=True):
            samples = load_utterance(item)
            smallest = min(smallest, similarity(samples, clip.samples))
            longest = max(longest, abs(len(samples) - len(clip.samples)) / SAMPLE_RATE)
    same = f"similarity of the samples at least {smallest:.3f}, lengths within {1000 * longest:.0f} ms"
    if smallest < MIN_SIMILARITY or longest > MAX_DIFFERENCE:
        raise SystemExit(f"{run.root}: the samples of a clip are not those of its original: {same}")
    return same


def similarity(samples: Samples, original: Samples) -> float:
    """The largest normalized cross-correlation of two signals; codecs delay and pad."""
    size = len(samples) + len(original)
    product = np.fft.irfft(np.fft.rfft(samples, size) * np.conj(np.fft.rfft(original, size)), size)
    return float(product.max() / np.sqrt((samples**2).sum() * (original**2).sum()))


def finetune(*arguments: object) -> None:
    command = [sys.executable, "-m", "finetune", *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout}{result.stderr}")


def check_layout(name: str, folder: Path) -> str:
    """Runs one layout. Returns a line with its WER, or raises an error that names the difference."""
    folder.mkdir(parents=True)
    originals = {split: original_clips(split) for split in CLIPS}
    data = {split: [str(LAYOUTS[name](folder, split, clips))] for split, clips in originals.items()}
    recipe = folder / "recipe.yaml"
    content = {
        "name": name,
        "runs": str(folder / "runs"),
        "model": {"base": str(BASE)},
        "data": {**data, "max_duration": 6.0},
        "train": {"epochs": 1, "batch_seconds": 8},
        "evaluate": {"probes": False, "replicas": 100},
        "export": {"clips": 2},
    }
    recipe.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    finetune("run", recipe)
    run = RunDir(folder / "runs" / name)
    same = check_samples(run, originals)
    scored = RunDir(folder / "runs" / "scored")
    finetune("score", recipe, "--set", f"model.base={run.export}", "--set", "name=scored")
    finetune("compare", run.root, run.export, "--json", folder / "compare.json")
    metrics = read_json(run.scores)["scores"]["test"]["adapted"]
    (scores,) = read_json(scored.root / "score" / "scores.json")["sets"].values()
    compared = read_json(folder / "compare.json")["systems"]
    rates = {
        "run": metrics["wer"],
        "score": scores["wer"],
        **{
            f"compare {system}": entry["wer"]
            for system, entry in zip(("run", "export"), compared.values(), strict=True)
        },
    }
    if len({round(rate, 9) for rate in rates.values()}) > 1:
        raise SystemExit(f"{name}: different WER: {rates}")
    return f"{name:14} WER {100 * metrics['wer']:6.2f} % in run, score and compare; {same}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layouts", nargs="*", choices=[*LAYOUTS, []], help="the default is all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in args.layouts or LAYOUTS:
            print(check_layout(name, Path(folder) / name), flush=True)


if __name__ == "__main__":
    main()
