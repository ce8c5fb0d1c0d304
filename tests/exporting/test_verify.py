"""Both sides of `finetune verify`, with a program in the place of the engine."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import Command
from full_disk import full_disk
from in_process import InThisProcess
from safetensors.torch import load_file, save_file
from trainable_cases import LORA

from finetune import partial_runs
from finetune.cli.verify import decoding_note
from finetune.core.config import Recipe
from finetune.core.errors import ModelError
from finetune.core.files import is_disk_full
from finetune.core.model_limits import ModelLimits
from finetune.core.options import DecodingOptions
from finetune.core.prompts import INSTRUCTION
from finetune.core.run_dir import RunDir
from finetune.core.unexpected import explain
from finetune.data.manifest import Utterance, write_manifest
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.engines.environment import python_of
from finetune.exporting.engines.sides import format_of, sides_of
from finetune.exporting.gguf.export import export_gguf
from finetune.exporting.peft_format import export_peft
from finetune.exporting.vllm_format import export_vllm_lora
from finetune.inference.recognize import recognize
from finetune.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, save_adapter
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import open_parts

CLIPS = 2
ANSWERS = """import json, sys
request, texts = json.load(open(sys.argv[1])), json.load(open({texts!r}))
with open(sys.argv[2], "w") as answer:
    row = lambda **values: answer.write(json.dumps(values) + "\\n")
    row(versions={{"x": json.dumps([request.get("adapter"), request.get("max_lora_rank"), request.get("model")])}})
    for clip in request["clips"]:
        row(id=clip["id"], text=texts[clip["id"]], seconds=1)
    row(peak_memory_bytes=1, complete=True)
"""


def recipe_of(nano: Path) -> Recipe:
    data = {"train": ["x"], "valid": ["x"], "test": ["x"]}
    return Recipe.model_validate({"name": "run", "model": {"base": str(nano)}, "data": data, "export": {"clips": 1}})


@pytest.fixture(scope="module")
def run(
    model: Callable[[], SpeechModel],
    clips: list[Utterance],
    nano: Path,
    tmp_path_factory: pytest.TempPathFactory,
    trained_texts: dict[str, str],
) -> RunDir:
    """A run with a LoRA of random values that changes every text, and its adapters for PEFT and vLLM."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "run")
    granite = model()
    adapted = open_parts(granite, LORA)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in granite.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 1)
    save_adapter(granite, adapted, run.best)
    write_manifest(run.manifest("valid"), clips[:1])
    write_manifest(run.manifest("test"), clips[1 : CLIPS + 1])
    recipe = recipe_of(nano)
    trained_texts.update(texts_of(granite.eval(), clips[1 : CLIPS + 1]))
    export_peft(recipe, run, run.exported("peft"), InThisProcess())
    export_vllm_lora(recipe, run, run.exported("vllm-lora"))
    return run


@pytest.fixture(scope="module")
def trained_texts() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def base_texts(model: Callable[[], SpeechModel], clips: list[Utterance]) -> dict[str, str]:
    return texts_of(model(), clips[1 : CLIPS + 1])


def texts_of(model: SpeechModel, clips: list[Utterance]) -> dict[str, str]:
    options = replace(DecodingOptions(), decoder="greedy")
    return {row.id: row.text for row in recognize(model, clips, INSTRUCTION, options)}


def engine(folder: Path, texts: dict[str, str]) -> Path:
    """A Python that has every package, and an engine that writes these texts."""
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "answers.py").write_text(ANSWERS.format(texts=str(folder / "texts.json")))
    python = folder / "python"
    runs = f'exec {sys.executable} {folder}/answers.py "$2" "$3"'
    python.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then echo version -; else {runs}; fi\n')
    python.chmod(0o755)
    return python


def test_an_export_that_cannot_be_written_is_verified_all_the_same(
    run: RunDir, trained_texts: dict[str, str], tmp_path: Path, finetune: Command
) -> None:
    export = tmp_path / "export-peft"
    shutil.copytree(run.exported("peft"), export)
    (export / "engines.json.part").mkdir()  # as on a read-only disk, nothing can be recorded
    python, result = engine(tmp_path, trained_texts), tmp_path / "r.json"
    done = finetune("verify", export, "--engine", "peft", "--python", python, "--run", run.root, "--json", result)
    assert done.code == 0 and f"not recorded in {export} (" in done.out, (done.out, done.err)
    assert json.loads(result.read_text())["equal"] == CLIPS


