"""`finetune verify`: what an engine gets, how its failures are reported, and equal texts from real engines."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Command
from conftest import embedded
from transformers import AutoModelForSpeechSeq2Seq

from finetune.core.errors import ModelError
from finetune.core.run_dir import RunDir
from finetune.data.manifest import write_manifest
from finetune.exporting.engines.environment import pinned_version, python_of
from finetune.exporting.engines.registry import ENGINES
from finetune.exporting.engines.run_engine import RUNNERS, EngineAnswer, EngineClip, run_engine
from finetune.exporting.gguf.export import export_gguf

CLIPS = 6  # of the tests with engines
WRITE = "import json,os,sys,time; request=json.load(open(sys.argv[1])); answer=open(sys.argv[2],'w'); "
ROWS = (
    "[answer.write(json.dumps({'id': c['id'], 'text': c['prompt'], 'seconds': 0.5})+'\\n') for c in request['clips']]; "
)
DONE = "answer.write(json.dumps({'peak_memory_bytes': 7, 'complete': True})+'\\n')"
VERSIONS = "answer.write(json.dumps({'versions': {'x': '1'}})+'\\n'); "


def run(script: str, folder: Path, timeout: float = 60) -> EngineAnswer:
    """A runner of one line, on two clips."""
    (folder / "run_fake.py").write_text(script)
    samples, tokens = np.zeros(16, np.float32), ((1,), (2,))
    clips = [EngineClip(name, samples, f"USER: <|audio|>{name}", name, tokens) for name in ("a", "b")]
    return run_engine(Path(sys.executable), "fake", {"model": "m"}, clips, 20, folder, timeout, runners=folder)


def test_texts_by_id(tmp_path: Path) -> None:
    answer = run(WRITE + VERSIONS + ROWS + DONE, tmp_path)
    assert answer.texts == {"a": "USER: <|audio|>a", "b": "USER: <|audio|>b"}
    assert answer.seconds == {"a": 0.5, "b": 0.5}
    assert (answer.versions, answer.peak_memory_bytes) == ({"x": "1"}, 7)
    request = json.loads((tmp_path / "request.json").read_text())
    assert request["max_new_tokens"] == 20 and request["model"] == "m"
    assert np.load(request["clips"][0]["samples"]).dtype == np.float32


def test_what_an_engine_prints_is_no_answer(tmp_path: Path) -> None:
    noise = 'sys.stdout.buffer.write(bytes(range(256)) * 100); print(\'{"id": "a", "text": "wrong"}\'); '
    assert run(WRITE + noise + ROWS + DONE, tmp_path).texts["a"] == "USER: <|audio|>a"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('no such model')", r"exit code 1 after 0 of 2 clips. Its last messages:\nno such model"),
        (WRITE + ROWS + "answer.flush(); os._exit(9)", "exit code 9 after 2 of 2 clips"),
        (WRITE + "os.kill(os.getpid(), 11)", "stopped by SIGSEGV after 0 of 2 clips"),
        (WRITE + "os.kill(os.getpid(), 9)", r"stopped by SIGKILL \(was the memory full\?\) after 0 of 2 clips"),
        (WRITE + ROWS, "exit code 0 after 2 of 2 clips"),
        (WRITE + ROWS + 'answer.write(\'{"id": "c", "te\')', "exit code 0 after 2 of 2 clips"),
        (
            WRITE + ROWS.replace("request['clips']", "request['clips'][:1]") + DONE,
            "without the text of b, after 1 of 2",
        ),
        (WRITE + ROWS.replace("c['id']", "'z'") + DONE, "without the text of a"),
        (WRITE + "answer.write('[1]\\n'); " + DONE, "exit code 0 after 0 of 2 clips"),
        (WRITE + "answer.buffer.write(bytes(range(256)))", "exit code 0 after 0 of 2 clips"),
        (WRITE + ROWS.replace("c['prompt'], 'seconds': 0.5", "'x'") + DONE, "exit code 0 after 0 of 2 clips"),
    ],
    ids=[
        "refuses",
        "crashes",
        "segmentation fault",
        "out of memory",
        "stops early",
        "stops in a line",
        "skips a clip",
        "other ids",
        "a list",
        "bytes",
        "no time",
    ],
)
def test_an_engine_that_fails_is_an_error_with_its_messages(script: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        run(script, tmp_path)


def test_an_engine_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    child = f"import subprocess; p=subprocess.Popen(['sleep', '60']); open('{tmp_path}/child','w').write(str(p.pid)); "
    with pytest.raises(ModelError, match=r"did not end in 3 s, after 2 of 2 clips; use --timeout"):
        run(WRITE + ROWS + "answer.flush(); " + child + "time.sleep(60)", tmp_path, timeout=3)
    status, end = Path(f"/proc/{(tmp_path / 'child').read_text()}/status"), time.monotonic() + 20
    while running := status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < end, running
        time.sleep(0.05)


def test_a_missing_environment_names_the_script(tmp_path: Path) -> None:
    for engine in ("vllm", "vllm-lora"):
        with pytest.raises(ModelError, match=f"{engine} is not installed .* run scripts/engines/setup vllm, or name"):
            python_of(engine, environments=tmp_path)
    with pytest.raises(ModelError, match="has no package mlx_audio; run scripts/engines/setup mlx"):
        python_of("mlx", Path(sys.executable))
    assert python_of("transformers", environments=tmp_path) == Path(sys.executable)


def interpreter(path: Path, line: str) -> Path:
    """A program in the place of a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def test_another_version_than_the_pinned_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An error in an environment of scripts/engines/setup, a warning with a Python of the user."""
    pinned = pinned_version(ENGINES["llamacpp"])
    assert pinned and all(pinned_version(spec) for spec in ENGINES.values() if spec.environment)
    python = interpreter(tmp_path / "llamacpp" / "bin" / "python", "echo version 0.1")
    with pytest.raises(ModelError, match=f"has xllamacpp 0.1, not the pinned {pinned}; run scripts/engines/setup"):
        python_of("llamacpp", environments=tmp_path)
    assert python_of("llamacpp", python) == python
    assert f"has xllamacpp 0.1, not the pinned {pinned}" in caplog.text
    caplog.clear()
    interpreter(python, f"echo version {pinned}")
    assert python_of("llamacpp", environments=tmp_path) == python and not caplog.text


@pytest.mark.parametrize(
    ("line", "message"), [("echo hello", "exit code 0"), ("echo no library >&2; exit 3", "no library")]
)
def test_a_python_that_is_none(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"is no working Python .{message}.; run scripts/engines/setup llamacpp"):
        python_of("llamacpp", interpreter(tmp_path / "python", line))
    with pytest.raises(
        ModelError, match=r"no package onnxruntime; run: pip install 'finetune-granite-speech.onnx.', or"
    ):
        python_of("onnx", interpreter(tmp_path / "python", "exit 9"))
    (tmp_path / "python").chmod(0o644)
    with pytest.raises(ModelError, match="cannot be run .Permission denied."):
        python_of("llamacpp", tmp_path / "python")


def test_runners_need_nothing_of_this_toolkit_in_another_environment() -> None:
    for path in {RUNNERS / f"run_{spec.runner}.py" for spec in ENGINES.values() if spec.environment}:
        lines = [line for line in path.read_text().splitlines() if line.lstrip().startswith(("import", "from"))]
        own = [line for line in lines if "finetune" in line]
        assert all(line.startswith("        ") for line in own), path  # after an import that failed


def test_transformers_gets_the_weights_of_a_float32_load(narrow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a bfloat16 folder, whose weights are converted after they were loaded."""
    monkeypatch.syspath_prepend(str(RUNNERS))
    runner = importlib.import_module("run_transformers")
    monkeypatch.setattr(runner, "feature_function", lambda folder: None)
    _, _, model = runner.load({"model": str(narrow)})
    wide = AutoModelForSpeechSeq2Seq.from_pretrained(narrow, dtype=torch.float32).eval()
    tensors, expected = (dict(chain(item.named_parameters(), item.named_buffers())) for item in (model, wide))
    assert tensors.keys() == expected.keys()
    assert all(value.dtype == expected[name].dtype for name, value in tensors.items())
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "transformers", "--limit", "0"], "'0' is not a whole number of 1 or more"),
        (["--engine", "transformers", "--gguf-dtype", "F16"], "transformers reads no GGUF files"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, finetune: Command) -> None:
    done = finetune("verify", "export", *arguments)
    assert done.code == 2 and message in done.err


