"""Recordings of noise and rooms: what a path means, random parts, and refusals before a training."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from finetune.core.config import AugmentSection
from finetune.core.errors import DataError
from finetune.data.effects.recordings import Recording, excerpt, find_recordings, state_of
from finetune.data.effects.sources import check_augmentation, open_sources, recordings_state


def ramp(path: Path, seconds: float, rate: int = 16_000, channels: int = 1) -> Path:
    """A file whose samples grow from 0 to 1 in the first channel, and are 0 in others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.zeros((round(seconds * rate), channels))
    wave[:, 0] = np.linspace(0, 1, len(wave), endpoint=False)
    soundfile.write(path, wave, rate, subtype="FLOAT")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/two.wav", "a.wav", "b/one.flac.wav", ".hidden/x.wav"):
        ramp(tmp_path / "noise" / name, 0.5)
    (tmp_path / "noise" / "notes.txt").write_text("not audio")
    return tmp_path / "noise"


def test_a_folder_means_its_audio_files_in_a_fixed_order(folder: Path) -> None:
    found = find_recordings(str(folder), "augment.noise")
    assert [Path(item.path).name for item in found] == ["a.wav", "one.flac.wav", "two.wav"]


def test_a_manifest_means_its_segments_and_a_file_itself(folder: Path) -> None:
    rows = [{"audio_filepath": "a.wav", "offset": 0.1, "duration": 0.2}, {"audio_filepath": "b/two.wav", "text": ""}]
    manifest = folder / "noise.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [Recording(str(folder / "a.wav"), 0.1, 0.2), Recording(str(folder / "b/two.wav"))]
    assert find_recordings(str(manifest), "augment.noise") == expected
    assert find_recordings(str(folder / "a.wav"), "augment.noise") == [Recording(str(folder / "a.wav"))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "`audio_filepath` must"),
        ({"duration": "x"}, "numbers"),
        ({"duration": float("nan")}, "numbers of seconds, not negative"),
        ({"duration": 1.0, "offset": -1.0}, "numbers of seconds, not negative"),
    ],
)
def test_a_row_that_is_wrong_is_named_with_its_line(tmp_path: Path, row: dict[str, object], message: str) -> None:
    manifest = tmp_path / "noise.jsonl"
    good = {"audio_filepath": "a.wav"}
    manifest.write_text(json.dumps(good) + "\n" + json.dumps((good if "duration" in row else {}) | row) + "\n")
    with pytest.raises(DataError, match=f"noise.jsonl:2: .*{message}"):
        find_recordings(str(manifest), "augment.noise")


@pytest.mark.parametrize("seed", range(5))
def test_a_part_of_a_recording_is_random_and_inside_it(tmp_path: Path, seed: int) -> None:
    recording = Recording(str(ramp(tmp_path / "a.wav", 4.0, channels=2)), 1.0, 2.0)
    wave = excerpt(recording, 8000, np.random.default_rng(seed))
    assert wave.shape == (8000,) and wave.dtype == np.float32
    assert 0.25 <= wave[0] < wave[-1] <= 0.75, "the samples say where the part lies"
    other = excerpt(recording, 8000, np.random.default_rng(seed + 100))
    assert wave[0] != other[0]


def test_a_short_recording_is_repeated(tmp_path: Path) -> None:
    wave = excerpt(Recording(str(ramp(tmp_path / "a.wav", 0.1))), 5000, np.random.default_rng(1))
    assert wave.shape == (5000,) and np.array_equal(wave[:1600], wave[1600:3200])
    assert wave.min() == 0 and wave[0] > 0, "it starts at a random place"


def test_the_parts_of_a_short_clip_are_long_enough_to_read(tmp_path: Path) -> None:
    assert excerpt(Recording(str(ramp(tmp_path / "a.wav", 1.0))), 100, np.random.default_rng(1)).shape == (100,)


def test_missing_empty_and_unreadable_entries_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (folder / "broken.wav").write_bytes(b"RIFFnothing")
    settings = AugmentSection(noise=["pinkk", str(tmp_path / "empty"), str(folder)], rooms=[str(tmp_path / "none")])
    with pytest.raises(DataError) as error:
        check_augmentation(settings)
    text = str(error.value)
    assert "augment.noise: pinkk: no such file or folder; did you mean pink?" in text
    assert f"augment.noise: {tmp_path / 'empty'}: has no audio; name a folder" in text
    assert f"augment.noise: {folder}: 1 of 4 files cannot be used" in text and "broken.wav" in text
    assert f"augment.rooms: {tmp_path / 'none'}: no such file or folder and not one of simulated" in text


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.wav: too short \(0\.010 s\)"):
        check_augmentation(AugmentSection(noise=[str(ramp(tmp_path / "a.wav", 0.01))]))


