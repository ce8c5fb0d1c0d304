"""`finetune pseudo-label`: untranscribed audio becomes a manifest of machine transcripts, and the rest is set aside."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command import Command, noise
from conftest import embedded

from finetune.core.config import Recipe
from finetune.core.curation_options import PseudoLabelOptions
from finetune.core.data_config import CorpusEntry
from finetune.core.files import read_jsonl
from finetune.core.run_dir import RunDir
from finetune.curation import machine_transcripts
from finetune.curation.adapted_model import find_model
from finetune.curation.machine_transcripts import MachineTranscript, transcribe_clips
from finetune.curation.outputs import CurationFiles
from finetune.curation.pseudo_label import pseudo_label, reason_against, text_agreement
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import read_manifest, write_manifest
from finetune.data.pseudo_labels import count_pseudo_labels
from finetune.metrics.wer import score
from finetune.model.granite import SpeechModel
from finetune.pipeline import run_recipe

CLIPS = embedded("canary", 8)
PRESET = "basic@2"
GOOD = MachineTranscript("pay by phone", "pay by phone", 0.95, 0.9, 1.0, speech=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips in two folders, noise, a file that is no audio, and a text that is not read."""
    path = tmp_path_factory.mktemp("calls")
    (path / "monday").mkdir()
    for number, clip in enumerate(CLIPS):
        shutil.copy(clip.audio_filepath, path / ("monday" if number % 2 else "") / Path(clip.audio_filepath).name)
    noise(path / "noise.wav", 2)
    (path / "broken.wav").write_bytes(b"RIFF")
    (path / "notes.txt").write_text("no transcript")
    return path


def test_a_folder_becomes_a_manifest_to_train_with(finetune: Command, nano: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "pseudo.jsonl"
    result = finetune("pseudo-label", nano, folder, "-o", out, "--min-agreement", 0.8, "--min-confidence", 0.5)
    assert result.code == 0, result.err
    kept, aside = read_manifest(out), read_jsonl(out.with_name("pseudo.set_aside.jsonl"))
    assert len(kept) >= 4 and f"{len(kept)} of 10 clips kept" in result.out
    truth = {f"pseudo-{Path(clip.audio_filepath).stem}": clip.text for clip in CLIPS}
    assert score([truth[clip.id] for clip in kept], [clip.text for clip in kept], PRESET).wer < 0.15
    for clip in kept:
        extra = clip.extra
        assert extra["pseudo_label"] is True and extra["pred_text"] == clip.text and extra["labelled_by"] == str(nano)
        agreement = text_agreement([clip.text], [str(extra["pred_text_ctc"])], PRESET)[0]
        assert agreement == extra["agreement"] >= 0.8
        assert extra["confidence"] == min(float(str(extra[f"confidence_{name}"])) for name in ("llm", "ctc")) >= 0.5
    reasons = {row["id"]: row["reason"] for row in aside}
    every = {clip.id for clip in kept} | {f"pseudo-{name}" for name in reasons}
    assert every == {*truth, "pseudo-noise", "pseudo-broken"}
    assert reasons["broken"].startswith("unreadable audio: ") and reasons["noise"] == "no speech"
    counts = Counter(reason.split(":")[0] for reason in reasons.values())
    assert all(f"{n} clip{'s' * (n != 1)}: {reason}" in result.out for reason, n in counts.items())
    summary = json.loads((out.parent / "pseudo.summary.json").read_text())
    assert summary["kept"] == len(kept) and summary["options"]["min_agreement"] == 0.8
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "pseudo.jsonl",
        "pseudo.set_aside.jsonl",
        "pseudo.summary.json",
    ]

    again = finetune("pseudo-label", nano, folder, "-o", out)
    assert again.code == 1 and "pseudo.jsonl: exists already" in again.err
    strict = finetune("pseudo-label", nano, folder, "-o", out, "--overwrite", "--min-confidence", 1)
    assert strict.code == 1 and "no clip was kept" in strict.out and read_jsonl(out) == []


