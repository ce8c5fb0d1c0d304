"""A model folder from somebody else: no code, no pickle, no absurd size; one sentence before anything is allocated."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from finetune.core.errors import ModelError
from finetune.model.folder_checks import check_folder, count_weights
from finetune.model.granite import load_model
from finetune.model.model_config import read_config

CODE = {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil"}


@pytest.fixture
def folder(nano: Path, tmp_path: Path) -> Path:
    """A copy of the embedded model with a link to its weights."""
    copy = tmp_path / "model"
    copy.mkdir()
    for path in nano.iterdir():
        if path.suffix == ".safetensors":
            (copy / path.name).symlink_to(path)
        else:
            shutil.copyfile(path, copy / path.name)
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    return copy


def edit(path: Path, *keys: str, value: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(content))


def test_the_embedded_model_passes(nano: Path) -> None:
    check_folder(nano)
    assert 7_000_000 < count_weights(nano) < 8_000_000


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("config.json", ["auto_map"], CODE),
        ("config.json", ["text_config", "auto_map"], CODE),
        ("config.json", ["custom_pipelines"], {"a": {"impl": "evil.Evil"}}),
        ("tokenizer_config.json", ["auto_map"], CODE),
        ("processor_config.json", ["auto_map"], CODE),
        ("preprocessor_config.json", ["auto_map"], CODE),
        ("generation_config.json", ["custom_generate"], "evil.py"),
    ],
)
def test_a_folder_that_wants_to_run_code_is_refused(folder: Path, file: str, keys: list[str], value: object) -> None:
    edit(folder / file, *keys, value=value)
    with pytest.raises(ModelError, match=f"{file}: {keys[-1]} asks to run code"):
        load_model(str(folder), "float32")
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["text_config", "num_hidden_layers"], 10**7, "text_config.num_hidden_layers is 10000000, .* have 5 layers"),
        (["encoder_config", "num_layers"], 7, "encoder_config.num_layers is 7, .* have 6 layers"),
        (["projector_config", "num_hidden_layers"], -1, "num_hidden_layers is -1"),
        (["text_config", "num_hidden_layers"], "5", "num_hidden_layers is 5"),
        (["text_config", "vocab_size"], 10**12, "vocab_size is 1000000000000, which no model has"),
        (["text_config", "logits_scaling"], 0, "logits_scaling must be a number above 0, got '0'"),
        (["text_config", "logits_scaling"], float("nan"), "logits_scaling is nan"),
        (["text_config", "logits_scaling"], "8", "logits_scaling must be a number above 0"),
        (["text_config", "embedding_multiplier"], 0, "text_config.embedding_multiplier must be a number above 0"),
        (["text_config", "attention_multiplier"], -1, "text_config.attention_multiplier must be a number above 0"),
        (["text_config", "residual_multiplier"], 0.0, "text_config.residual_multiplier must be a number above 0"),
        (["text_config", "max_position_embeddings"], 0, "text_config.max_position_embeddings must be a number above"),
        (["text_config", "model_type"], "llama", "text_config.model_type is 'llama'; .* is 'granite'"),
        (["window_size"], 16, "window_size must be a multiple of downsample_rate"),
        (["window_size"], 0, "window_size must be a number above 0"),
        (["downsample_rate"], 16, "downsample_rate is larger than window_size"),
        (["audio_token_index"], 1024, "audio_token_index must be a token below vocab_size"),
        (["text_config"], None, "text_config must be an object"),
        (["model_type"], "llama", "model_type is 'llama'"),
    ],
)
def test_impossible_settings_are_named(folder: Path, keys: list[str], value: object, message: str) -> None:
    edit(folder / "config.json", *keys, value=value)
    with pytest.raises(ModelError, match=message):
        check_folder(folder)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_audio_token_is_that_of_the_tokenizer(folder: Path, device: str) -> None:
    edit(folder / "config.json", "audio_token_index", value=500)
    with pytest.raises(ModelError, match=r"audio_token_index .* is 500, but <\|audio\|> is the token 1023 of its tok"):
        load_model(str(folder), "float32", device)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tied_embeddings_with_another_head_are_refused(folder: Path, device: str) -> None:
    edit(folder / "config.json", "tie_word_embeddings", value=True)
    hf = load_model(str(folder), "float32", device).hf  # the value above text_config, which no engine reads
    assert hf.lm_head.weight is not hf.get_input_embeddings().weight
    edit(folder / "config.json", "text_config", "tie_word_embeddings", value=True)
    with pytest.raises(ModelError, match="tie_word_embeddings .* differs from the input embeddings; set it to false"):
        load_model(str(folder), "float32", device)


def test_a_head_that_equals_its_tied_embeddings_is_tied_on_the_meta_device(folder: Path) -> None:
    edit(folder / "config.json", "tie_word_embeddings", value=True)
    weights = load_file(folder / "model.safetensors")
    head, embeddings = (next(key for key in weights if name in key) for name in ("lm_head", "embed_tokens"))
    (folder / "model.safetensors").unlink()
    save_file({**weights, head: weights[embeddings].clone()}, folder / "model.safetensors", {"format": "pt"})
    for device in ("cpu", "meta"):
        model = load_model(str(folder), "float32", device)
        assert model.lm_head.weight is model.language_model.get_input_embeddings().weight


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "vocab_size"])
def test_a_size_beyond_the_weights_is_refused_before_allocation(folder: Path, key: str) -> None:
    edit(folder / "config.json", "text_config", key, value=10**9)
    with pytest.raises(ModelError, match=r"describes a model of [\d,]+ parameters, but the weights .* have 7,"):
        load_model(str(folder), "float32")


def test_pickled_weights_behind_a_decoy_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ModelError, match=r"no model.safetensors and no .*decoy.safetensors is not read"):
        read_config(str(folder))


@pytest.mark.parametrize("shard", ["../other/model.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin"])
def test_an_index_stays_inside_the_folder(folder: Path, shard: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(ModelError, match="is not a .*safetensors file inside the folder"):
        read_config(str(folder))


def test_an_index_names_existing_files(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="model-00001-of-00002.safetensors is missing"):
        read_config(str(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (struct.pack("<Q", 1 << 60) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "damaged"),
        (struct.pack("<Q", 50_000) + b"[" * 50_000, "damaged"),
        (struct.pack("<Q", 2) + b"{}" + b"x", "truncated"),
    ],
)
def test_damaged_headers_are_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=f"model.safetensors: .*{message}"):
        check_folder(folder)


@pytest.mark.parametrize(
    "template", ["{% for %}", "{{ messages.a.b }}", "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "hello"]
)
def test_a_broken_chat_template_is_named(folder: Path, template: str) -> None:
    from finetune.model.prompt import render

    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match="chat template"):
        render(load_model(str(folder), "float32").tokenizer, "instruction")


def test_a_run_is_not_a_model_but_has_an_export(nano: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    (run / "resolved.json").write_text("{}")
    for name in (run, run / "best"):
        with pytest.raises(ModelError, match=r"run `finetune export .*resolved.json` first"):
            read_config(str(name))
    shutil.copytree(nano, run / "export")
    for name in (run, run / "best", run / "exports"):
        with pytest.raises(ModelError, match=f"did you mean {run / 'export'}"):
            read_config(str(name))