def test_a_few_clips_do_not_replace_the_record_of_all(
    run: RunDir, trained_texts: dict[str, str], tmp_path: Path, finetune: Command
) -> None:
    export = tmp_path / "export-peft"
    shutil.copytree(run.exported("peft"), export)
    command = ("verify", export, "--engine", "peft", "--python", engine(tmp_path, trained_texts), "--run", run.root)
    recorded = [finetune(*command, *limit) for limit in (("--limit", 1), (), ("--limit", 1))]
    assert all(done.code == 0 for done in recorded)
    assert f"not recorded in {export}, which has the counts of {CLIPS} clips" in recorded[-1].out
    assert json.loads((export / "engines.json").read_text())["engines"]["peft"]["clips"] == CLIPS


def test_the_record_and_the_card_of_gguf_files(
    run: RunDir, nano: Path, base_texts: dict[str, str], tmp_path: Path, finetune: Command
) -> None:
    """A further export replaces both, as it replaces the weights."""
    other = RunDir(tmp_path / "run")
    shutil.copytree(nano, other.export)
    Adaptation.of_run(recipe_of(nano), other, ModelLimits()).write(other.export)
    shutil.copytree(run.manifests, other.manifests)
    folder = export_gguf(other, "F32")[0].parent
    python = engine(tmp_path, base_texts)
    done = finetune("verify", folder, "--engine", "llamacpp", "--python", python)
    assert done.code == 0 and f"recorded in {folder / 'README.md'}" in done.out, (done.out, done.err)
    assert f"| gguf F32 | {CLIPS} of {CLIPS} |" in (folder / "README.md").read_text()
    assert json.loads((folder / "engines.json").read_text())["engines"]["llamacpp"]["clips"] == CLIPS
    export_gguf(other, "F16")
    assert sorted(path.suffix for path in folder.iterdir()) == [".gguf", ".gguf", ".json", ".md"]
    assert "No other engine was verified" in (folder / "README.md").read_text()


def test_a_data_type_that_an_engine_does_not_have(
    run: RunDir, nano: Path, base_texts: dict[str, str], tmp_path: Path, finetune: Command
) -> None:
    """It was a KeyError."""
    python = engine(tmp_path, base_texts)
    clips = ("--clips", run.manifest("test"), "--python", python)
    command = ("verify", nano, "--engine", "crispasr", *clips, "--gguf-dtype", "Q4_K_M")
    assert "--gguf-dtype Q4_K_M is not written for --format crispasr" in finetune(*command).err


def test_what_cannot_be_written_is_an_error_before_the_comparison(
    run: RunDir, tmp_path: Path, finetune: Command
) -> None:
    command = ("verify", run.exported("peft"), "--engine", "peft", "--python", tmp_path / "none", "--json")
    assert f"{tmp_path}: a folder; name a file" in finetune(*command, tmp_path).err
    (tmp_path / "file").touch()
    assert "cannot be written (File exists)" in finetune(*command, tmp_path / "file" / "r.json").err
    export = tmp_path / "export-peft"
    shutil.copytree(run.exported("peft"), export)
    (export / "engines.json").write_text("{}}")
    done = finetune("verify", export, "--engine", "peft", "--python", tmp_path / "none", "--run", run.root)
    assert "engines.json: damaged" in done.err


@pytest.mark.parametrize("name", ["peft", "vllm-lora"])
def test_an_adapter_is_compared_with_the_trained_weights(
    run: RunDir,
    trained_texts: dict[str, str],
    base_texts: dict[str, str],
    tmp_path: Path,
    finetune: Command,
    name: str,
    nano: Path,
) -> None:
    """Equal texts pass; an engine that ignores the adapter fails with the first difference."""
    assert all(trained_texts[key] != base_texts[key] for key in base_texts)
    export = run.exported(name)
    equal = finetune("verify", export, "--engine", name, "--python", engine(tmp_path, trained_texts))
    assert equal.code == 0, equal.err
    assert f"{CLIPS} of {CLIPS} texts equal" in equal.out
    assert f"The adapter changes {CLIPS} of {CLIPS} texts of the base model" in equal.out
    rank = 8 if name == "vllm-lora" else None
    assert json.dumps([str(export.resolve()), rank, str(nano)]) in equal.out
    ignored = finetune("verify", export, "--engine", name, "--python", engine(tmp_path, base_texts))
    first = next(iter(base_texts))
    assert ignored.code == 1 and f"0 of {CLIPS} texts equal" in ignored.out
    assert (
        f"{first}:\n  here   {json.dumps(trained_texts[first])}\n  engine {json.dumps(base_texts[first])}"
        in ignored.out
    )