@pytest.mark.parametrize(
    ("offset", "duration", "message"),
    [
        (0.0, 1.2, r"the segment 0\.000 to 1\.200 s ends after the end of the file at 1\.000 s"),
        (0.5, 1.0, r"the segment 0\.500 to 1\.500 s ends after the end of the file at 1\.000 s"),
        (0.0, 0.001, r"too short \(0\.001 s\)"),
        (0.0, 1.05, None),
    ],
)
def test_a_segment_outside_its_file_is_refused_before_a_run(
    tmp_path: Path, offset: float, duration: float, message: str | None
) -> None:
    """A training would end at the first clip that gets a part behind the end of the file."""
    row = {"audio_filepath": ramp(tmp_path / "a.wav", 1.0).name, "offset": offset, "duration": duration}
    (tmp_path / "noise.jsonl").write_text(json.dumps(row))
    settings = AugmentSection(noise=[str(tmp_path / "noise.jsonl")])
    if message is None:
        check_augmentation(settings)
        (source,) = open_sources(settings).noise
        parts = [excerpt(source.recordings[0], 8000, np.random.default_rng(seed)) for seed in range(20)]
        assert {part.shape for part in parts} == {(8000,)}
    else:
        with pytest.raises(DataError, match=rf"a\.wav: {message}"):
            check_augmentation(settings)


@pytest.mark.parametrize(
    ("key", "start", "stop", "message"),
    [
        ("noise", 0.0, 0.0, r"a\.wav: silent$"),
        ("noise", 2.5, 3.0, None),
        ("rooms", 0.0, 0.0, r"a\.wav: silent in the first 2 s$"),
        ("rooms", 2.5, 3.0, r"a\.wav: silent in the first 2 s$"),
        ("rooms", 1.9, 3.0, None),
    ],
)
def test_a_silent_file_is_refused(tmp_path: Path, key: str, start: float, stop: float, message: str | None) -> None:
    """Silent noise would change nothing, and a silent room would remove the speech of its clips."""
    wave = np.zeros((48_000, 2))
    wave[round(16_000 * start) : round(16_000 * stop), 0] = 0.1
    wave[:, 1] = 0.1  # only the first channel is used
    soundfile.write(tmp_path / "a.wav", wave, 16_000)
    settings = AugmentSection(**{key: [str(tmp_path / "a.wav")]})
    if message is None:
        check_augmentation(settings)
    else:
        with pytest.raises(DataError, match=message):
            check_augmentation(settings)


def test_a_silent_segment_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.repeat([0.0, 0.1], 16_000), 16_000)
    for offset, problem in ((0.0, True), (1.0, False)):
        row = {"audio_filepath": "a.wav", "offset": offset, "duration": 1.0}
        (tmp_path / "noise.jsonl").write_text(json.dumps(row))
        settings = AugmentSection(noise=[str(tmp_path / "noise.jsonl")])
        if problem:
            with pytest.raises(DataError, match=r"a\.wav: silent$"):
                check_augmentation(settings)
        else:
            check_augmentation(settings)


def test_names_and_good_paths_pass(folder: Path) -> None:
    settings = AugmentSection(noise=["pink", "babble", str(folder)], codecs=["mu-law", "opus"])
    check_augmentation(settings)
    sources = open_sources(settings)
    assert [(item.name, len(item.recordings)) for item in sources.noise] == [
        ("pink", 0),
        ("babble", 0),
        (str(folder), 3),
    ]


def test_the_state_changes_with_the_files(folder: Path) -> None:
    settings = AugmentSection(noise=["pink", str(folder)])
    before = recordings_state(settings)
    assert before == recordings_state(settings) and recordings_state(AugmentSection(noise=["pink"])) == ""
    ramp(folder / "a.wav", 0.6)
    longer = recordings_state(settings)
    ramp(folder / "new.wav", 0.5)
    assert len({before, longer, recordings_state(settings)}) == 3
    assert state_of([Recording("/nowhere/x.wav")]) != state_of([Recording("/nowhere/x.wav", 1.0)])
