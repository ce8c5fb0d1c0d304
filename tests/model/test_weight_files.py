"""Weights are read one at a time, under the names of the model and of the hub."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finetune.core.errors import ModelError
from finetune.model.granite import SpeechModel
from finetune.model.weight_files import WeightFiles, hub_name, model_name


def test_names_are_those_of_the_hub(model: Callable[[], SpeechModel], nano: Path) -> None:
    names = list(model().hf.state_dict())
    with safe_open(str(nano / "model.safetensors"), "pt") as file:
        assert {hub_name(name) for name in names} == {*file.keys()}
    assert [model_name(hub_name(name)) for name in names] == names == [model_name(name) for name in names]


def test_every_tensor_is_read_as_safetensors_reads_it(model: Callable[[], SpeechModel], nano: Path) -> None:
    """The files are float16, the model is float32."""
    files, expected, raw = WeightFiles(nano), model().hf.state_dict(), load_file(nano / "model.safetensors")
    assert files.tensors.keys() == expected.keys() and not files.is_bfloat16()
    for name, value in expected.items():
        stored = files.read(name)
        assert stored.dtype == raw[hub_name(name)].dtype and torch.equal(stored.to(value.dtype), value), name


def test_types_and_shapes(tmp_path: Path) -> None:
    tensors = {
        "encoder.half": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
        "encoder.count": torch.tensor(7),
        "encoder.empty": torch.empty(0, 3, dtype=torch.bfloat16),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    files = WeightFiles(tmp_path)
    assert files.is_bfloat16()
    for name, value in tensors.items():
        stored = files.read("model." + name)
        assert (stored.dtype, stored.shape) == (value.dtype, value.shape) and torch.equal(stored, value)
    with pytest.raises(ModelError, match=r"language_model\.lm_head\.weight is missing"):
        files.read("lm_head.weight")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelError, match="truncated"):
        files.read("model.encoder.half")


@pytest.mark.parametrize("place", [0, 5000, -1])
def test_the_hash_of_samples_sees_a_tensor_that_changed_and_no_shards(tmp_path: Path, place: int) -> None:
    tensors = {f"encoder.{name}": torch.arange(10_000, dtype=torch.float32) for name in "ab"}
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    save_file(tensors, one / "model.safetensors")
    before = WeightFiles(one).sample_hash()
    for name, value in tensors.items():
        save_file({name: value}, two / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in tensors}}
    (two / "model.safetensors.index.json").write_text(json.dumps(index))
    assert WeightFiles(two).sample_hash() == before
    tensors["encoder.b"][place] += 1
    save_file(tensors, one / "model.safetensors")
    assert WeightFiles(one).sample_hash() != before


def test_an_unknown_type_is_refused(nano: Path, tmp_path: Path) -> None:
    shutil.copyfile(nano / "config.json", tmp_path / "config.json")
    save_file(
        {**load_file(nano / "model.safetensors"), "x": torch.zeros(1, dtype=torch.complex64)},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(ModelError, match="x has the unknown type 'C64'"):
        WeightFiles(tmp_path)
