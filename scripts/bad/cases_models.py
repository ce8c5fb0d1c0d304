"""Bad model folders."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad.case import Case
from bad.material import Material

MARK = "ran_code"  # a file that code of a model folder would write
Damage = tuple[Callable[[Path], None], str]  # what is changed, and what the message must contain
CODE = f"open({MARK!r}, 'w').close()\n"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def setter(*keys: str, value: object, file: str = "config.json") -> Callable[[Path], None]:
    """A function that sets one value in a JSON file of a model folder."""

    def change(folder: Path) -> None:
        path = folder / file
        if not path.exists():
            path.write_text("{}")

        def set_value(content: dict[str, Any]) -> None:
            for key in keys[:-1]:
                content = content.setdefault(key, {})
            content[keys[-1]] = value

        edit(path, set_value)

    return change


def writer(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def remover(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()

    return change


def with_code(file: str, *keys: str, value: object) -> Callable[[Path], None]:
    """The value makes transformers import a module of the folder."""
    inner = setter(*keys, value=value, file=file)

    def change(folder: Path) -> None:
        inner(folder)
        (folder / "evil.py").write_text(CODE)

    return change


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Changes the bytes of the weights."""

    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return apply


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Changes the header of the weights."""

    def apply(data: bytes) -> bytes:
        size = struct.unpack("<Q", data[:8])[0]
        content = json.loads(data[8 : 8 + size])
        change(content)
        text = json.dumps(content).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + size :]

    return apply


def pickled(folder: Path) -> None:
    """Pickled weights beside a decoy that is no safetensors file of the model."""
    (folder / "model.safetensors").rename(folder / "decoy.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch " + MARK.encode() + b"'\ntR.")


def index(shard: str) -> Callable[[Path], None]:
    """An index of shards that names another file."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        content = {"metadata": {"total_size": 1}, "weight_map": {"language_model.lm_head.weight": shard}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return change


def damages() -> dict[str, Damage]:
    """Each bad folder: what is changed, and what the message must contain."""
    return {**_code_and_indexes(), **_sizes(), **_configurations(), **_tokenizers(), **_weights_and_options()}


