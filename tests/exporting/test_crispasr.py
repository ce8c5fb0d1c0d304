"""The GGUF file of CrispASR: names, values and types of the tensors, metadata, and layouts that it does not have."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from family import make_model
from safetensors.torch import load_file, save_file

from finetune.core.errors import ModelError
from finetune.core.run_dir import RunDir
from finetune.data.features import mel_filters
from finetune.exporting.engines.sides import format_of
from finetune.exporting.gguf.crispasr_names import crispasr_name
from finetune.exporting.gguf.export import export_gguf
from finetune.exporting.gguf.quantize import check_dtype
from finetune.exporting.gguf.write_crispasr import write_crispasr


def read(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
    """Tensors as stored, and metadata."""
    reader = gguf.GGUFReader(path)
    return {item.name: item.data for item in reader.tensors}, {k: v.contents() for k, v in reader.fields.items()}


def copy_with(nano: Path, target: Path, **text: Any) -> Path:
    """A copy of the model with other values in `text_config`."""
    shutil.copytree(nano, target)
    config = json.loads((nano / "config.json").read_text())
    config["text_config"].update(text)
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_every_tensor_is_stored_as_it_is(nano: Path, tmp_path: Path) -> None:
    (path,) = write_crispasr(nano, tmp_path, "F32")
    stored, fields = read(path)
    weights = {
        name: value for name, value in load_file(nano / "model.safetensors").items() if "num_batches" not in name
    }
    names = {name: crispasr_name(name) for name in weights}
    assert len(set(names.values())) == len(weights) and {*names.values(), "audio.mel_filters"} == {*stored}
    for name, value in weights.items():
        np.testing.assert_array_equal(stored[names[name]], value.float().numpy(), name)
    np.testing.assert_array_equal(stored["audio.mel_filters"], mel_filters(torch.device("cpu")).numpy())
    assert names["encoder.layers.2.conv.batch_norm.running_var"] == "enc.blk.2.conv_bn.running_var"
    assert names["projector.qformer.encoder.layer.1.crossattention.attention.key.bias"] == "proj.blk.1.ca_key.bias"
    assert path.name == "granite-speech-F32.gguf" and fields["general.architecture"] == "granite_speech"
    sizes = {key.removeprefix("granite_speech."): value for key, value in fields.items()}
    assert (sizes["enc.n_layers"], sizes["enc.context_size"], sizes["llm.n_kv_heads"], sizes["window_size"]) == (
        6,
        200,
        2,
        15,
    )
    assert (sizes["llm.eos_token_id"], sizes["audio_token_index"]) == (1022, 1023)
    assert sizes["llm.residual_multiplier"] == pytest.approx(0.22)
    assert "proj.cat_layers" not in sizes and "llm.rope_scaling.type" not in sizes


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0"])
def test_only_matrices_of_the_language_model_are_rounded(dtype: str, nano: Path, tmp_path: Path) -> None:
    types = gguf.GGMLQuantizationType
    for item in gguf.GGUFReader(*write_crispasr(nano, tmp_path, dtype)).tensors:
        exact = len(item.shape) < 2 or item.name.startswith(("enc.", "proj.", "audio."))
        assert item.tensor_type == (types.F32 if exact else types[dtype]), item.name


def test_the_plus_model(tmp_path: Path) -> None:
    """One matrix for embedding and output is stored for both; the projector sees two layers of the encoder."""
    folder = make_model("4.1-2b-plus", tmp_path / "plus")
    stored, fields = read(*write_crispasr(folder, tmp_path, "F32"))
    np.testing.assert_array_equal(stored["token_embd.weight"], stored["output.weight"])
    assert fields["granite_speech.proj.cat_layers"] == "3"
    assert fields["granite_speech.proj.encoder_hidden_size"] == 2 * fields["granite_speech.enc.d_model"]


def test_scaled_positions(nano: Path, tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 4096}
    _, fields = read(*write_crispasr(copy_with(nano, tmp_path / "yarn", rope_parameters=yarn), tmp_path, "F32"))
    scaling = {key.rpartition(".")[2]: value for key, value in fields.items() if "rope_scaling" in key}
    assert scaling.pop("attention_factor") == pytest.approx(0.1 * np.log(4) + 1)
    assert scaling == {"type": "yarn", "factor": 4, "original_context": 4096, "beta_fast": 32, "beta_slow": 1}
    for number, (rope, message) in enumerate(
        (({**yarn, "mscale": 2.0}, "YaRN with mscale 2.0"), ({**yarn, "rope_type": "llama3"}, "type 'llama3'"))
    ):
        with pytest.raises(ModelError, match=message):
            write_crispasr(copy_with(nano, tmp_path / str(number), rope_parameters=rope), tmp_path, "F32")


def test_a_layout_that_crispasr_does_not_have(nano: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="hidden_act 'gelu'; CrispASR's Granite has only silu"):
        write_crispasr(copy_with(nano, tmp_path / "gelu", hidden_act="gelu"), tmp_path, "F32")
    folder = copy_with(nano, tmp_path / "bias")
    bias = "language_model.model.layers.0.self_attn.q_proj.bias"
    save_file({**load_file(nano / "model.safetensors"), bias: torch.ones(192)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=f"{bias}: CrispASR's Granite Speech has no such tensor"):
        write_crispasr(folder, tmp_path, "F32")


def test_the_export_of_a_run(nano: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.export.symlink_to(nano)
    for dtype in ("F32", "F16"):
        (path,) = export_gguf(run, dtype, "crispasr")
    assert path == run.exported("crispasr") / "granite-speech-F16.gguf"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert format_of(path.parent) == "crispasr"
    with pytest.raises(ModelError, match="--gguf-dtype Q4_K_M is not written for --format crispasr; use Q8_0"):
        check_dtype("crispasr", "Q4_K_M")