def test_an_adapter_that_changes_no_text_shows_nothing(
    run: RunDir, base_texts: dict[str, str], tmp_path: Path, finetune: Command, model: Callable[[], SpeechModel]
) -> None:
    """A LoRA of zeros: every engine would pass."""
    granite, other = model(), RunDir(tmp_path / "zeros")
    save_adapter(granite, open_parts(granite, LORA), other.best)
    clips = run.manifest("test")
    python = engine(tmp_path, base_texts)
    export = run.exported("peft")
    done = finetune("verify", export, "--engine", "peft", "--python", python, "--run", other.root, "--clips", clips)
    assert done.code == 1 and "The adapter changes no text of the base model" in done.out
    assert f"{CLIPS} of {CLIPS} texts equal" in done.out


def test_the_toolkit_computes_in_float32_with_weights_that_stay_bfloat16(narrow: Path, clips: list[Utterance]) -> None:
    kept = sides_of(narrow, "transformers").load()
    assert {value.dtype for value in kept.hf.parameters() if value.is_floating_point()} == {torch.bfloat16}
    assert texts_of(kept, clips[:2]) == texts_of(load_model(str(narrow), "float32"), clips[:2])


def test_the_wer_of_another_decoding_than_that_of_the_recipe_is_named(
    run: RunDir, trained_texts: dict[str, str], tmp_path: Path, finetune: Command, nano: Path
) -> None:
    export = run.exported("peft")
    assert decoding_note(export) == decoding_note(nano) == ""
    path = export / "adaptation.json"
    kept = path.read_text()
    content = json.loads(kept)
    content["recipe"]["decode"] |= {"decoder": "beam", "terms": ["losartan"]}
    path.write_text(json.dumps(content))
    try:
        result = finetune("verify", export, "--engine", "peft", "--python", engine(tmp_path, trained_texts))
    finally:
        path.write_text(kept)
    assert " % (greedy, not beam, without decode.terms; the summary of the run has the WER of its recipe)" in result.out


def test_formats_are_told_apart(run: RunDir, nano: Path, tmp_path: Path) -> None:
    assert [format_of(run.exported(name)) for name in ("peft", "vllm-lora")] == ["peft", "vllm-lora"]
    assert format_of(nano) == "hf"
    (tmp_path / "config.json").write_text('{"quantization": {"bits": 4}}')
    assert format_of(tmp_path) == "mlx"
    (tmp_path / "model-F16.gguf").touch()
    assert format_of(tmp_path) == "gguf"


def test_an_engine_refuses_a_format_that_it_does_not_read(run: RunDir, nano: Path, tmp_path: Path) -> None:
    for folder, name, message in (
        (run.exported("peft"), "vllm-lora", "reads the format vllm-lora, and this is peft, for --engine peft"),
        (run.exported("vllm-lora"), "vllm", "reads the format hf, and this is vllm-lora, for --engine vllm-lora"),
        (nano, "peft", "reads the format peft, and this is hf, for --engine transformers"),
        (run.best, "peft", "is no export"),
        (tmp_path / "missing", "vllm", "is not a folder"),
    ):
        with pytest.raises(ModelError, match=message):
            sides_of(folder, name)


def test_a_run_in_the_place_of_its_export_gets_a_suggestion(run: RunDir, finetune: Command) -> None:
    result = finetune("verify", run.root, "--engine", "transformers")
    assert result.code == 1 and f"{run.root}: a run directory; give an export in it, such as {run.export}" in result.err