def _code_and_indexes() -> dict[str, Damage]:
    """Folders that would run code, and indexes that name files outside of them."""
    auto = {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    code = "code"
    return {
        "code-config": (with_code("config.json", "auto_map", value=auto), code),
        "code-config-inner": (with_code("config.json", "text_config", "auto_map", value=auto), code),
        "code-tokenizer": (with_code("tokenizer_config.json", "auto_map", value=auto), code),
        "code-tokenizer-list": (with_code("tokenizer_config.json", "auto_map", value=["evil.Evil", None]), code),
        "code-processor": (with_code("processor_config.json", "auto_map", value=auto), code),
        "code-preprocessor": (with_code("preprocessor_config.json", "auto_map", value=auto), code),
        "code-generation": (with_code("generation_config.json", "auto_map", value=auto), code),
        "code-pipelines": (with_code("config.json", "custom_pipelines", value={"a": {"impl": "evil.Evil"}}), code),
        "code-generate": (with_code("generation_config.json", "custom_generate", value="evil.py"), code),
        "pickle-decoy": (pickled, "safetensors"),
        "index-parent": (index("../../good/model/model.safetensors"), "folder|outside|index"),
        "index-absolute": (index("/etc/passwd"), "folder|outside|index"),
        "index-missing": (index("model-00002-of-00002.safetensors"), "model-00002|missing|index"),
        "index-garbage": (writer("model.safetensors.index.json", b"{"), "index"),
        "index-list": (writer("model.safetensors.index.json", b"[]"), "index"),
    }


def _sizes() -> dict[str, Damage]:
    """Impossible sizes and numbers in the configuration."""
    layers = ("text_config", "num_hidden_layers")
    return {
        "layers-million": (setter(*layers, value=10_000_000), "layers"),
        "layers-negative": (setter(*layers, value=-1), "layers"),
        "layers-text": (setter(*layers, value="many"), "layers"),
        "layers-float": (setter(*layers, value=1.5), "layers"),
        "layers-encoder": (setter("encoder_config", "num_layers", value=10_000_000), "layers"),
        "layers-projector": (setter("projector_config", "num_hidden_layers", value=10_000_000), "layers"),
        "layers-more": (setter(*layers, value=3), "layers|missing"),
        "hidden-huge": (setter("text_config", "hidden_size", value=10**9), "hidden_size|shape|size"),
        "hidden-other": (setter("text_config", "hidden_size", value=64), "hidden_size|shape|size"),
        "vocab-huge": (setter("text_config", "vocab_size", value=10**12), "vocab_size|shape|size"),
        "intermediate-huge": (setter("text_config", "intermediate_size", value=10**10), "intermediate_size|shape|size"),
        "encoder-huge": (setter("encoder_config", "hidden_dim", value=10**9), "hidden_dim|shape|size"),
        "encoder-positions-huge": (setter("encoder_config", "max_pos_emb", value=10**12), "max_pos_emb|shape|size"),
        "context-huge": (setter("encoder_config", "context_size", value=10**9), "context_size|shape|size|max_pos"),
        "window-zero": (setter("window_size", value=0), "window_size"),
        "window-huge": (setter("window_size", value=10**12), "window_size|size|shape"),
        "downsample-zero": (setter("downsample_rate", value=0), "downsample_rate"),
        "heads-zero": (setter("text_config", "num_attention_heads", value=0), "num_attention_heads|config"),
        "logits-scaling-zero": (setter("text_config", "logits_scaling", value=0), "logits_scaling"),
        "logits-scaling-nan": (setter("text_config", "logits_scaling", value=float("nan")), "logits_scaling"),
        "logits-scaling-text": (setter("text_config", "logits_scaling", value="8"), "logits_scaling"),
        "logits-scaling-null": (setter("text_config", "logits_scaling", value=None), "logits_scaling"),
        "audio-token-huge": (setter("audio_token_index", value=10**9), "audio_token"),
        "audio-token-text": (setter("audio_token_index", value="x"), "audio_token"),
    }


def _configurations() -> dict[str, Damage]:
    """Other faults of the configuration."""
    return {
        "config-list": (writer("config.json", b"[]"), "config"),
        "config-empty": (writer("config.json", b""), "config"),
        "config-cut": (writer("config.json", b'{"model_type": "granite_speech", '), "config"),
        "config-latin1": (writer("config.json", b'{"model_type": "granite_speech", "a": "\xe9"}'), "config"),
        "config-deep": (writer("config.json", b'{"model_type": "granite_speech", "a": ' + b"[" * 100_000), "config"),
        "config-digits": (writer("config.json", b'{"a": ' + b"9" * 10_000 + b"}"), "config|model_type"),
        "config-other": (setter("model_type", value="llama"), "model_type"),
        "config-type-list": (setter("model_type", value=["granite_speech"]), "model_type"),
        "config-text-null": (setter("text_config", value=None), "text_config|config"),
        "config-text-string": (setter("text_config", value="x"), "text_config|config"),
        "config-text-type": (setter("text_config", "model_type", value="no_such_type"), "config|no_such_type"),
        "config-encoder-list": (setter("encoder_config", value=[1]), "encoder_config|config"),
        "config-activation": (setter("text_config", "hidden_act", value="boom"), "boom|hidden_act|config"),
        "config-dtype": (setter("dtype", value="float99"), "float99|dtype|config"),
        "config-lora": (setter("has_lora_adapter", value=True), "adapter"),
        "config-turboctc": (setter("model_type", value="granite_speech5_ctc"), "notebook"),
        "config-alphabet": (setter("encoder_config", "output_dim", value=42), "output_dim"),
        "bpe-head-garbage": (writer("out_llm.safetensors", b"x"), "out_llm"),
        "config-quantized": (setter("quantization_config", value={"quant_method": "boom"}), "quant"),
        "config-rope": (setter("text_config", "rope_parameters", value={"rope_type": "boom"}), "rope|config"),
        "config-missing": (remover("config.json"), "config.json"),
    }


def _tokenizers() -> dict[str, Damage]:
    """Tokenizers and chat templates."""
    return {
        "tokenizer-missing": (remover("tokenizer.json"), "tokenizer|cannot be loaded"),
        "tokenizer-garbage": (writer("tokenizer.json", b"{]"), "tokenizer|cannot be loaded"),
        "tokenizer-list": (writer("tokenizer.json", b"[]"), "tokenizer|cannot be loaded"),
        "tokenizer-config-list": (writer("tokenizer_config.json", b"[]"), "tokenizer"),
        "tokenizer-config-garbage": (writer("tokenizer_config.json", b"\xff\xfe"), "tokenizer"),
        "tokenizer-no-eos": (setter("eos_token", value=None, file="tokenizer_config.json"), "eos|end"),
        "template-broken": (writer("chat_template.jinja", b"{% for %}"), "template"),
        "template-missing": (remover("chat_template.jinja"), "template"),
        "template-loop": (writer("chat_template.jinja", b"{% for i in range(10**10) %}a{% endfor %}"), "template"),
        "template-raise": (writer("chat_template.jinja", b"{{ raise_exception('no') }}"), "template"),
        "template-escape": (writer("chat_template.jinja", b"{{ ''.__class__.__mro__ }}"), "template"),
        "template-undefined": (writer("chat_template.jinja", b"{{ messages.a.b.c }}"), "template"),
        "template-zero": (writer("chat_template.jinja", b"{{ 1 / 0 }}"), "template"),
        "template-binary": (writer("chat_template.jinja", b"\xff\xfe\0"), "tokenizer|template"),
        "template-twice": (
            writer("chat_template.jinja", b"{{messages[0].content}}{{messages[0].content}}"),
            "template",
        ),
        "template-no-audio": (writer("chat_template.jinja", b"hello"), "template"),
    }


def _weights_and_options() -> dict[str, Damage]:
    """Weights, options of `transcribe`, thresholds, and an adapter."""
    return {
        "weights-missing": (remover("model.safetensors"), "safetensors"),
        "weights-empty": (writer("model.safetensors", b""), "safetensors"),
        "weights-cut": (weights(lambda data: data[: len(data) // 2]), "safetensors"),
        "weights-header-lie": (weights(lambda data: struct.pack("<Q", 1 << 60) + data[8:]), "safetensors"),
        "weights-header-zero": (weights(lambda data: struct.pack("<Q", 0) + data[8:]), "safetensors"),
        "weights-header-deep": (writer("model.safetensors", struct.pack("<Q", 90_000) + b"[" * 90_000), "safetensors"),
        "weights-header-list": (writer("model.safetensors", struct.pack("<Q", 2) + b"[]"), "safetensors"),
        "weights-pickle": (writer("model.safetensors", b"\x80\x04cposix\nsystem\n."), "safetensors"),
        "weights-fewer": (
            weights(header(lambda rows: rows.pop("language_model.lm_head.weight"))),
            "safetensor|missing",
        ),
        "weights-offsets": (
            weights(header(lambda rows: rows["language_model.lm_head.weight"].update(data_offsets=[0, 1 << 50]))),
            "safetensors",
        ),
        "weights-lfs": (
            writer("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
            "LFS|safetensors",
        ),
        "options-garbage": (lambda folder: _options(folder, b"{"), "settings.json"),
        "options-deep": (lambda folder: _options(folder, b"[" * 100_000), "settings.json"),
        "options-list": (lambda folder: _options(folder, b"[]"), "settings.json"),
        "calibration-garbage": (writer("decode.json", b"{"), "decode.json"),
        "calibration-nan": (writer("decode.json", b'{"max_entropy": NaN, "min_probability": 0.5}'), "decode.json"),
        "calibration-list": (writer("decode.json", b"[]"), "decode.json"),
        "adapter-inside": (writer("adapter_config.json", b'{"peft_type": "LORA"}'), "adapter"),
    }


def _options(folder: Path, content: bytes) -> None:
    (folder / "transcribe").mkdir()
    (folder / "transcribe" / "settings.json").write_bytes(content)


def cases(material: Material) -> Iterator[Case]:
    audio = str(material.good / "test0.wav")
    for number, (name, (change, says)) in enumerate(damages().items()):
        folder = material.folder(f"model-{name}")
        model = material.copy_model(folder / "model")
        change(model)
        yield Case(
            f"model-{name}: transcribe",
            folder,
            ["transcribe", audio, "--model", "model"],
            (1,),
            says,
            absent=(folder / MARK,),
        )
        if name.startswith(("options", "calibration")):
            continue
        recipe = [material.recipe, "--set", "model.base=model", "--set", "runs=runs"]
        # check does not read tokenizer, template or the content of weights.
        codes = (0, 1) if name.startswith(("tokenizer", "template", "weights", "adapter", "hidden-other")) else (1,)
        yield Case(f"model-{name}: check", folder, ["check", *recipe], codes, "", absent=(folder / MARK,))
        others = (
            ["score", *recipe],
            ["train", *recipe],
            ["compare", "model", str(material.good / "hyp_a.jsonl"), "--manifest", material.test],
            ["calibrate", "--model", "model", "--manifest", material.test, "--max-wer-loss", "1"],
        )
        argv = others[number % len(others)]
        yield Case(f"model-{name}: {argv[0]}", folder, argv, (1,), says, absent=(folder / MARK,))
    yield from _names(material)


def _names(material: Material) -> Iterator[Case]:
    """Names that are no model folder."""
    folder = material.folder("model-names")
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    (folder / "loop").symlink_to("loop")
    (folder / "linked").mkdir()
    for path in material.model.iterdir():
        if path.name != "config.json":
            (folder / "linked" / path.name).symlink_to(path)
    (folder / "linked" / "config.json").symlink_to("/dev/zero")
    names = {
        "empty": "config.json",
        "file": "folder|directory",
        "loop": "folder|loop|symbolic",
        "linked": "config.json",
        "nowhere/at/all": "no such folder",
        str(material.run): "export",
        str(material.run / "best"): "export",
        "./missing": "no such folder",
        "": "folder|model|name",
        "a\0b": "null|valid|model|folder|name",
        "n" * 5000: "long|model|folder",
        "../..": "config.json",
        "~nobody-here/model": "no such|folder|hub",
        "no-such-org/no-such-model": "hub|offline|cache",
    }
    for number, (name, says) in enumerate(names.items()):
        label = f"model-name-{name[-20:]!a}"
        audio = str(material.good / "test0.wav")
        yield Case(f"{label}: transcribe", folder, ["transcribe", audio, "--model", name], (1, 2), says)
        argv = [
            "score",
            material.recipe,
            "--set",
            f"model.base={name}",
            "--set",
            "runs=runs",
            "--set",
            f"name=n{number}",
        ]
        yield Case(f"{label}: score", folder, argv, (1, 2), "" if name == "" else says)
        argv = ["compare", name, str(material.good / "hyp_a.jsonl"), "--manifest", material.test]
        if not name.startswith(str(material.run)):
            yield Case(f"{label}: compare", folder, argv, (1, 2))
        yield Case(
            f"{label}: calibrate",
            folder,
            ["calibrate", "--model", name, "--manifest", material.test, "--max-wer-loss", "1"],
            (1, 2),
        )