def test_an_export_is_verified_by_an_engine_that_reads_its_format(finetune: Command, tmp_path: Path) -> None:
    """Both are checked before the training."""
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
    done = finetune("export", recipe, "--format", "peft", "--verify", "vllm", "--set", f"runs={tmp_path}")
    assert done.code == 2 and "--verify vllm: it does not read --format peft; use one of peft" in done.err
    command = [sys.executable, "-m", "finetune", "export", recipe, "--verify", "mlx"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "none")}
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "mlx is not installed" in run.stderr
    assert not list(tmp_path.iterdir())


def test_a_data_type_of_gguf_needs_its_format(finetune: Command, tmp_path: Path) -> None:
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "quickstart.yaml"
    done = finetune("export", recipe, "--gguf-dtype", "F16", "--set", f"runs={tmp_path}")
    assert done.code == 2 and "add --format gguf" in done.err
    assert not list(tmp_path.iterdir())


def available(engine: str) -> None:
    """Skips a test whose engine is not installed."""
    try:
        python_of(engine)
    except ModelError as error:
        pytest.skip(str(error))


@pytest.mark.engines
@pytest.mark.parametrize("engine", ["transformers", "transformers-4.57", "llamacpp", "crispasr", "mlx", "vllm"])
def test_an_engine_writes_the_same_texts(engine: str, nano: Path, tmp_path: Path, finetune: Command) -> None:
    """On the embedded model; the environments are made by scripts/engines/setup."""
    available(engine)
    rows = list[str]()
    for clip in embedded("canary", CLIPS):
        name = Path(shutil.copy(clip.audio_filepath, tmp_path)).name  # as a user would write a manifest
        rows.append(json.dumps({"audio": name, "sentence": clip.text}) + "\n")
    (tmp_path / "clips.jsonl").write_text("".join(rows))
    done = finetune(
        "verify", nano, "--engine", engine, "--clips", tmp_path / "clips.jsonl", "--json", tmp_path / "r.json"
    )
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["equal"], result["differences"], result["adapted"]) == (CLIPS, [], None)
    assert result["toolkit_wer"] == result["engine_wer"] < 0.5
    assert result["peak_memory_bytes"] > 1e7 and result["engine_seconds"] > 0


