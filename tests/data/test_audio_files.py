"""Audio that changed after `prepare` is named; files of the same size and time are not opened."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.data.audio import inspect_audio
from finetune.data.audio_files import check_audio_files, record_audio_files, require_audio_files
from finetune.data.kept_rows import ItemRows, comparison_hash
from finetune.data.manifest import Utterance, write_manifest
from finetune.data.problems import ProblemSummary
from finetune.data.split_files import SplitResult, SplitWriter
from finetune.data.style import SplitStyle

States = dict[str, list[list[int]]]


def record(run: RunDir, splits: dict[str, list[Utterance]]) -> None:
    for split, items in splits.items():
        write_manifest(run.manifest(split), items)
    record_audio_files(run, {split: ItemRows(items).blocks() for split, items in splits.items()})


def recorded(run: RunDir) -> States:
    with np.load(run.audio_files) as file:
        return {split: file[split].tolist() for split in file.files}


def state(path: Path) -> list[int]:
    return [path.stat().st_size, path.stat().st_mtime_ns]


def tone(path: Path, frequency: float) -> str:
    soundfile.write(path, 0.3 * np.sin(np.arange(16_000) * frequency), 16_000, subtype="PCM_16")
    return str(path)


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, list[Utterance]]:
    """Train: two segments of one file and another file; test: one file."""
    files = {name: tone(tmp_path / f"{name}.wav", 0.1 * number) for number, name in enumerate("abc", 1)}
    train = [
        Utterance("a1", files["a"], 0.5, "x"),
        Utterance("a2", files["a"], 0.5, "x", 0.5),
        Utterance("b", files["b"], 1.0, "x"),
    ]
    digests = [inspect_audio(item.audio_filepath, item.offset, item.duration).digest for item in train]
    train = [replace(item, audio_digest=digest) for item, digest in zip(train, digests, strict=True)]
    return {
        "train": train,
        "test": [Utterance("c", files["c"], 1.0, "x", audio_digest=inspect_audio(files["c"]).digest)],
    }


@pytest.fixture
def run(tmp_path: Path, splits: dict[str, list[Utterance]]) -> RunDir:
    run = RunDir(tmp_path / "run")
    record(run, splits)
    return run


def test_other_samples_in_a_file_of_the_same_name_are_refused(run: RunDir, splits: dict[str, list[Utterance]]) -> None:
    """One segment of a file changed, the other did not. A file that changes in size only is fine."""
    path = splits["train"][0].audio_filepath
    wave, _ = soundfile.read(path, dtype="int16")
    wave[9000:9100] = 0
    soundfile.write(path, wave, 16_000)
    for _ in range(2):  # the refusal is not recorded as the new state
        with pytest.raises(DataError, match=r"1 clip has other audio .*: a2 \(.*a\.wav\)\. Restore .*prepare\.done"):
            check_audio_files(run)
    require_audio_files(run, {"test": splits["test"]})
    with pytest.raises(DataError, match="1 clip has other audio"):
        require_audio_files(run, splits)


def test_a_file_that_was_only_copied_is_compared_once(
    run: RunDir, splits: dict[str, list[Utterance]], tmp_path: Path
) -> None:
    path = Path(splits["train"][2].audio_filepath)
    before = recorded(run)
    assert before == {split: [state(Path(item.audio_filepath)) for item in items] for split, items in splits.items()}
    shutil.copy(path, tmp_path / "copy.wav")
    os.replace(tmp_path / "copy.wav", path)
    assert check_audio_files(run) == {}
    after = recorded(run)
    assert after["train"][2] == state(path) != before["train"][2] and after["test"] == before["test"]
    flac = tmp_path / "other.flac"
    soundfile.write(flac, *soundfile.read(path, dtype="int16"))
    os.replace(flac, path)  # the same samples in another format
    assert check_audio_files(run) == {}


def test_files_of_the_same_size_and_time_are_not_opened(run: RunDir, splits: dict[str, list[Utterance]]) -> None:
    path = Path(splits["train"][2].audio_filepath)
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check_audio_files(run) == {}


def test_clips_that_cannot_be_read_are_returned_by_split(run: RunDir, splits: dict[str, list[Utterance]]) -> None:
    Path(splits["train"][0].audio_filepath).unlink()
    path = Path(splits["test"][0].audio_filepath)
    path.write_bytes(path.read_bytes()[:60])
    found = check_audio_files(run)
    assert {split: [*reasons] for split, reasons in found.items()} == {"train": ["a1", "a2"], "test": ["c"]}
    assert "no such file" in found["train"]["a2"] and "truncated" in found["test"]["c"]
    with pytest.raises(DataError, match=r"data\.test: the audio of 1 of 1 clip can no longer be read: c \(.*truncated"):
        require_audio_files(run, {"test": splits["test"]})


def test_a_file_that_is_written_while_prepare_runs_is_compared(
    run: RunDir, splits: dict[str, list[Utterance]], tmp_path: Path
) -> None:
    """Except in `media/`, where `prepare` itself writes."""
    run.media.mkdir()
    started = time.time_ns() - 10**9
    files = [splits["train"][0].audio_filepath, splits["test"][0].audio_filepath, str(run.media / "m.wav")]
    os.utime(files[1], ns=(started - 1, started - 1))
    tone(run.media / "m.wav", 0.1)
    writer = SplitWriter(tmp_path / "split")
    items = [Utterance(f"{number}", path, 1.0, "x") for number, path in enumerate(files)]
    for item in items:
        writer.keep(item, comparison_hash(item.text))
    writer.close()
    split = SplitResult(tmp_path / "split", 3, 3.0, ProblemSummary(), SplitStyle(3, [], [], [], 0))
    write_manifest(run.manifest("train"), items)
    run.manifest("test").unlink()
    record_audio_files(run, {"train": split.recorded(started, run.media)})
    assert recorded(run) == {"train": [[-1, -1], *(state(Path(path)) for path in files[1:])]}
    assert check_audio_files(run) == {}, "compared, and equal"
    assert recorded(run) == {"train": [state(Path(path)) for path in files]}


def test_an_edited_manifest_is_compared_as_a_whole(run: RunDir, splits: dict[str, list[Utterance]]) -> None:
    write_manifest(run.manifest("train"), splits["train"][1:])
    assert check_audio_files(run) == {}
    assert len(recorded(run)["train"]) == 2
    write_manifest(run.manifest("train"), splits["train"][:0:-1])  # other files on the same lines
    assert check_audio_files(run) == {}


def test_without_a_record_nothing_is_checked_and_a_damaged_one_is_made_again(
    run: RunDir, splits: dict[str, list[Utterance]], caplog: pytest.LogCaptureFixture
) -> None:
    whole = recorded(run)
    run.audio_files.write_text("{")
    assert check_audio_files(run) == {} and "damaged" in caplog.text
    assert recorded(run) == whole
    np.savez(run.audio_files, train=np.zeros(3))
    assert check_audio_files(run) == {} and recorded(run) == whole
    Path(splits["train"][0].audio_filepath).unlink()
    run.audio_files.unlink()
    assert check_audio_files(run) == {}
    require_audio_files(run, splits)