def test_a_manifest_without_texts_keeps_its_columns_and_a_long_recording_is_cut(
    finetune: Command, nano: Path, tmp_path: Path
) -> None:
    """The model knows clips of up to 3 s, so the joined recording is cut at its pauses."""
    pause = np.zeros(SAMPLE_RATE, np.float32)
    joined = np.concatenate([part for clip in CLIPS[:3] for part in (load_audio(clip.audio_filepath), pause)])
    soundfile.write(tmp_path / "long.flac", np.concatenate([pause, joined]), SAMPLE_RATE)
    table = [
        {"audio": CLIPS[4].audio_filepath, "speaker": "anna", "call": 7},
        {"audio": "long.flac", "speaker": "ben", "start": 1.0, "end": 1.0 + len(joined) / SAMPLE_RATE},
        {"audio": "long.flac", "speaker": "dora", "start": 0, "end": 4.0},
        {"audio": CLIPS[5].audio_filepath, "speaker": "carl", "sentence": "a transcript"},
    ]
    source, out = tmp_path / "clips.jsonl", tmp_path / "pseudo.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in table))
    result = finetune("pseudo-label", nano, source, "-o", out, "--min-agreement", 0, "--min-confidence", 0)
    assert result.code == 0, result.err
    assert "left out: 1 row with a transcript already" in result.out
    kept = read_manifest(out)
    first = [clip for clip in kept if clip.speaker == "dora"]
    assert first and all(clip.offset + clip.duration <= 4.001 for clip in first)
    kept = [clip for clip in kept if clip.speaker != "dora"]
    assert [clip.speaker for clip in kept] == ["anna", "ben", "ben", "ben"] and kept[0].extra["call"] == 7
    parts = [clip for clip in kept if clip.speaker == "ben"]
    assert all(clip.offset >= 1 and clip.duration <= 3 and clip.extra["recording"] == "long@1.000" for clip in parts)
    assert score([clip.text for clip in CLIPS[:3]], [clip.text for clip in parts], PRESET).wer < 0.3


def test_a_trained_recipe_and_its_run_give_the_adapted_model(
    trained: tuple[Recipe, RunDir, SpeechModel], tmp_path: Path
) -> None:
    recipe, run, _ = trained
    for name in (run.resolved, run.root):
        adapted = find_model(str(name))
        assert adapted.run is not None and adapted.run.best == run.best and adapted.base == recipe.model.base
        assert adapted.decoding.max_new_tokens == recipe.decode.max_new_tokens
    clip = embedded("canary", 1)
    (text,) = transcribe_clips(adapted, adapted.load(), clip, tmp_path / "a.jsonl", "")
    (base,) = transcribe_clips(adapted, adapted.as_base().load(), clip, tmp_path / "b.jsonl", "")
    assert text.entropy != base.entropy and text.truncated  # after six tokens
    assert reason_against(text, 1.0, PseudoLabelOptions()).startswith("text too long")