@pytest.mark.engines
@pytest.mark.parametrize(("engine", "name"), [("llamacpp", "gguf"), ("crispasr", "crispasr")])
def test_an_engine_reads_the_files_of_an_export(
    engine: str, name: str, nano: Path, tmp_path: Path, finetune: Command
) -> None:
    """As they were written, compared with the merged model of their run; other files are found."""
    available(engine)
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    run.export.symlink_to(nano)
    write_manifest(run.manifest("test"), embedded("canary", CLIPS))
    file, *_ = export_gguf(run, "F32", name)
    done = finetune("verify", run.exported(name), "--engine", engine)
    assert done.code == 0 and f"format {name} F32: {CLIPS} of {CLIPS} texts equal" in done.out, (done.out, done.err)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    damaged = finetune("verify", run.exported(name), "--engine", engine)
    assert damaged.code == 1 and "  engine " in damaged.out, damaged.err


@pytest.mark.engines
def test_weights_that_mlx_audio_quantized(nano: Path, tmp_path: Path, finetune: Command) -> None:
    """By its own program; most texts are those of the merged model in this toolkit."""
    available("mlx")
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    run.export.symlink_to(nano)
    write_manifest(run.manifest("test"), embedded("canary", CLIPS))
    convert = [python_of("mlx"), "-m", "mlx_audio.convert", "--hf-path", nano, "--mlx-path", run.exported("mlx")]
    subprocess.run([*convert, "-q", "--q-bits", "8", "--model-domain", "stt"], check=True, capture_output=True)
    done = finetune("verify", run.exported("mlx"), "--engine", "mlx", "--json", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["format"] == "mlx 8 bit" and done.code == (result["equal"] != CLIPS)
    assert result["equal"] >= CLIPS / 2 and abs(result["toolkit_wer"] - result["engine_wer"]) < 0.1
