"""`finetune suggest`: a ranked manifest of untranscribed clips, within a budget."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command import Command, noise
from conftest import embedded

from finetune.core.config import Recipe
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest, write_manifest
from finetune.model.granite import SpeechModel

CLIPS = embedded("canary", 8)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips, one of them again under another name, noise, a broken file, and a row with a transcript."""
    folder = tmp_path_factory.mktemp("pool")
    (folder / "broken.wav").write_bytes(b"RIFF")
    shutil.copy(CLIPS[0].audio_filepath, folder / "again.opus")
    paths = [*(clip.audio_filepath for clip in CLIPS), "again.opus", str(noise(folder / "noise.wav", 2)), "broken.wav"]
    table = [{"audio_filepath": path, "site": "north"} for path in paths]
    table.append({"audio_filepath": CLIPS[1].audio_filepath, "text": "known already"})
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder / "pool.jsonl"


def test_clips_are_ranked_and_the_budget_is_kept(finetune: Command, nano: Path, source: Path, tmp_path: Path) -> None:
    out, texts = tmp_path / "next.jsonl", tmp_path / "train.jsonl"
    write_manifest(texts, [replace(CLIPS[0], text=" ".join(clip.text for clip in CLIPS[:4]))])
    result = finetune("suggest", nano, source, "-o", out, "--texts", texts)
    assert result.code == 0, result.err
    rows = read_manifest(out)
    assert len(rows) == 9 and "9 of 9 clips suggested" in result.out and "by 1 training text" in result.out
    assert "language model and CTC head" in result.out and "left out: 1 row with" in result.out
    assert [row.extra["rank"] for row in rows] == list(range(1, 10))
    assert all(row.text == "" and row.extra["pred_text"] and row.extra["site"] == "north" for row in rows)
    assert [row.extra["score"] for row in rows[:-1]] == sorted((row.extra["score"] for row in rows[:-1]), reverse=True)
    pair = {rows[-1].id, rows[-1].extra["near_copy_of"]}
    assert pair == {"again", CLIPS[0].id} and not any("near_copy_of" in row.extra for row in rows[:-1])
    known = {clip.audio_filepath for clip in CLIPS[:4]}
    rarities = {row.audio_filepath: float(str(row.extra["rarity"])) for row in rows if row.id != "again"}
    means = [sum(rarities[path] for path in paths) / 4 for paths in (known, rarities.keys() - known)]
    assert means[0] < means[1]
    aside = [json.loads(line) for line in (tmp_path / "next.set_aside.jsonl").read_text().splitlines()]
    assert {row["id"]: row["reason"].split(":")[0] for row in aside} == {
        "noise": "no speech",
        "broken": "unreadable audio",
    }

    few = finetune("suggest", nano, source, "-o", out, "--texts", texts, "--overwrite", "--clips", 9)
    assert few.code == 0 and [row.id for row in read_manifest(out)] == [row.id for row in rows[:8]]  # without the copy
    seconds = rows[0].duration + rows[1].duration + 0.01
    finetune("suggest", nano, source, "-o", out, "--texts", texts, "--overwrite", "--hours", seconds / 3600)
    chosen = read_manifest(out)
    assert sum(row.duration for row in chosen) <= seconds and chosen[0].id == rows[0].id


def test_a_run_compares_with_its_base_and_knows_its_texts(
    finetune: Command, trained: tuple[Recipe, RunDir, SpeechModel], source: Path, tmp_path: Path
) -> None:
    _, run, _ = trained
    result = finetune("suggest", run.root, source, "-o", tmp_path / "next.jsonl", "--clips", 2)
    assert result.code == 0, result.err
    assert "adapted and base model" in result.out and "by 6 training texts" in result.out
    rows = read_manifest(tmp_path / "next.jsonl")
    assert len(rows) == 2 and all(row.extra["pred_text_other"] != row.extra["pred_text_ctc"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--clips", "0"], 2, "--clips 0: must be more than 0"),
        (["--hours", "nan"], 2, "--hours nan: must be more than 0"),
        (["--hours", "1", "--clips", "1"], 2, "not allowed with"),
        (["--hours", "0.000001"], 1, "no clip was suggested"),
        (["--max-similarity", "0"], 2, "max_similarity: must be greater than 0"),
        (["--texts", "missing.jsonl"], 1, "missing.jsonl: no such file"),
    ],
)
def test_wrong_arguments(
    finetune: Command, nano: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text(json.dumps({"audio_filepath": CLIPS[0].audio_filepath}))
    result = finetune("suggest", nano, pool, "-o", tmp_path / "next.jsonl", *arguments)
    assert result.code == code and message in result.err + result.out
