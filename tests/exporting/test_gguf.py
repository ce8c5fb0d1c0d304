"""GGUF files: names, values and types of the tensors, metadata, and layouts that llama.cpp does not have."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.core.errors import CheckpointError, ModelError
from finetune.core.run_dir import RunDir
from finetune.exporting.gguf.export import export_gguf
from finetune.exporting.gguf.tensor_names import gguf_name
from finetune.exporting.gguf.write import write_gguf

Values = dict[str, np.ndarray[Any, Any]]

YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 4096}


def read(path: Path) -> tuple[Values, dict[str, Any]]:
    """Tensors as stored, and metadata."""
    reader = gguf.GGUFReader(path)
    return {item.name: item.data for item in reader.tensors}, {k: v.contents() for k, v in reader.fields.items()}


@pytest.fixture(scope="module")
def float_files(
    nano: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Values, dict[str, Any], Values, dict[str, Any]]:
    """Tensors and metadata of the language model, then of encoder and projector, in float32."""
    text, audio = write_gguf(nano, tmp_path_factory.mktemp("gguf"), "F32")
    return (*read(text), *read(audio))


@pytest.fixture(scope="module")
def weights(nano: Path) -> dict[str, Tensor]:
    return load_file(nano / "model.safetensors")


def copy_with(nano: Path, target: Path, config: dict[str, Any] | None = None, drop: str = "", add: str = "") -> Path:
    """A copy of the model with other values in config.json, or a tensor less or more."""
    shutil.copytree(nano, target)
    values = json.loads((nano / "config.json").read_text())
    for key, value in (config or {}).items():
        section, _, name = key.rpartition(".")
        (values[section] if section else values)[name] = value
    (target / "config.json").write_text(json.dumps(values))
    tensors = load_file(nano / "model.safetensors")
    if add:
        tensors[add] = torch.ones(2, 2)
    save_file({name: value for name, value in tensors.items() if name != drop}, target / "model.safetensors")
    return target


def test_no_tensor_is_missing_or_twice(float_files: Any, nano: Path) -> None:
    """Of 3 tensors of a batch normalization, llama.cpp reads 2; keys and values are one matrix in the hub layout."""
    layers, text, audio = 6, float_files[0], float_files[2]
    config = json.loads((nano / "config.json").read_text())
    assert config["encoder_config"]["num_layers"] == layers
    assert len(text) == 3 + 9 * config["text_config"]["num_hidden_layers"]
    assert {name.split(".")[3] for name in audio if name.startswith("a.blk.0.")} == {
        *("ffn_norm", "ffn_up", "ffn_down", "ln1", "attn_q", "attn_k", "attn_v", "attn_out", "attn_rel_pos_emb"),
        *("norm_conv", "conv_pw1", "conv_dw", "conv_norm", "conv_pw2", "ffn_norm_1", "ffn_up_1", "ffn_down_1", "ln2"),
    }
    assert sum(name.startswith("a.blk.") for name in audio) == 31 * layers
    assert sum(name.startswith("a.proj_blk.") for name in audio) == 26 * 2
    assert {name for name in audio if not name.startswith(("a.blk.", "a.proj_blk."))} == {
        *("a.input_projection.weight", "a.input_projection.bias", "a.enc_ctc_out.weight", "a.enc_ctc_out.bias"),
        *("a.enc_ctc_out_mid.weight", "a.enc_ctc_out_mid.bias", "a.proj_query", "a.proj_norm.weight"),
        *("a.proj_norm.bias", "a.proj_linear.weight", "a.proj_linear.bias"),
    }


def test_queries_and_keys_are_stored_for_rotation_of_neighbours(float_files: Any, weights: dict[str, Tensor]) -> None:
    """transformers rotates row j of a head with row j + 16, llama.cpp row 2j with row 2j + 1."""
    for module, name, heads in (("q_proj", "attn_q", 6), ("k_proj", "attn_k", 2)):
        stored = float_files[0][f"blk.1.{name}.weight"]
        source = weights[f"language_model.model.layers.1.self_attn.{module}.weight"].numpy()
        for head in range(heads):
            for j in range(16):
                np.testing.assert_array_equal(stored[32 * head + 2 * j], source[32 * head + j])
                np.testing.assert_array_equal(stored[32 * head + 2 * j + 1], source[32 * head + 16 + j])
    values = weights["language_model.model.layers.1.self_attn.v_proj.weight"].numpy()
    np.testing.assert_array_equal(float_files[0]["blk.1.attn_v.weight"], values)


def test_keys_and_values_of_the_encoder_are_split(float_files: Any, weights: dict[str, Tensor]) -> None:
    both = weights["encoder.layers.2.attn.to_kv.weight"].numpy()
    np.testing.assert_array_equal(float_files[2]["a.blk.2.attn_k.weight"], both[:160])
    np.testing.assert_array_equal(float_files[2]["a.blk.2.attn_v.weight"], both[160:])


def test_batch_normalization_is_folded(float_files: Any, weights: dict[str, Tensor]) -> None:
    prefix = "encoder.layers.3.conv.batch_norm."
    norm = nn.BatchNorm1d(320).eval()
    norm.load_state_dict({name: weights[prefix + name] for name in norm.state_dict()})
    values = torch.randn(4, 320, generator=torch.Generator().manual_seed(0))
    folded = values.numpy() * float_files[2]["a.blk.3.conv_norm.weight"] + float_files[2]["a.blk.3.conv_norm.bias"]
    np.testing.assert_allclose(folded, norm(values).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_metadata(float_files: Any, nano: Path) -> None:
    _, text, _, audio = float_files
    assert text["general.architecture"] == "granite"
    assert text["granite.rope.dimension_count"] == 32
    assert text["granite.attention.head_count_kv"] == 2
    assert text["granite.logit_scale"] == 8
    assert text["granite.residual_scale"] == pytest.approx(0.22)
    assert text["tokenizer.ggml.pre"] == "dbrx"
    assert text["tokenizer.ggml.tokens"][1021:] == ["<|pad|>", "<|end_of_text|>", "<|audio|>"]
    assert text["tokenizer.ggml.token_type"][1021:] == [3, 3, 3]
    assert text["tokenizer.ggml.eos_token_id"] == 1022
    assert text["tokenizer.ggml.add_bos_token"] is False
    assert text["tokenizer.chat_template"] == (nano / "chat_template.jinja").read_text()
    assert audio["clip.audio.projector.window_size"] == 15
    assert audio["clip.projector_type"] == "granite_speech"
    assert audio["clip.audio.block_count"] == 6


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0"])
def test_matrices_are_rounded_and_vectors_are_not(dtype: str, nano: Path, tmp_path: Path) -> None:
    types = gguf.GGMLQuantizationType
    for path in write_gguf(nano, tmp_path, dtype):
        for item in gguf.GGUFReader(path).tensors:
            exact = len(item.shape) < 2 or item.name.endswith(("a.proj_query", "attn_rel_pos_emb", "conv_dw.weight"))
            # Rows of 348 values cannot be cut into blocks of 32.
            fallback = dtype == "Q8_0" and item.shape[0] % 32
            assert item.tensor_type == (types.F32 if exact else types.F16 if fallback else types[dtype]), item.name


def test_a_matrix_that_is_embedding_and_output_is_stored_as_embedding(nano: Path, tmp_path: Path) -> None:
    folder = copy_with(nano, tmp_path / "tied", drop="language_model.model.embed_tokens.weight")
    text, _ = read(write_gguf(folder, tmp_path, "F32")[0])
    assert "output.weight" not in text
    source = load_file(nano / "model.safetensors")["language_model.lm_head.weight"]
    np.testing.assert_array_equal(text["token_embd.weight"], source.numpy())


def test_scaled_positions(nano: Path, tmp_path: Path) -> None:
    rope = {**YARN, "attention_factor": None, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
    folder = copy_with(nano, tmp_path / "yarn", {"text_config.rope_parameters": rope})
    _, fields = read(write_gguf(folder, tmp_path, "F32")[0])
    assert fields["granite.rope.scaling.type"] == "yarn"
    assert fields["granite.rope.scaling.factor"] == 4
    assert fields["granite.rope.scaling.original_context_length"] == 4096


@pytest.mark.parametrize(
    ("config", "add", "message"),
    [
        ({"has_lora_adapter": True}, "", "export it with --format hf first"),
        ({"projector_config.num_hidden_layers": 3}, "", "expects a projector of 2 layers"),
        ({"text_config.rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "", "positions of type 'llama3'"),
        ({"text_config.rope_parameters": {**YARN, "attention_factor": 1.5}}, "", "YaRN with attention_factor 1.5"),
        ({"text_config.rope_parameters": {**YARN, "beta_fast": 64}}, "", "YaRN with beta_fast 64"),
        (
            {},
            "language_model.model.layers.0.self_attn.q_norm.weight",
            "q_norm.weight: llama.cpp's Granite Speech has no",
        ),
    ],
)
def test_refused(config: dict[str, Any], add: str, message: str, nano: Path, tmp_path: Path) -> None:
    folder = copy_with(nano, tmp_path / "other", config, add=add)
    with pytest.raises(ModelError, match=message):
        write_gguf(folder, tmp_path, "F32")


@pytest.mark.parametrize(
    ("splitter", "name"),
    [
        (
            {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}],
            },
            "refact",
        ),
        ({"type": "ByteLevel", "use_regex": True}, "gpt-2"),
        ({"type": "Whitespace"}, None),
    ],
)
def test_the_splitting_of_text_is_recognized(splitter: Any, name: str | None, nano: Path, tmp_path: Path) -> None:
    folder = copy_with(nano, tmp_path / "other")
    tokenizer = json.loads((nano / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "pre_tokenizer": splitter}))
    if name is None:
        with pytest.raises(ModelError, match="Whitespace"):
            write_gguf(folder, tmp_path, "F32")
    else:
        assert read(write_gguf(folder, tmp_path, "F32")[0])[1]["tokenizer.ggml.pre"] == name


def test_a_chat_template_in_the_configuration_of_the_tokenizer(nano: Path, tmp_path: Path) -> None:
    """As older versions of transformers wrote it."""
    folder = copy_with(nano, tmp_path / "older")
    (folder / "chat_template.jinja").unlink()
    assert "tokenizer.chat_template" not in read(write_gguf(folder, tmp_path, "F32")[0])[1]
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "{{ messages }}"}))
    assert read(write_gguf(folder, tmp_path, "F32")[0])[1]["tokenizer.chat_template"] == "{{ messages }}"


def test_the_export_of_a_run(nano: Path, tmp_path: Path) -> None:
    """The folder is replaced as a whole, unless it has files of the user."""
    run = RunDir(tmp_path)
    run.export.symlink_to(nano)
    for dtype in ("F32", "F16"):
        text, audio = export_gguf(run, dtype)
    assert sorted(path.name for path in text.parent.iterdir()) == ["mmproj-F16.gguf", "model-F16.gguf"]
    assert audio.stat().st_size > text.stat().st_size
    (text.parent / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes.txt was not written by an export"):
        export_gguf(run, "F16")
    assert text.is_file()


def test_a_name_of_the_hub_layout() -> None:
    assert gguf_name("language_model.model.layers.3.self_attn.q_proj.weight") == "blk.3.attn_q.weight"


def test_a_configuration_without_what_transformers_fills_in(nano: Path, tmp_path: Path) -> None:
    """Special tokens are those of the tokenizer, which end the text in this toolkit too."""
    folder = copy_with(nano, tmp_path / "short", {"text_config.bos_token_id": None, "text_config.eos_token_id": [7, 8]})
    config = json.loads((folder / "config.json").read_text())
    for key in ("pad_token_id", "rms_norm_eps", "hidden_act"):
        del config["text_config"][key]
    del config["window_size"]
    (folder / "config.json").write_text(json.dumps(config))
    text, audio = (read(path)[1] for path in write_gguf(folder, tmp_path, "F32"))
    assert [text[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos", "padding")] == [1022, 1022, 1021]
    assert text["granite.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)  # of GraniteConfig
    assert audio["clip.audio.projector.window_size"] == 15
    (folder / "tokenizer_config.json").write_text("{}")
    stated = read(write_gguf(folder, tmp_path, "F32")[0])[1]
    assert not {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.padding_token_id"} & stated.keys()


def test_biases_of_queries_and_keys_are_stored_for_rotation_too(nano: Path, tmp_path: Path) -> None:
    folder = copy_with(nano, tmp_path / "biased", {"text_config.attention_bias": True})
    tensors = load_file(folder / "model.safetensors")
    for module, size in (("q_proj", 192), ("k_proj", 64), ("v_proj", 64)):
        tensors[f"language_model.model.layers.0.self_attn.{module}.bias"] = torch.arange(size).float()
    save_file(tensors, folder / "model.safetensors")
    stored, _ = read(write_gguf(folder, tmp_path, "F32")[0])
    for name in ("attn_q", "attn_k"):
        assert stored[f"blk.0.{name}.bias"][:4].tolist() == [0, 16, 1, 17]
        assert stored[f"blk.0.{name}.bias"][32:34].tolist() == [32, 48]
    assert stored["blk.0.attn_v.bias"].tolist() == list(range(64))


def test_another_activation_is_refused(nano: Path, tmp_path: Path) -> None:
    folder = copy_with(nano, tmp_path / "gelu", {"text_config.hidden_act": "gelu"})
    with pytest.raises(ModelError, match="hidden_act 'gelu'; llama.cpp's Granite has only silu"):
        write_gguf(folder, tmp_path, "F32")