def test_a_format_other_than_hf_needs_its_run(run: RunDir, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(run.exported("peft"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in moved.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match="name the run directory that it was exported from with --run"):
        sides_of(copy, "peft")
    assert sides_of(copy, "peft", run).format == "peft"
    with pytest.raises(ModelError, match="it has no folder best"):
        sides_of(copy, "peft", RunDir(tmp_path))
    (copy / ADAPTER_CONFIG).write_text("[1")
    with pytest.raises(ModelError, match="is damaged"):
        sides_of(copy, "peft", run)
    (copy / ADAPTER_CONFIG).write_text('{"modules_to_save": ["x"], "base_model_name_or_path": "/no/such/model"}')
    with pytest.raises(ModelError, match="the base model '/no/such/model' cannot be loaded"):
        sides_of(copy, "peft", run)


def zero(folder: Path) -> None:
    weights = {name: value.clone() for name, value in load_file(folder / ADAPTER_WEIGHTS).items()}
    save_file({n: v.zero_() if "lora_B" in n else v for n, v in weights.items()}, folder / ADAPTER_WEIGHTS)


def rename(folder: Path) -> None:
    weights = {name: value.clone() for name, value in load_file(folder / ADAPTER_WEIGHTS).items()}
    renamed = {n.replace("language_model", "llm") if "lora_" in n else n: v for n, v in weights.items()}
    save_file(renamed, folder / ADAPTER_WEIGHTS)


@pytest.mark.engines
@pytest.mark.parametrize("damage", [None, zero, rename])
@pytest.mark.parametrize("name", ["peft", "vllm-lora"])
def test_an_engine_with_an_adapter(
    run: RunDir, tmp_path: Path, name: str, damage: Callable[[Path], None] | None, finetune: Command
) -> None:
    """The engines load these damaged adapters without an error, and the comparison finds them."""
    try:
        python_of(name)
    except ModelError as error:
        pytest.skip(str(error))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in run.exported(name).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    if damage:
        damage(copy)
    done = finetune("verify", copy, "--engine", name, "--run", run.root)
    assert done.code == (1 if damage else 0), done.err
    assert f"{0 if damage else CLIPS} of {CLIPS} texts equal" in done.out, done.err
    assert f"The adapter changes {CLIPS} of {CLIPS} texts of the base model" in done.out
    assert ("  engine " in done.out) == bool(damage)


@pytest.mark.parametrize("bytes_left", [1_000, 100_000])
@pytest.mark.parametrize("name", ["peft", "vllm-lora", "gguf"])
def test_a_full_disk_keeps_the_earlier_export_and_leaves_no_half_one(
    run: RunDir, nano: Path, tmp_path: Path, name: str, bytes_left: int
) -> None:
    """In the middle of the weights."""
    target = RunDir(tmp_path / "run")
    target.exported(name).mkdir(parents=True)
    (target.exported(name) / ("model-F16.gguf" if name == "gguf" else "README.md")).touch()
    for link, source in ((target.best, run.best), (target.manifests, run.manifests), (target.export, nano)):
        link.symlink_to(source)
    write: dict[str, Callable[[], object]] = {
        "peft": lambda: export_peft(recipe_of(nano), target, target.exported(name), InThisProcess()),
        "vllm-lora": lambda: export_vllm_lora(recipe_of(nano), target, target.exported(name)),
        "gguf": lambda: export_gguf(target, "F32"),
    }
    with full_disk(bytes_left), pytest.raises(Exception) as caught:
        write[name]()
    assert isinstance(caught.value, Exception) and is_disk_full(caught.value), caught.value
    assert not [path.name for path in target.root.iterdir() if path.name.endswith((".part", ".old"))]
    assert len(list(target.exported(name).iterdir())) == 1
    assert "disk" in explain(caught.value) or "File too large" in explain(caught.value)


def test_a_full_disk_during_a_comparison(run: RunDir, tmp_path: Path, finetune: Command) -> None:
    python = engine(tmp_path, {})
    with full_disk(1_000):
        done = finetune("verify", run.exported("peft"), "--engine", "peft", "--python", python, "--limit", 1)
    assert done.code == 1 and "free some disk space" in done.err and "Traceback" not in done.err


def program(folder: Path, script: str, path: str) -> str:
    """A PATH with a program in the place of llama-quantize."""
    (folder / "llama-quantize").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "llama-quantize").chmod(0o755)
    return f"{folder}:{path}"


def test_q4_k_m_is_made_by_llama_quantize(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From F16; a missing program is refused before the training, and a failing one leaves nothing."""
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    run.export.symlink_to(nano)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="Q4_K_M needs llama-quantize .* not on the PATH.* or use Q8_0"):
        partial_runs.export_gguf(recipe_of(nano).model_copy(update={"runs": str(tmp_path)}), "gguf", "Q4_K_M")
    assert not (tmp_path / "run" / "manifests").exists()
    monkeypatch.setenv("PATH", program(tmp_path, "echo no tensor; exit 3", path))
    with pytest.raises(ModelError, match=r"exit code 3\). Its last messages:\nno tensor"):
        export_gguf(run, "Q4_K_M")
    assert [path.name for path in run.root.iterdir()] == ["export"]
    monkeypatch.setenv("PATH", program(tmp_path, 'cp "$1" "$2"; echo "$3" >> "$2"', path))
    text, audio = export_gguf(run, "Q4_K_M")
    assert (text.name, audio.name) == ("model-Q4_K_M.gguf", "mmproj-F16.gguf")
    assert text.read_bytes().startswith(b"GGUF") and text.read_bytes().endswith(b"Q4_K_M\n")
    assert {path.name for path in run.exported("gguf").iterdir()} == {text.name, audio.name}
