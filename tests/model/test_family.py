"""Every layout of the family loads with transformers' numbers, and a model that cannot be used is refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from family import ALPHA, CONFIGS, RANK, VERSIONS, WITH_BPE_HEAD, changed, make_model
from safetensors.torch import load_file, save_file
from support import INSTRUCTION, hf_tokens, noise
from trainable_cases import LORA
from transformers import AutoTokenizer

from finetune.core.errors import ModelError
from finetune.core.layouts import BPE_HEAD, plain_name
from finetune.core.options import DecodingOptions
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance
from finetune.inference.recognize import recognize
from finetune.model.granite import SpeechModel, load_model, on_meta
from finetune.model.load_weights import model_class
from finetune.model.model_config import parse_config, read_config
from finetune.model.model_summary import count_parts, open_without_weights
from finetune.model.shipped_lora import ShippedLora
from finetune.model.trainable import open_parts, summarize_parts

TOKENS = 8
CHECKED = ("3.3-2b", "4.1-2b", "4.1-2b-plus October", "5.0-2b")  # the others differ in sizes, or in a part of these


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models, by layout."""
    root = tmp_path_factory.mktemp("family")
    return {name: make_model(name, root / name.replace(" ", "_")) for name in CHECKED}


@pytest.fixture
def granite_3_3(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny 3.3 model, to be damaged."""
    return Path(shutil.copytree(folders["3.3-2b"], tmp_path / "model"))


def by_transformers(folder: Path) -> SpeechModel:
    """The model as transformers loads it; it applies the adapter of 3.3 with PEFT."""
    hf = model_class(parse_config(json.loads((folder / "config.json").read_text())))
    loaded = hf.from_pretrained(str(folder), dtype=torch.float32).eval()
    return SpeechModel(loaded, AutoTokenizer.from_pretrained(folder), str(folder))


@pytest.mark.parametrize("name", CHECKED)
def test_a_tiny_model_writes_the_tokens_of_transformers(
    name: str, folders: dict[str, Path], clips: list[Utterance]
) -> None:
    model, reference = load_model(str(folders[name]), "float32"), by_transformers(folders[name])
    assert model.profile.version == VERSIONS[name]
    assert (model.bpe_file is not None) == (name in WITH_BPE_HEAD)
    assert model.max_positions == (16384 if name.endswith(("5.0-2b", "October")) else model.max_positions)
    hypotheses = recognize(model, clips[:2], INSTRUCTION, DecodingOptions("greedy", max_new_tokens=TOKENS))
    expected = [hf_tokens(reference, item, TOKENS) for item in clips[:2]]
    assert [item.tokens for item in hypotheses] == expected
    assert all(len(set(tokens)) > TOKENS // 2 for tokens in expected), "a text that loops shows little"


@torch.inference_mode()
@pytest.mark.parametrize("layers", [[3], [0, 2, 3], [5]])
def test_states_of_earlier_layers_are_those_of_transformers(layers: list[int], folders: dict[str, Path]) -> None:
    """3 is the middle layer, to which transformers adds the feedback after it has kept the state, in place."""
    path = folders["4.1-2b-plus October"]
    config = parse_config(
        changed(
            json.loads((path / "config.json").read_text()),
            encoder_config={"cat_hidden_layers": layers},
            projector_config={"encoder_hidden_size": 32 * (1 + len(layers))},
        )
    )
    torch.manual_seed(1)
    model = SpeechModel(model_class(config)(config).eval(), AutoTokenizer.from_pretrained(path), str(path))
    audio = model.encode(*pad_features([noise(83, 1), noise(215, 2)]))
    for row, frames in enumerate((83, 215)):
        expected = model.hf.get_audio_features(noise(frames, row + 1)[None])
        assert float((audio.states[row, :frames] - expected.last_hidden_state[0]).abs().max()) < 1e-5
        tokens = int(audio.num_tokens[row])
        assert float((audio.embeds[row, :tokens] - expected.pooler_output[0]).abs().max()) < 1e-5
    last = model.encoder.out(audio.states[..., -32:])
    assert torch.equal(model.ctc_logits(audio.states), last)


def test_the_shipped_adapter_is_merged_with_the_arithmetic_of_peft(folders: dict[str, Path]) -> None:
    """Bit for bit in float32. In bfloat16 the sum is computed in float32 and rounded once."""
    path = folders["3.3-2b"]
    ours = dict(load_model(str(path), "float32").hf.named_parameters())
    narrow = dict(load_model(str(path), "bfloat16").hf.named_parameters())
    stored, adapter = load_file(path / "model.safetensors"), load_file(path / "adapter_model.safetensors")
    merged = 0
    for name, module in by_transformers(path).hf.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        module.merge(safe_merge=True)
        assert torch.equal(ours[f"{name}.weight"], module.base_layer.weight), name
        hub = "language_model.model." + plain_name(name).removeprefix("language_model.")
        a, b = (adapter[f"base_model.model.{hub}.lora_{part}.weight"] for part in "AB")
        rounded = stored[f"{hub}.weight"].bfloat16().float() + (b @ a) * (ALPHA / RANK)
        assert torch.equal(narrow[f"{name}.weight"], rounded.bfloat16()), name
        merged += 1
    assert merged == 6
    assert load_model(str(path), "float32").hf.config.has_lora_adapter is False
    assert not any("lora" in name for name in ours)


def test_a_weight_is_merged_by_its_hub_name(folders: dict[str, Path]) -> None:
    """As an export that streams weights needs it; other weights stay the same object."""
    path = folders["3.3-2b"]
    lora = ShippedLora.read(path)
    parameters = dict(load_model(str(path), "float32").hf.named_parameters())
    for name, value in load_file(path / "model.safetensors").items():
        module = f"model.{name.replace('.model.', '.')}" if name.startswith("language_model") else f"model.{name}"
        same = name.endswith(("q_proj.weight", "v_proj.weight"))
        assert (lora.merged(name, value) is value) is not same
        if same:
            assert torch.equal(lora.merged(name, value), parameters[module])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w, c: w.pop(next(iter(sorted(w)))), "one matrix of .*q_proj is missing"),
        (lambda w, c: w.update({name.replace("layers.0", "layers.9"): w.pop(name) for name in sorted(w)[:2]}),
            r"layers\.9\.self_attn\.q_proj is not a layer of the model"),
        (lambda w, c: w.update({"extra.weight": torch.zeros(2, 2)}), "extra.weight is not a matrix of a LoRA adapter"),
        (lambda w, c: w[sorted(w)[0]].fill_(float("nan")), "NaN or infinite"),
        (lambda w, c: w.update({sorted(w)[0]: torch.zeros(RANK, 8)}), "has shape .* in the model"),
        (lambda w, c: [w.pop(name) for name in sorted(w) if "v_proj" in name], "no weights for v_proj, a target of"),
        (lambda w, c: w.clear(), "no weights"),
        (lambda w, c: c.update(r=8), "the rank of .* is not r"),
        (lambda w, c: c.update(r=0), "r must be a whole number above 0"),
        (lambda w, c: c.update(use_dora=True), "use_dora is not supported"),
        (lambda w, c: c.update(modules_to_save=["projector"]), "modules_to_save is not supported"),
        (lambda w, c: c.update(bias="all"), "bias is not supported"),
        (lambda w, c: c.update(peft_type="PREFIX_TUNING"), "not the configuration of a LoRA adapter"),
    ],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused(granite_3_3: Path, damage: object, message: str) -> None:
    weights = load_file(granite_3_3 / "adapter_model.safetensors")
    config = json.loads((granite_3_3 / "adapter_config.json").read_text())
    damage(weights, config)  # type: ignore[operator]
    save_file(weights, granite_3_3 / "adapter_model.safetensors", metadata={"format": "pt"})
    (granite_3_3 / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        ShippedLora.read(granite_3_3).merge(on_meta(read_config(str(granite_3_3)), "tiny").hf)


def test_a_model_without_its_adapter_is_refused(granite_3_3: Path) -> None:
    (granite_3_3 / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="the LoRA adapter of the model cannot be read"):
        load_model(str(granite_3_3), "float32")
    (granite_3_3 / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"adapter_config\.json is missing, but the model has a LoRA adapter"):
        load_model(str(granite_3_3), "float32")


def test_check_reads_no_weights_of_any_layout(folders: dict[str, Path]) -> None:
    """`finetune check` builds the base on the meta device, and compares the adapter of 3.3 with it."""
    for path in (folders["3.3-2b"], folders["4.1-2b-plus October"]):
        model = load_model(str(path), "float32", "meta")
        assert {parameter.device.type for parameter in model.hf.parameters()} == {"meta"}
        assert [row.part for row in open_without_weights(str(path), None, LORA)[1].trainable] == ["lora"]


def test_a_ctc_head_of_256_labels_has_no_katakana(folders: dict[str, Path]) -> None:
    model = load_model(str(folders["3.3-2b"]), "float32")
    with torch.inference_mode():
        logits = model.ctc_logits(model.encode(*pad_features([noise(40, 1)])).states)
    assert model.num_ctc_labels == 256 and logits.shape == (1, 40, 348)
    assert int(logits.argmax(-1).max()) < 256 and float(logits.log_softmax(-1)[..., 256:].max()) < -1000


PARTS = {  # encoder, projector, language model, lm_head
    "3.3-2b": (439_980_288, 35_697_664, 2_533_541_888, 100_679_680),
    "3.3-8b": (439_980_288, 37_796_864, 8_170_868_736, 201_359_360),
    "4.1-2b": (440_168_796, 35_697_664, 1_631_752_192, 205_522_944),
    "4.1-2b-plus": (440_168_796, 39_891_968, 1_631_752_192, 205_522_944),
    "5.0-2b": (440_168_796, 35_697_664, 1_631_752_192, 205_522_944),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("3.3-2b", "4.1-2b") else name for name in PARTS]
)
def test_the_full_configuration_on_the_meta_device(name: str, tmp_path: Path) -> None:
    """Sizes of all parts, names of hub files, the default LoRA, and for 3.3 the places of the shipped adapter."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    model = on_meta(parse_config(CONFIGS[name]), str(tmp_path))
    assert tuple(count_parts(model).values()) == PARTS[name]
    assert model.profile.version == VERSIONS[name].replace("4.1", "4.0") if name == "4.1-2b" else VERSIONS[name]
    tied = model.lm_head.weight is model.language_model.get_input_embeddings().weight
    assert tied == name.startswith(("3.3", "4.1-2b-plus"))
    if name.startswith("3.3"):
        hidden, head = CONFIGS[name]["text_config"]["hidden_size"], CONFIGS[name]["text_config"]["hidden_size"] // 32
        matrices = {
            f"language_model.layers.{layer}.self_attn.{part}": (torch.empty(RANK, hidden), torch.empty(out, RANK))
            for layer in range(40)
            for part, out in (("q_proj", hidden), ("v_proj", 8 * head))
        }
        ShippedLora(tmp_path, ALPHA / RANK, matrices).merge(model.hf)
    with torch.device("meta"):
        open_parts(model, LORA)
    (row,) = summarize_parts(model)
    assert (row.part, row.modules) == ("lora", 280)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "granite_speech5_ctc"}, "IBM's notebook: https://.*finetune_granite_speech_5_turboctc.ipynb"),
        ({"model_type": "nle"}, "granite-speech-4.1-2b-nar .* Use granite-speech-4.1-2b"),
        ({"model_type": "llama"}, "supports only granite_speech and granite_speech_plus"),
        ({"projector_config": {"model_type": "granite_speech_qformer"}}, "granite-speech-3.2.*use granite-speech-3.3"),
        ({"encoder_config": {"output_dim": 42}}, "output_dim is 42; the CTC alphabet is known for"),
    ],
)
def test_other_models_of_the_family_are_refused_by_name(
    folders: dict[str, Path], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = Path(shutil.copytree(folders["5.0-2b"], tmp_path / "model"))
    config = changed(json.loads((path / "config.json").read_text()), **changes)
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_model(str(path), "float32")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": torch.zeros(1026, 16), "bias": torch.zeros(1026)}, "do not fit 32 encoder channels"),
        ({"weight": torch.zeros(2000, 32), "bias": torch.zeros(2000)}, "do not fit .* 1024 tokens"),
        ({"weight": torch.zeros(1024, 32), "bias": torch.zeros(7)}, "do not fit"),
        ({"weight": torch.zeros(1024, 32)}, "damaged, or not a CTC head"),
    ],
)
def test_a_bpe_head_of_another_model_is_refused(
    folders: dict[str, Path], tmp_path: Path, weights: dict[str, torch.Tensor], message: str
) -> None:
    path = Path(shutil.copytree(folders["4.1-2b"], tmp_path / "model"))
    save_file(weights, path / BPE_HEAD)
    with pytest.raises(ModelError, match=message):
        load_model(str(path), "float32")


def test_a_hub_name_that_is_not_there_gets_a_name_of_the_family() -> None:
    with pytest.raises(ModelError, match=r"did you mean ibm-granite/granite-speech-4.1-2b-plus\?"):
        read_config("ibm-granite/granite-speech-4.1-2b-pluss")
    with pytest.raises(ModelError, match=r"models of the family: ibm-granite/granite-4.0-1b-speech, .*5.0-2b"):
        read_config("nobody/nothing")
