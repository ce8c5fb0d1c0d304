"""Loading and forward pass: equal to transformers except for the logits scaling; invalid folders are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import hf_inputs, noise
from torch import Tensor

from finetune.core.errors import ModelError
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance
from finetune.model.granite import SpeechModel, load_model
from finetune.model.model_config import read_config
from finetune.training.loss import IGNORE, token_loss

HUB_LAYOUT = ("encoder.", "projector.", "language_model.model.", "language_model.lm_head.weight")


@pytest.fixture(scope="module")
def granite(model: Callable[[], SpeechModel]) -> SpeechModel:
    return model()


def test_model_loads_frozen_in_eval_mode(granite: SpeechModel) -> None:
    assert not granite.training
    assert not any(module.training for module in granite.modules())
    assert not any(parameter.requires_grad for parameter in granite.parameters())
    assert {parameter.dtype for parameter in granite.parameters()} == {torch.float32}
    assert granite.tokenizer.convert_tokens_to_ids("<|audio|>") == granite.audio_token_id


def test_cudnn_attention_is_disabled(granite: SpeechModel) -> None:
    """cuDNN attention gives no gradient for the attention bias of the encoder; the other kernels do."""
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    query, bias = torch.zeros(1, 1, 8, 64, device="meta"), torch.zeros(1, 1, 8, 8, device="meta", requires_grad=True)
    with pytest.raises(RuntimeError, match="not differentiable with respect to argument 'attn_bias'"):
        torch.ops.aten._scaled_dot_product_cudnn_attention(query, query, query, bias, True)


def test_saved_tensor_names_are_those_of_the_hub(nano: Path) -> None:
    """vLLM, llama.cpp and mlx-audio expect these names."""
    with safe_open(str(nano / "model.safetensors"), "pt") as weights:
        names = list(weights.keys())
    assert len(names) > 100
    assert [name for name in names if not name.startswith(HUB_LAYOUT)] == []
    for part in HUB_LAYOUT:
        assert any(name.startswith(part) for name in names), part


@torch.inference_mode()
def test_logits_are_those_of_transformers_divided_by_logits_scaling(
    granite: SpeechModel, clips: list[Utterance]
) -> None:
    """transformers 5.10 to 5.23 omits the division.

    If this test fails because both are equal, the installed transformers divides again. The code here stays correct,
    because it never calls that `forward`; only the module docstring of granite.py must change.
    """
    inputs = hf_inputs(granite, clips[0])
    unscaled = granite.hf(**inputs).logits
    frames = torch.tensor([inputs["input_features"].shape[1]])
    hidden, _ = granite(inputs["input_features"], frames, inputs["input_ids"])
    logits = granite.logits(hidden)
    assert granite.logits_scaling == 8.0
    already_scaled = torch.allclose(logits, unscaled, rtol=1e-4, atol=1e-4)
    assert not already_scaled, (
        "the installed transformers divides by logits_scaling: update the docstring of granite.py"
    )
    assert float((logits - unscaled / 8.0).abs().max()) < 1e-5 * max(1.0, float(unscaled.abs().max()))
    assert logits.dtype == torch.float32


@torch.inference_mode()
def test_right_padding_changes_no_hidden_state(granite: SpeechModel) -> None:
    features = [noise(130, 1), noise(310, 2)]
    prompts = [[604, *[granite.audio_token_id] * 27, 612, 5, 6], [604, *[granite.audio_token_id] * 63, 612]]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in prompts], batch_first=True)
    together, _ = granite(*pad_features(features), ids)
    for row, clip, prompt in zip(together, features, prompts, strict=True):
        alone, _ = granite(*pad_features([clip]), torch.tensor([prompt]))
        assert float((row[: len(prompt)] - alone[0]).abs().max()) < 1e-4


@torch.inference_mode()
@pytest.mark.parametrize("counts", [(26, 63), (28, 63), (30, 60), (27, 0)])
def test_wrong_numbers_of_audio_tokens_are_refused(granite: SpeechModel, counts: tuple[int, int]) -> None:
    """(30, 60) has the right sum, but a clip would get embeddings of the other clip."""
    audio = granite.encode(*pad_features([noise(130, 1), noise(310, 2)]))
    rows = [torch.tensor([604, *[granite.audio_token_id] * count]) for count in counts]
    with pytest.raises(ModelError, match=r"\[27, 63\]"):
        granite.embed(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), audio)


@torch.inference_mode()
def test_audio_embeddings_replace_audio_tokens(granite: SpeechModel) -> None:
    audio = granite.encode(*pad_features([noise(40, 1), noise(20, 2)]))
    audio_id = granite.audio_token_id
    ids = torch.tensor([[5, *[audio_id] * 9, 6], [5, *[audio_id] * 6, 6, 0, 0, 0]])
    embeds = granite.embed(ids, audio)
    words = granite.language_model.get_input_embeddings()(torch.tensor([5, 6]))
    assert torch.equal(embeds[0, 1:10], audio.embeds[0, :9])
    assert torch.equal(embeds[1, 1:7], audio.embeds[1, :6])
    assert torch.equal(embeds[0, [0, 10]], words) and torch.equal(embeds[1, [0, 7]], words)


@torch.inference_mode()
def test_cached_states_and_embeddings_give_the_same_hidden_states(granite: SpeechModel) -> None:
    """Encoder states or audio embeddings of each clip, padded with zeros; another kind is an error."""
    features, frames = pad_features([noise(130, 1), noise(310, 2)])
    audio = granite.embed_audio(features, frames, "features")
    prompts = [torch.tensor([604, *[granite.audio_token_id] * int(count), 5]) for count in audio.num_tokens]
    ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    expected, _ = granite(features, frames, ids)
    for kind, rows, counts in (("states", audio.states, frames), ("embeds", audio.embeds, audio.num_tokens)):
        cached = [row[:count] for row, count in zip(rows, counts.tolist(), strict=True)]
        hidden, encoded = granite(torch.nn.utils.rnn.pad_sequence(cached, True), counts, ids, kind)
        assert torch.equal(encoded.num_tokens, audio.num_tokens)
        for row, reference, prompt in zip(hidden, expected, prompts, strict=True):
            assert float((row - reference)[: len(prompt)].abs().max()) < 1e-5, kind
    with pytest.raises(ValueError, match="not 'logits'"):
        granite.embed_audio(features, frames, "logits")


def test_loss_computes_logits_at_targets_only(granite: SpeechModel) -> None:
    """Logits at all positions would need gigabytes with the real vocabulary of 100,353 tokens."""
    rows: list[int] = []

    def counted(hidden: Tensor) -> Tensor:
        rows.append(len(hidden))
        return granite.logits(hidden)

    labels = torch.full((2, 500), IGNORE)
    labels[0, 480:] = 3
    labels[1, 490:] = 4
    token_loss(torch.randn(2, 500, granite.lm_head.in_features), labels, counted, 0.0)
    assert sum(rows) == 30


def copy_of(nano: Path, tmp_path: Path, weights: bool = True) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(nano, folder, ignore=None if weights else shutil.ignore_patterns("*.safetensors"))
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_folder_without_weights_is_refused(nano: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights"):
        load_model(str(copy_of(nano, tmp_path, weights=False)), "float32")


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(str(tmp_path), "float32")
    with pytest.raises(ModelError, match="nowhere: no such folder; give a model folder or a hub name"):
        load_model(str(tmp_path / "nowhere"), "float32")


def test_wrong_model_folder_gets_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = tmp_path / "runs" / "drugs" / "export"
    export.mkdir(parents=True)
    (export / "config.json").write_text("{}")
    (export.parent / "best").mkdir()
    monkeypatch.chdir(tmp_path)
    for wrong in ("runs/drugs", "runs/drugs/best", "runs/drugs/exports"):
        with pytest.raises(ModelError, match=rf"^{wrong}: no .*; did you mean runs/drugs/export\?$"):
            read_config(wrong)
    with pytest.raises(
        ModelError, match=r"^runs/drags: no such folder, and no such model (.|\n)*; did you mean runs/drugs\?$"
    ):
        read_config("runs/drags")
    Path("drugs.yaml").write_text("name: drugs")
    with pytest.raises(
        ModelError, match=r"^drugs\.yaml: a file; .*, give the export of its run, such as runs/drugs/export"
    ):
        read_config("drugs.yaml")


def test_other_models_and_unmerged_adapters_are_refused(nano: Path, tmp_path: Path) -> None:
    folder = copy_of(nano, tmp_path, weights=False)
    (folder / "model.safetensors").symlink_to(nano / "model.safetensors")
    edit_config(folder, model_type="whisper")
    with pytest.raises(ModelError, match="'whisper'"):
        load_model(str(folder), "float32")
    edit_config(folder, model_type="granite_speech", has_lora_adapter=True)
    with pytest.raises(ModelError, match=r"adapter_config\.json is missing, but .*has_lora_adapter"):
        load_model(str(folder), "float32")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(str(folder), "float32")


def test_missing_weights_and_wrong_shapes_are_refused(nano: Path, tmp_path: Path) -> None:
    """transformers would initialize a missing weight at random and only warn."""
    folder = copy_of(nano, tmp_path, weights=False)
    weights = load_file(nano / "model.safetensors")
    removed = weights.pop("language_model.model.layers.0.self_attn.q_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weight is missing, for example .*q_proj"):
        load_model(str(folder), "float32")
    weights["language_model.model.layers.0.self_attn.q_proj.weight"] = removed[:10].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weight has another shape .*q_proj\.weight: \[10, 192\] in the files"):
        load_model(str(folder), "float32")


@pytest.mark.parametrize("damage", [b"version https://git-lfs.github.com/spec/v1\n", b"\x00" * 100, b""])
def test_damaged_weights_are_refused(nano: Path, tmp_path: Path, damage: bytes) -> None:
    folder = copy_of(nano, tmp_path, weights=False)
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(ModelError, match="model.safetensors: .*(Git LFS|download)"):
        load_model(str(folder), "float32")


def test_adapter_next_to_the_weights_is_refused(nano: Path, tmp_path: Path) -> None:
    """transformers would load it without a message, and a merge would then apply an adapter twice."""
    folder = copy_of(nano, tmp_path, weights=False)
    (folder / "model.safetensors").symlink_to(nano / "model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        load_model(str(folder), "float32")


def test_unknown_hub_name_raises_model_error() -> None:
    with pytest.raises(ModelError, match="ibm-granite/no-such-model"):
        load_model("ibm-granite/no-such-model", "float32")
