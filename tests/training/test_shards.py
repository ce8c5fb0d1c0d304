"""Training from tar shards on a slow and faulty server has the losses and weights of training from files."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import torch
from training_runs import records, weights

from bench.loopback import serve
from finetune.core.config import Recipe
from finetune.core.run_dir import RunDir
from finetune.data.tar_index import read_tar_index
from finetune.model.granite import SpeechModel
from finetune.pipeline import run_recipe


def in_shard(manifest: Path, folder: Path, url: str) -> str:
    """A manifest of the same clips in a tar at a URL."""
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    shard = folder / f"{manifest.stem}.tar"
    with tarfile.open(shard, "w") as archive:
        for row in rows:
            archive.add(row["audio_filepath"], f"{row['id']}{Path(row['audio_filepath']).suffix}")
    for row, member in zip(rows, read_tar_index(shard), strict=True):
        row["audio_filepath"] = str(member).replace(str(folder), url)
    moved = folder / f"{manifest.stem}.jsonl"
    moved.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(moved)


def test_losses_and_weights_are_those_of_files(
    trained: tuple[Recipe, RunDir, SpeechModel], tiny: Callable[..., Recipe], corpora: dict[str, str], tmp_path: Path
) -> None:
    with serve(tmp_path) as server:
        server.delay, server.fail_every = 0.01, 40
        sources = {split: [in_shard(Path(path), tmp_path, server.url)] for split, path in corpora.items()}
        recipe = tiny(tmp_path, "shards", machine={"workers": 1})
        recipe = Recipe.model_validate(recipe.model_dump() | {"data": recipe.data.model_dump() | sources})
        run = run_recipe(recipe, "train")
        assert {path for path, _ in server.requests} == {
            f"/{split}.tar" for split in ("train", "valid", "test", "canary")
        }
    _, files, _ = trained
    assert records(run, "step") and records(run, "step") == records(files, "step")
    assert records(run, "valid") == records(files, "valid")
    expected = weights(files)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(run).items())
