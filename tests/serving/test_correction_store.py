"""Corrections: the manifest that they become, safe names, replaced rows, kills and full disks."""

import json
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from command import Command, noise
from conftest import VOCABULARY, embedded

from finetune.core.errors import DataError, RecipeError
from finetune.data.manifest import read_manifest, write_manifest
from finetune.serving.correction_store import CorrectionStore, SavedCorrections, parse_corrections


def corrections(*segments: tuple[float, float, str], **values: Any) -> Any:
    parts = [{"start": start, "end": end, "text": text} for start, end, text in segments]
    return parse_corrections(json.dumps({"segments": parts, **values}))


@pytest.fixture
def store(tmp_path: Path) -> CorrectionStore:
    return CorrectionStore(tmp_path / "corrections")


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    return noise(tmp_path / "upload.wav", 4.0)


def test_segments_become_rows_with_their_audio(store: CorrectionStore, audio: Path) -> None:
    content = parse_corrections(
        json.dumps(
            {
                "model": "medical",
                "file_name": "call one.WAV",
                "language": "English",
                "segments": [
                    {"start": 0.25, "end": 1.5, "text": " give  atorvastatin\n", "machine_text": "give at or"},
                    {"start": 2.0, "end": 4.05, "text": "cafe\u0301"},
                ],
            }
        )
    )
    assert store.save(audio, content) == SavedCorrections(2, 0)
    first, last = read_manifest(store.manifest)
    assert (first.text, first.language, first.offset, first.duration) == ("give atorvastatin", "en", 0.25, 1.25)
    assert first.extra["machine_text"] == "give at or" and first.extra["corrected_model"] == "medical"
    assert (last.text, last.offset, last.duration) == ("café", 2.0, 2.0), "ends with the audio"
    assert first.id != last.id
    assert first.audio_filepath == last.audio_filepath, "relative to the manifest, so that the folder can be moved"
    assert first.audio_filepath.startswith("audio/") and first.audio_filepath.endswith(".wav")
    assert (store.folder / first.audio_filepath).read_bytes() == audio.read_bytes()


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/cron.d/x.sh", "a\x00.wav\x1b[31m", "..", "", "x.wav/../../y", "a.exe", "C:\\x.php"],
)
def test_names_of_clients_are_not_used(store: CorrectionStore, audio: Path, name: str) -> None:
    store.save(audio, corrections((0, 1, "a"), file_name=name))
    files = [path for path in store.folder.parent.rglob("*") if path.is_file() and path != audio]
    (saved,) = [path for path in files if path.parent == store.folder / "audio"]
    assert {path.parent for path in files} == {store.folder, store.folder / "audio"}
    assert saved.suffix in ("", ".wav") and saved.stem.isalnum() and len(saved.stem) == 64


def test_a_segment_that_is_saved_again_replaces_its_row(store: CorrectionStore, audio: Path, tmp_path: Path) -> None:
    store.save(audio, corrections((0, 1, "one"), (1, 2, "two")))
    store.save(noise(tmp_path / "other.wav", 2.0), corrections((0, 1, "other")))
    assert store.save(audio, corrections((1, 2.5, "better"), (3, 4, "new"))) == SavedCorrections(2, 1)
    assert [row.text for row in read_manifest(store.manifest)] == ["one", "other", "better", "new"]
    assert len(list((store.folder / "audio").iterdir())) == 2


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        ((0, 9, "a"), "segment 1: 0 to 9 s is not a part of the audio, which has 4.00 s"),
        ((2, 1, "a"), "is not a part"),
        ((0, 1, " . "), "segment 1 has no words"),
        ((0, 1, ""), "no words"),
        ((0, 1, "a <|audio|> b"), r"<\|audio\|> is a command"),
        ((0, 1, "a \ud800"), "surrogate"),
    ],
)
def test_what_a_training_cannot_use_is_refused(
    store: CorrectionStore, audio: Path, segment: tuple[float, float, str], reason: str
) -> None:
    content = corrections((0, 1, "a"))
    start, end, text = segment
    part = content.segments[0].model_copy(update={"start": start, "end": end, "text": text})
    with pytest.raises(DataError, match=reason):
        store.save(audio, content.model_copy(update={"segments": [part]}))
    assert not store.manifest.exists() and not list((store.folder / "audio").iterdir())