def test_an_untrained_recipe_is_refused(
    finetune: Command, tiny: Callable[..., Recipe], folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my.json"
    path.write_text(tiny(tmp_path, "new").model_dump_json(exclude_none=True))
    result = finetune("pseudo-label", path, folder, "-o", tmp_path / "out.jsonl")
    assert result.code == 1 and "has no trained adapter; run `finetune train" in result.err
    assert not (tmp_path / "out.jsonl").exists()


def test_an_interrupted_call_goes_on(nano: Path, tmp_path: Path, model: Callable[[], SpeechModel]) -> None:
    """The second call transcribes only the clips that the first did not reach, and gives the texts of one call."""
    adapted, clips = find_model(str(nano)), CLIPS[:4]
    adapted = replace(adapted, decoding=replace(adapted.decoding, batch_seconds=1.0))  # one clip in a batch
    network, calls = model(), list[int]()
    encode = network.encode

    def stopping(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(*args)

    network.encode = stopping  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        transcribe_clips(adapted, network, clips, tmp_path / "work.jsonl", "")
    with (tmp_path / "work.jsonl").open("a") as file:
        file.write('{"key": "half of a li')
    resumed = transcribe_clips(adapted, network, clips, tmp_path / "work.jsonl", "")
    assert len(calls) == 3 + 2
    assert resumed == transcribe_clips(adapted, network, clips, tmp_path / "other.jsonl", "")
    other = replace(adapted, instruction="write what you hear")
    assert not {*machine_transcripts._keys(adapted, clips)} & {*machine_transcripts._keys(other, clips)}


def test_audio_that_disappears_is_set_aside(nano: Path, tmp_path: Path, model: Callable[[], SpeechModel]) -> None:
    gone = replace(CLIPS[0], id="gone", audio_filepath=str(tmp_path / "gone.wav"))
    adapted = find_model(str(nano))
    one, two = transcribe_clips(adapted, model(), [gone, CLIPS[1]], tmp_path / "work.jsonl", "")
    assert "no such file" in one.failure and reason_against(one, 1.0, PseudoLabelOptions()).startswith("audio cannot")
    assert two.text and not two.failure


@pytest.mark.parametrize(
    ("result", "agreement", "reason"),
    [
        (GOOD, 1.0, ""),
        (GOOD, 0.7, ""),
        (GOOD, 0.69, "texts differ"),
        (replace(GOOD, confidence=0.79), 1.0, "low confidence"),
        (replace(GOOD, ctc_confidence=0.79), 1.0, "low confidence"),
        (replace(GOOD, speech=False), 1.0, "no speech"),
        (replace(GOOD, truncated=True), 1.0, "text too long"),
        (replace(GOOD, text="..."), 1.0, "no words"),
    ],
)
def test_reasons(result: MachineTranscript, agreement: float, reason: str) -> None:
    assert reason_against(result, agreement, PseudoLabelOptions()).split(":")[0] == reason


def test_agreement_counts_words_after_normalization() -> None:
    first = ["Pay by phone.", "pay by phone", "one", "", "a b"]
    second = ["pay by phone", "pay phone", "one two three four", "", "c d"]
    assert text_agreement(first, second, PRESET) == [1.0, 0.6667, 0.25, 1.0, 0.0]
    assert text_agreement(["今日は"], ["今日も"], "ja-cer@2") == [0.6667]


@pytest.mark.parametrize(
    ("source", "arguments", "code", "message"),
    [
        ("empty", [], 1, "no audio files in this folder"),
        ("missing.jsonl", [], 1, "missing.jsonl: no such file"),
        ("notes.txt", [], 1, "unknown format .txt"),
        ("empty.jsonl", [], 1, "empty.jsonl"),
        ("gone.jsonl", [], 1, "0 of 1 audio files exist"),
        ("broken.wav", ["--overwrite"], 1, "no clip was kept"),
        ("gone.jsonl", ["-o", "gone.jsonl", "--overwrite"], 1, "gone.jsonl: this is the input"),
        ("done.jsonl", [], 1, "each row has a transcript already"),
        ("gone.jsonl", ["-o", "out.csv"], 2, "ends in .jsonl"),
        ("gone.jsonl", ["-o", "notes.txt/out.jsonl"], 1, "cannot be written"),
        ("gone.jsonl", ["--min-agreement", "2"], 2, "min_agreement: must be less than or equal to 1"),
        ("gone.jsonl", ["--min-confidence", "nan"], 2, "min_confidence: must be a finite number"),
    ],
)
def test_unusable_input(
    finetune: Command,
    nano: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").write_text("mine")
    Path("empty.jsonl").write_text("")
    Path("broken.wav").write_bytes(b"RIFF")
    line = json.dumps({"audio_filepath": "gone.wav"}) + "\n"
    Path("gone.jsonl").write_text(line)
    Path("done.jsonl").write_text(json.dumps({"audio_filepath": "broken.wav", "text": "known"}))
    result = finetune("pseudo-label", nano, source, "-o", "out.jsonl", *arguments)
    assert result.code == code and message in result.err + result.out
    assert Path("gone.jsonl").read_text() == line and Path("notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_model_is_refused(finetune: Command, folder: Path, tmp_path: Path) -> None:
    result = finetune("pseudo-label", folder, folder, "-o", tmp_path / "out.jsonl")
    assert result.code == 1 and str(folder) in result.err and not (tmp_path / "out.jsonl").exists()


def test_pseudo_labels_train_beside_transcripts_and_keep_their_mark(
    nano: Path, tiny: Callable[..., Recipe], tmp_path: Path
) -> None:
    """A clip with the id of a transcribed one is not dropped; the samples are those that were transcribed."""
    known, source = tmp_path / "known.jsonl", tmp_path / "clips.jsonl"
    write_manifest(known, [replace(CLIPS[2], id=CLIPS[0].id)])
    write_manifest(source, [replace(clip, text="") for clip in CLIPS[:2]])
    files = CurationFiles.of(tmp_path / "pseudo.jsonl")
    options = PseudoLabelOptions(min_agreement=0, min_confidence=0)
    summary = pseudo_label(find_model(str(nano)), str(source), options, files)
    assert summary.kept == 2 and summary.transcribed == 0
    recipe = tiny(tmp_path / "runs", "student")
    train = [CorpusEntry(path=str(known)), CorpusEntry(path=str(files.manifest), weight=0.5)]
    data = recipe.data.model_copy(update={"train": train, "canary": []})
    run = run_recipe(recipe.model_copy(update={"data": data}), "prepare")
    rows = read_manifest(run.manifest("train"))
    assert [row.sampling_weight for row in rows] == [1.0, 0.5, 0.5]
    assert [row.duration for row in rows[1:]] == [clip.duration for clip in CLIPS[:2]]
    assert count_pseudo_labels(run.manifest("train")) == 2
