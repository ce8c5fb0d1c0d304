"""Files, members and URLs in corpora: paths, ids, existence, changes, leaks."""

import io
import json
import os
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile

from bench.loopback import serve
from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.data.audio_files import check_audio_files, record_audio_files
from finetune.data.audio_state import has_bytes
from finetune.data.byte_range import ByteRange, file_of, in_folder, stem_of
from finetune.data.corpora import has_audio_file, read_corpus
from finetune.data.kept_rows import ItemRows
from finetune.data.leaks import find_leaks
from finetune.data.manifest import Utterance, unique_id, write_manifest
from finetune.data.tar_index import read_tar_index
from finetune.evaluation.utterances import read_utterances

MEMBER = "shards/a.tar::clips/one.flac?bytes=1536-2047"


def wav(seed: int) -> bytes:
    out = io.BytesIO()
    wave = np.random.default_rng(seed).integers(-9999, 9999, 8000, dtype=np.int16)
    soundfile.write(out, wave, 16_000, format="WAV")
    return out.getvalue()


def shard(path: Path, seeds: dict[str, int]) -> list[str]:
    """A tar with a clip for each seed; the names of its members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, seed in seeds.items():
            member = tarfile.TarInfo(name)
            content = wav(seed)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return [str(member) for member in read_tar_index(path)]


def test_names_of_members_and_urls() -> None:
    assert [
        stem_of(name) for name in (MEMBER, "/x/two.wav", "https://h/a/thr%20ee.ogg?token=1.2", "s3://b/four.mp3")
    ] == ["one", "two", "thr ee", "four"]
    assert unique_id(MEMBER, 1.5, {"one@1.500"}) == "one@1.500-2"
    assert file_of(MEMBER) == "shards/a.tar" and file_of("file:///x/a.wav") == "/x/a.wav"
    assert in_folder(Path("/d"), MEMBER) == f"/d/{MEMBER}" and in_folder(Path("/d"), "/x/a.wav") == "/x/a.wav"
    assert in_folder(Path("/d"), f"s3://b/{MEMBER}") == f"s3://b/{MEMBER}"


def test_paths_of_a_corpus(tmp_path: Path) -> None:
    (one,) = shard(tmp_path / "shards" / "a.tar", {"one.flac": 1})
    relative = one.removeprefix(f"{tmp_path}/")
    absent = "none.tar::x.flac?bytes=512-600"
    paths = [relative, one, f"file://{one}", "https://h/a.wav", f"s3://b/{MEMBER}", absent, f"file://{tmp_path}/x.wav"]
    file = tmp_path / "m.jsonl"
    file.write_text("".join(json.dumps({"audio_filepath": path, "text": "a"}) + "\n" for path in paths))
    rows = read_corpus(str(file), tmp_path)
    assert [row.values["audio_filepath"] for row in rows] == [
        *[one] * 3,
        "https://h/a.wav",
        f"s3://b/{MEMBER}",
        f"{tmp_path}/{absent}",
        f"{tmp_path}/x.wav",
    ]
    assert [has_audio_file(row) for row in rows if "s3" not in str(row.values)] == [True] * 4 + [False] * 2
    file.write_text(json.dumps({"audio_filepath": absent, "text": "a"}))
    with pytest.raises(DataError, match=f"0 of 1 audio files exist; tried {tmp_path}/none.tar and "):
        read_corpus(str(file), tmp_path)


def test_an_archive_must_have_the_bytes_of_its_members(tmp_path: Path) -> None:
    size = len(shard(tmp_path / "a.tar", {"one.flac": 1}) and (tmp_path / "a.tar").read_bytes())
    fsspec.filesystem("memory").pipe("/test_file_state/a.tar", bytes(size))
    for file in (str(tmp_path / "a.tar"), "memory://test_file_state/a.tar"):
        assert has_bytes(str(ByteRange(file, "x", size - 10, 10)))
        assert not has_bytes(str(ByteRange(file, "x", size - 10, 11)))
    assert not has_bytes(str(ByteRange("memory://test_file_state/none.tar", "x", 512, 10)))
    assert not has_bytes(str(tmp_path)) and not has_bytes("a\0b") and has_bytes("s3://bucket/whole.flac")


def test_a_manifest_of_members_is_read_from_another_folder(tmp_path: Path) -> None:
    (one,) = shard(tmp_path / "shards" / "a.tar", {"one.flac": 1})
    names = {"local": one.removeprefix(f"{tmp_path}/"), "remote": "memory://x/a.flac"}
    write_manifest(tmp_path / "m.jsonl", [Utterance(key, name, 0.5, "a") for key, name in names.items()])
    assert [item.audio_filepath for item in read_utterances(tmp_path / "m.jsonl")] == [one, "memory://x/a.flac"]


def test_members_are_rows_with_measured_audio(tmp_path: Path) -> None:
    one, two = shard(tmp_path / "a.tar", {"one.flac": 1, "two.flac": 2})
    file = tmp_path / "m.csv"
    file.write_text(f"path,text\n{one},a\n{two.split('/')[-1]},b\n")
    items = read_utterances(file)
    assert [(item.id, item.audio_filepath, item.duration) for item in items] == [("one", one, 0.5), ("two", two, 0.5)]
    assert items[0].audio_digest != items[1].audio_digest


def run_with(tmp_path: Path, paths: list[str]) -> tuple[RunDir, list[Utterance]]:
    """A run whose train split has these clips, prepared just now."""
    run = RunDir(tmp_path / "run")
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps({"audio_filepath": path, "text": "a"}) + "\n" for path in paths))
    items = read_utterances(manifest)
    run.manifests.mkdir(parents=True)
    write_manifest(run.manifest("train"), items)
    record_audio_files(run, {"train": ItemRows(items).blocks()})
    return run, items


def test_an_archive_that_changed_is_compared_by_its_members(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    names = shard(path, {"one.flac": 1, "two.flac": 2})
    run, _ = run_with(tmp_path, names)
    assert check_audio_files(run) == {}
    os.utime(path, ns=(1, 1))
    assert check_audio_files(run) == {}  # the samples are compared
    with np.load(run.audio_files) as file:
        assert file["train"].tolist() == 2 * [[path.stat().st_size, 1]]
    assert shard(path, {"one.flac": 1, "two.flac": 3})[0] == names[0]
    with pytest.raises(DataError, match=r"1 clip has other audio .*: two \("):
        check_audio_files(run)
    path.write_bytes(path.read_bytes()[:2000])
    assert [*check_audio_files(run)["train"]] == ["one", "two"]


def test_remote_files_are_asked_once_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remote = tmp_path / "remote"
    names = shard(remote / "a.tar", {f"{n}.flac": n for n in range(4)})
    (remote / "b.flac").write_bytes(wav(9))
    with serve(remote) as server:
        paths = [name.replace(str(remote), server.url) for name in names]
        run, _ = run_with(tmp_path, [*paths, f"{server.url}/b.flac"])
        server.requests[:] = []
        assert check_audio_files(run) == {}
        assert sorted(server.requests) == [("/a.tar", "bytes=0-0"), ("/b.flac", "bytes=0-0")]
        server.etag = "2"
        with caplog.at_level("INFO"):
            assert check_audio_files(run) == {}
        assert "comparing the audio of 5 clips in 5 files" in caplog.text  # the samples are the same
        caplog.clear()
        (remote / "b.flac").write_bytes(wav(10))
        server.etag = "3"
        with pytest.raises(DataError, match=r"1 clip has other audio .*: b \("):
            check_audio_files(run)
        (remote / "b.flac").unlink()
        reasons = check_audio_files(run)["train"]
        assert [*reasons] == ["b"] and reasons["b"].endswith("/b.flac: cannot be reached")


def test_leaks_between_members(tmp_path: Path) -> None:
    one, two = shard(tmp_path / "a.tar", {"one.flac": 1, "two.flac": 2})
    os.link(tmp_path / "a.tar", tmp_path / "b.tar")
    train = [Utterance("1", one, 0.5, "a"), Utterance("3", "memory://c.flac", 0.5, "c")]
    other = [Utterance("2", two, 0.5, "b"), Utterance("4", "memory://d.flac", 0.5, "d")]
    assert find_leaks(train, other) == []
    same = [Utterance("2", one.replace("a.tar", "b.tar"), 0.5, "b"), Utterance("4", "memory://c.flac", 0.5, "d")]
    assert [leak.kind for leak in find_leaks(train, same)] == ["overlapping audio also in train"] * 2