def test_longer_audio_than_the_server_takes_is_refused(store: CorrectionStore, audio: Path) -> None:
    with pytest.raises(DataError, match="the audio has 4 s; at most 3.5 s are accepted"):
        store.save(audio, corrections((0, 1, "a")), max_seconds=3.5)
    assert not store.manifest.exists()


def test_audio_and_languages_that_are_unknown_are_refused(store: CorrectionStore, audio: Path, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<html>", encoding="utf-8")
    with pytest.raises(DataError):
        store.save(tmp_path / "page", corrections((0, 1, "a")))
    with pytest.raises(RecipeError, match="Klingon"):
        store.save(audio, corrections((0, 1, "a"), language="Klingon"))
    assert not list((store.folder / "audio").iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no", "corrections: JSON: Invalid JSON"),
        ("{}", "corrections: segments: Field required"),
        ('{"segments": []}', "segments: List should have at least 1 item"),
        ('{"segments": [{"start": -1, "end": 1, "text": "a"}]}', "segments.0.start"),
        ('{"segments": [{"start": NaN, "end": 1, "text": "a"}]}', "corrections: "),
        ('{"segments": [{"start": 0, "end": 1, "text": "a", "path": "/etc"}]}', "segments.0.path"),
        ('{"segments": [{"start": 0, "end": 1, "text": 5}]}', "segments.0.text"),
    ],
)
def test_wrong_requests_are_errors_with_the_field(content: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_corrections(content)
    assert reason in str(caught.value)


def test_requests_at_once_lose_nothing(store: CorrectionStore, audio: Path, tmp_path: Path) -> None:
    files = [noise(tmp_path / f"upload {number}.wav", 1.0) for number in range(6)]

    def save(number: int) -> None:
        CorrectionStore(store.folder).save(files[number % 6], corrections((number / 100, 0.9, f"text {number}")))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, range(24)))
        list(pool.map(save, range(24)))  # each replaces a row
    assert sorted(row.text for row in read_manifest(store.manifest)) == sorted(f"text {number}" for number in range(24))


def test_a_line_that_a_kill_has_torn_is_removed(store: CorrectionStore, audio: Path) -> None:
    store.save(audio, corrections((0, 1, "one")))
    with open(store.manifest, "ab") as file:
        file.write(b'{"audio_filepath": "audio/x')
    store.save(audio, corrections((1, 2, "two")))
    assert [row.text for row in read_manifest(store.manifest)] == ["one", "two"]
    store.manifest.write_bytes(b'{"torn')
    store.save(audio, corrections((2, 3, "three")))
    assert [row.text for row in read_manifest(store.manifest)] == ["three"]


def test_a_full_disk_leaves_the_manifest_as_it_was(store: CorrectionStore, audio: Path) -> None:
    store.save(audio, corrections((0, 1, "one")))
    before = store.manifest.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))  # the next row is cut
    try:
        with pytest.raises(OSError, match="File too large"):
            store.save(audio, corrections((1, 2, "two")))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.manifest.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be saved here"):
        CorrectionStore(tmp_path / "new")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="corrections cannot be saved here"):
        CorrectionStore(tmp_path / "file")


def test_a_recipe_takes_the_manifest(finetune: Command, store: CorrectionStore, nano: Path, tmp_path: Path) -> None:
    for path in sorted((VOCABULARY / "audio" / "test").glob("*.opus"))[:3]:
        store.save(path, corrections((0.1, 1.1, "hold the atorvastatin"), language="en", file_name=path.name))
    for split in ("valid", "canary"):
        write_manifest(tmp_path / f"{split}.jsonl", embedded(split, 2))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{base: {nano}}}\nruns: {tmp_path / 'runs'}\ndata:\n  train: [{store.manifest}]\n"
        f"  valid: [{tmp_path / 'valid.jsonl'}]\n  test: [{tmp_path / 'canary.jsonl'}]\n",
        encoding="utf-8",
    )
    done = finetune("prepare", recipe)
    assert done.code == 0, done.err
    rows = read_manifest(next((tmp_path / "runs").rglob("train.jsonl")))
    assert [(row.text, row.duration) for row in rows] == [("hold the atorvastatin", 1.0)] * 3
