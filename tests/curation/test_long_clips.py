"""`data.too_long: segment`: prepare cuts the long rows of train and keeps the others as they are."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import embedded

from finetune.core.array_job import Shard
from finetune.core.config import Recipe
from finetune.core.errors import DataError, RecipeError
from finetune.core.run_dir import RunDir
from finetune.curation.long_clips import segment_long
from finetune.data.audio import SAMPLE_RATE, load_audio
from finetune.data.manifest import read_manifest
from finetune.model.granite import SpeechModel
from finetune.partial_runs import prepare_shard, run_prepare


@pytest.fixture
def recipe(tiny: Callable[..., Recipe], tmp_path: Path) -> Recipe:
    """Six short rows of train, and one of 12 s that is joined from embedded clips."""
    plain = tiny(tmp_path / "runs", "long")
    clips, pause = embedded("canary", 6), np.zeros(SAMPLE_RATE // 2, np.float32)
    wave = np.concatenate([part for clip in clips for part in (pause, load_audio(clip.audio_filepath))])
    soundfile.write(tmp_path / "long.flac", wave, SAMPLE_RATE)
    rows = [json.loads(line) for line in Path(plain.data.train[0].path).read_text().splitlines()]
    rows.append({"id": "long", "audio_filepath": str(tmp_path / "long.flac"), "text": " ".join(c.text for c in clips)})
    for row in rows:
        row.pop("manifest_version", None), row.pop("offset", None)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {**plain.data.model_dump(), "train": [str(tmp_path / "train.jsonl")], "too_long": "segment"}
    return plain.model_copy(update={"data": type(plain.data)(**data)})


def test_prepare_cuts_long_rows_and_keeps_the_others(recipe: Recipe) -> None:
    run = run_prepare(recipe, False, "local")
    rows = read_manifest(run.manifest("train"))
    long = [row for row in rows if row.id.startswith("long-")]
    assert len(rows) == 6 + len(long) and len(long) > 1
    assert all(row.duration <= recipe.data.max_duration and row.offset > 0 for row in long)
    assert {row.id for row in rows} >= {row.id for row in embedded("train", 6)}
    assert json.loads((run.root / "segments/train-1/summary.json").read_text())["recordings"] == 1


def test_a_long_translation_is_not_aligned(recipe: Recipe) -> None:
    path = Path(recipe.data.train[0].path)
    *short, long = [json.loads(line) for line in path.read_text().splitlines()]
    short[0] |= {"target_language": "es"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*short, {**long, "target_language": "es"}]))
    run = RunDir(f"{recipe.runs}/{recipe.name}")
    with pytest.raises(DataError, match="1 of 7 rows are unusable"):
        segment_long(recipe, run)
    assert "a translation" in (run.root / "segments/train-1/set_aside.jsonl").read_text()


def test_an_unchanged_corpus_is_not_segmented_again(recipe: Recipe, model: Callable[[], SpeechModel]) -> None:
    loads = list[int]()

    def load() -> SpeechModel:
        loads.append(1)
        return model()

    run = RunDir(f"{recipe.runs}/{recipe.name}")
    first = segment_long(recipe, run, load)
    assert segment_long(recipe, run, load) == first and len(loads) == 1
    Path(recipe.data.train[0].path).write_text(
        Path(recipe.data.train[0].path).read_text() + '{"audio_filepath": "x", "text": "y"}'
    )
    with pytest.raises(DataError, match="1 of 8 rows are unusable"):
        segment_long(recipe, run, load)
    assert len(loads) == 2


def test_array_jobs_are_refused(recipe: Recipe) -> None:
    for call in (lambda: prepare_shard(recipe, Shard(1, 2)), lambda: run_prepare(recipe, True, "local")):
        with pytest.raises(RecipeError, match="too_long"):
            call()
