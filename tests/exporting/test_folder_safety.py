"""No format and no engine opens a pickle, runs code of a folder, or reads outside of it."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.core.errors import CheckpointError, ModelError
from finetune.exporting.engines.folder_safety import PICKLES, check_engine_folder
from finetune.exporting.engines.registry import ENGINES
from finetune.exporting.engines.run_engine import RUNNERS
from finetune.exporting.engines.sides import sides_of
from finetune.exporting.gguf.write import write_gguf
from finetune.model.adapter import read_adapter
from finetune.model.folder_checks import INDEX


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture
def folder(nano: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(nano, tmp_path / "export"))


def code_key(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": "x.Y"}}))


def link(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").symlink_to("/etc/hostname")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pickle": (lambda folder: (folder / "pytorch_model.bin").touch(), "a pickle can run code"),
    "a pickle below": (lambda folder: (folder / "more.pt").touch(), "a pickle can run code"),
    "code": (lambda folder: (folder / "modeling_x.py").touch(), "code of the model folder"),
    "a key of transformers": (code_key, "auto_map asks to run code"),
    "a link that leads out": (link, "a symbolic link that leads out"),
    "damaged JSON": (lambda folder: (folder / "extra.json").write_text("{"), "not valid JSON"),
}
HF_ENGINES = [name for name, engine in ENGINES.items() if "hf" in engine.reads]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("engine", HF_ENGINES)
def test_no_engine_opens_a_folder_that_can_run_code(folder: Path, engine: str, fault: str) -> None:
    make, message = FAULTS[fault]
    sides_of(folder, engine)
    make(folder)
    with pytest.raises(ModelError, match=message):
        sides_of(folder, engine)


@pytest.mark.parametrize("suffix", PICKLES)
@pytest.mark.parametrize("engine", ["peft", "vllm-lora", "llamacpp", "onnx"])
def test_pickles_beside_other_formats_are_refused(tmp_path: Path, engine: str, suffix: str) -> None:
    """PEFT reads adapter_model.bin if there is no adapter_model.safetensors."""
    (tmp_path / f"adapter_model{suffix}").write_bytes(pickle.dumps(Bomb(tmp_path / "run")))
    config = {"modules_to_save": ["x"]} if engine == "peft" else {}
    if engine in ("peft", "vllm-lora"):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / {"llamacpp": "model-F16.gguf", "onnx": "onnx.json"}.get(engine, "README.md")).write_text("{}")
    with pytest.raises(ModelError, match="a pickle can run code"):
        sides_of(tmp_path, engine)
    assert not (tmp_path / "run").exists()


def test_a_snapshot_of_the_hub_has_links_to_its_blobs(nano: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in nano.iterdir():
        shutil.copyfile(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / path.name)
    check_engine_folder(snapshot)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "other")
    with pytest.raises(ModelError, match="leads out of the folder"):
        check_engine_folder(snapshot)


def test_the_transcriber_of_an_export_is_no_code_of_the_model(folder: Path) -> None:
    (folder / "transcribe").mkdir()
    (folder / "transcribe" / "__main__.py").touch()
    check_engine_folder(folder)


def test_an_index_that_names_a_file_outside_is_refused_by_gguf(folder: Path, tmp_path: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"x": "../model.safetensors"}}))
    shutil.copyfile(folder / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="is not a .*safetensors file inside the folder"):
        write_gguf(folder, tmp_path, "F32")


def test_a_pickled_adapter_is_not_read(tmp_path: Path) -> None:
    for name in ("adapter_model.bin", "adapter_model.safetensors", "lora.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "run")))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError):
        read_adapter(tmp_path)
    assert not (tmp_path / "run").exists()


def test_no_runner_allows_code_of_a_folder() -> None:
    for path in RUNNERS.glob("run_*.py"):
        assert "trust_remote_code=True" not in path.read_text().replace(" ", ""), path
