"""`finetune segment`: a recording with a plain transcript becomes a manifest of clips, and the rest is set aside."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import Command, noise
from conftest import embedded

from finetune.core.files import read_jsonl
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import read_manifest
from finetune.data.probes import probe_waves

CLIPS = embedded("canary", 8)
TEXT = " ".join(clip.text for clip in CLIPS)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stereo recording of embedded clips with pauses, and 3 s of a tone in the middle."""
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    waves = [wave for clip in CLIPS for wave in (pause, load_audio(clip.audio_filepath))]
    waves.insert(len(waves) // 2, probe_waves(1)["dial tone"].astype(np.float32))
    wave = np.concatenate([*waves, pause])
    path = tmp_path_factory.mktemp("talk") / "talk.flac"
    soundfile.write(path, np.stack([wave, np.zeros_like(wave)], 1), SAMPLE_RATE)
    return path


def words_of(folder: Path, name: str = "") -> Counter[str]:
    """The words of all clips and of all that is set aside."""
    pieces = read_jsonl(folder / f"clips{name}.jsonl") + read_jsonl(folder / f"set_aside{name}.jsonl")
    return Counter(" ".join(str(piece["text"]) for piece in pieces).split())


def test_a_recording_becomes_clips_that_prepare_can_read(
    finetune: Command, nano: Path, talk: Path, tmp_path: Path
) -> None:
    text, words = tmp_path / "talk.txt", TEXT.split()
    words[3:3] = ["unpronounceable"]  # not spoken
    text.write_text(" ".join(words).upper() + ".\n")
    result = finetune("segment", nano, talk, "--text", text, "-o", tmp_path / "out", "--min-duration", 2)
    assert result.code == 0, result.err
    assert f"of {len(words)} words" in result.out and str(tmp_path / "out" / "clips.jsonl") in result.out
    clips = read_manifest(tmp_path / "out" / "clips.jsonl")
    assert sum(len(clip.text.split()) for clip in clips) >= 0.8 * len(words)
    assert words_of(tmp_path / "out") == Counter(f"{' '.join(words).upper()}.".split())
    assert {clip.audio_filepath for clip in clips} == {str(talk)} and clips[0].id == "talk-00001"
    assert all(0 < float(str(clip.extra["score"])) <= 1 and clip.extra["recording"] == "talk" for clip in clips)
    assert all(one.offset + one.duration <= two.offset + 0.01 for one, two in pairwise(clips))
    aside = read_jsonl(tmp_path / "out" / "set_aside.jsonl")
    assert "UNPRONOUNCEABLE" in {row["text"] for row in aside if row["reason"] == "not found in the audio"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["clips"] == len(clips) and summary["words"] == len(words)
    assert summary["options"]["min_duration"] == 2

    again = finetune("segment", nano, talk, "--text", text, "-o", tmp_path / "out")
    assert again.code == 1 and "clips.jsonl: exists already" in again.err


def test_rows_of_a_corpus_parts_of_files_channels_and_cut_clips(
    finetune: Command, nano: Path, talk: Path, tmp_path: Path
) -> None:
    """The second row is a part of a file; the third cannot be read; the fourth has no words."""
    total = soundfile.info(talk).duration
    half = total / 2
    table = [
        {"id": "a/b", "text": TEXT, "offset": 0, "duration": total, "speaker": "anna"},
        {"id": "a_b", "text": TEXT, "offset": half, "duration": half},
        {"id": "gone", "text": "some words", "audio_filepath": str(tmp_path / "gone.flac"), "offset": 0, "duration": 9},
        {"id": "mute", "text": "...", "offset": 0, "duration": 1},
    ]
    corpus, out = tmp_path / "talks.jsonl", tmp_path / "out"
    corpus.write_text("".join(json.dumps({"audio_filepath": str(talk), "channel": 0} | row) + "\n" for row in table))
    result = finetune("segment", nano, corpus, "-o", out, "--cut", "--min-score", 0.9)
    assert result.code == 1 and "2 of 4 recordings have no words or no readable audio" in result.out
    assert words_of(out) == Counter([*TEXT.split() * 2, "some", "words", "..."])
    clips = read_manifest(out / "clips.jsonl")
    assert {clip.extra["recording"] for clip in clips} == {"a/b", "a_b"} and clips[0].speaker == "anna"
    assert len({clip.audio_filepath for clip in clips}) == len(clips)
    for clip in clips:
        assert len(load_audio(clip.audio_filepath)) == round(clip.duration * SAMPLE_RATE)
        assert clip.offset == 0 and clip.channel is None and Path(clip.audio_filepath).parent == out / "audio"
    reasons = {str(row["recording"]): str(row["reason"]) for row in read_jsonl(out / "set_aside.jsonl")}
    assert "no such file" in reasons["gone"] and reasons["mute"] == "no words in the transcript"
    parts = [
        row for row in read_jsonl(out / "set_aside.jsonl") if row["recording"] == "a_b" and row["offset"] is not None
    ]
    assert parts and all(float(str(row["offset"])) >= half for row in parts)

    job = finetune("segment", nano, corpus, "-o", out, "--shard", "2/3")
    assert job.code == 0, job.err
    (clip, *_) = read_manifest(out / "clips-00002-of-00003.jsonl")
    assert clip.extra["recording"] == "a_b" and clip.offset >= half and clip.channel == 0
    assert words_of(out, "-00002-of-00003") == Counter(TEXT.split())


def test_no_clip_is_a_failure_with_advice(finetune: Command, nano: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE * 8), SAMPLE_RATE)
    (tmp_path / "text.txt").write_text("nobody says any of this")
    result = finetune(
        "segment", nano, tmp_path / "silence.wav", "--text", tmp_path / "text.txt", "-o", tmp_path / "out"
    )
    assert result.code == 1 and "no clip was kept" in result.out
    assert "set aside: 5 words: not found in the audio" in result.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--shard", "4/3"], 2, "--shard 4/3: the number must be 1 to 3"),
        (["--shard", "0/3"], 2, "--shard 0/3: the number must be 1 to 3"),
        (["--min-duration", "15"], 2, "min_duration 15 s"),
        (["--min-score", "2"], 2, "min_score: must be less than or equal to 1"),
        (["--text", "subtitles.srt"], 1, "subtitles.srt: the text has times"),
        (["--text", "headings.txt"], 1, "headings.txt: lines such as 'Ann (0:00)' are not spoken; remove them"),
        (["--text", "names.txt"], 1, "names.txt: lines such as 'Ann: [00:01]' are not spoken; remove them"),
        (["--text", "missing.txt"], 1, "missing.txt: cannot be read"),
        ([], 1, "a.flac: an audio file; add its transcript without times, --text FILE"),
    ],
)
def test_wrong_arguments(
    finetune: Command,
    nano: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("subtitles.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    Path("headings.txt").write_text("Ann (0:00)\nhello\nBob (0:04)\nhi\n")
    Path("names.txt").write_text("Ann: [00:01] hello\nBob: [00:04] hi\n")
    Path("a.flac").write_bytes(b"")
    result = finetune("segment", nano, "a.flac", "-o", "out", *arguments)
    assert result.code == code and message in result.err and not Path("out").exists()


def test_a_wrong_output_is_named_before_the_model_is_loaded_and_a_failure_leaves_no_folder(
    finetune: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "a.txt").write_text("some words")
    arguments = ("segment", tmp_path / "no-model", noise(tmp_path / "a.wav"), "--text", tmp_path / "a.txt", "-o")
    below = finetune(*arguments, tmp_path / "file" / "out")
    assert below.code == 1 and f"{tmp_path / 'file' / 'out'}: cannot be written (Not a directory)" in below.err
    failed = finetune(*arguments, tmp_path / "out")
    assert failed.code == 1 and "no-model: no such folder" in failed.err and not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_and_an_unknown_language(finetune: Command, nano: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    audio = noise(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("some words")
    result = finetune("segment", nano, audio, "--text", tmp_path / "a.txt", "-o", tmp_path / "file")
    assert result.code == 1 and "this is a file; name a folder for -o" in result.err
    result = finetune(
        "segment", nano, audio, "--text", tmp_path / "a.txt", "-o", tmp_path / "out", "--language", "klingon"
    )
    assert "--language klingon: its numbers cannot be written in words" in result.out
