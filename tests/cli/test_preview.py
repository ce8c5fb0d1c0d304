"""`finetune preview` writes the clips of an epoch as training gets them, and what was done to each."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import Command

from finetune.core.config import Recipe
from finetune.core.run_dir import RunDir
from finetune.data.utterance_table import open_manifest
from finetune.training.augment import WaveAugment
from finetune.training.clip_table import ClipTable
from finetune.training.effects import Effects
from finetune.training.epoch_clips import epoch_clips
from finetune.training.sampler import Clips

Tiny = Callable[..., Recipe]


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    made = tiny(tmp_path / "runs", "tiny").model_dump()
    made["augment"] |= {"noise": ["pink", "babble"], "telephone": 0.5, "no_speech": 0.3, "concat": 0.3}
    path.write_text(Recipe.model_validate(made | {"train": made["train"] | {"batch_seconds": 8.0}}).model_dump_json(
        exclude_none=True))  # fmt: skip
    return path


def test_the_preview_has_the_samples_of_training(finetune: Command, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = finetune("preview", recipe, "-o", out, "--clips", "6", "--epoch", "2")
    assert result.code == 0 and f"clips in {out}" in result.out
    rows = json.loads((out / "preview.json").read_text())
    assert sorted(path.name for path in out.glob("*.wav")) == [row["file"] for row in rows]
    made = Recipe.model_validate_json(recipe.read_text())
    base = open_manifest(RunDir(f"{made.runs}/{made.name}").manifest("train"))
    chosen = epoch_clips(made, base, (len(base), 0), np.zeros(len(base), np.int32), 1)
    table = ClipTable(base, chosen.added, chosen.occurrences, chosen.no_speech)
    clips = Clips(table, WaveAugment(0.1, 3.0, 20.0), made.seed, 1, Effects.of(made.augment, made.seed))
    places = {item.id: index for index, item in enumerate(table)}
    for row in rows:
        wave, rate = soundfile.read(out / row["file"], dtype="float32")
        assert rate == 16_000 and np.array_equal(wave, clips[places[row["id"]]])
        assert row["text"] == table[places[row["id"]]].text and row["file"] in result.out
        assert row["seconds"] == pytest.approx(len(wave) / rate, abs=1e-3)
    silent = [row for row in rows if not row["text"]]
    assert len(silent) == 2 and silent[0]["effects"][0]["effect"] == "no speech" and "(no speech)" in result.out
    assert "snr_db" in result.out and "speed (factor" in result.out


def test_a_second_preview_replaces_the_first(finetune: Command, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny" / "preview"
    for count in ("4", "2"):
        assert finetune("preview", recipe, "--clips", count).code == 0
        assert len([*folder.glob("*.wav")]) == int(count) + (count == "2")
        own = folder / "01-own.wav"
        own.write_bytes(b"a recording")
    assert own.read_bytes() == b"a recording"


def test_a_folder_with_another_table_is_not_changed(finetune: Command, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for content in ("{", '{"a": 1}', "[1]"):
        (tmp_path / "own" / "preview.json").write_text(content)
        result = finetune("preview", recipe, "-o", tmp_path / "own")
        assert result.code == 1 and "preview.json: exists and is not a table of a preview" in result.err
    assert len([*(tmp_path / "own").iterdir()]) == 1


@pytest.mark.parametrize("option", [("--clips", "0"), ("--clips", "100"), ("--epoch", "3"), ("--epoch", "0")])
def test_numbers_out_of_range_are_wrong_usage(finetune: Command, recipe: Path, option: tuple[str, str]) -> None:
    result = finetune("preview", recipe, *option)
    assert result.code == 2 and option[0] in result.err


def test_check_and_run_refuse_what_augmentation_lacks(finetune: Command, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command in ("check", "prepare", "preview"):
        result = finetune(command, recipe, "--set", f"augment.noise=pinkk,{tmp_path / 'empty'}")
        assert result.code == 1 and "did you mean pink?" in result.err and "has no audio" in result.err
    assert not (tmp_path / "runs" / "tiny" / "manifests").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("augment.noise_snr=20,5", "the lowest SNR, 20 dB, must come before the highest, 5 dB"),
        ("augment.noise_snr=5", "at least 2 items"),
        ("augment.codecs=mulaw", "'mu-law', 'a-law'"),
        ("augment.no_speech=0.6", "less than or equal to 0.5"),
    ],
)
def test_values_out_of_range_are_wrong_usage(finetune: Command, recipe: Path, setting: str, message: str) -> None:
    result = finetune("check", recipe, "--set", setting)
    assert result.code == 2 and message in result.err
